#!/usr/bin/env python3
"""Plants one fault for each rule of the gates and sees that it is found, at the right line.

A gate that finds nothing looks the same as a tree without faults; this is what tells them apart.
Each case copies the tree, adds or changes a few lines, runs one gate on the copy, and wants the
finding as path:line with words of its message. The faults go into files of their own wherever
possible, so that the cases do not depend on what the tree holds today.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

OPTIONS = None

HEAD = "#include <stdatomic.h>\n#include <stdint.h>\n"


def ignored(where, names):
    """What is not part of the tree: hidden files, build trees, caches."""
    return [
        name
        for name in names
        if name in ("build", "__pycache__", ".git")
        or os.path.exists(os.path.join(where, name, "CMakeCache.txt"))
    ]


class GateCase(unittest.TestCase):
    gate = None

    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="vex-gates-")
        self.addCleanup(holder.cleanup)
        self.root = pathlib.Path(holder.name, "tree")
        shutil.copytree(OPTIONS.root, self.root, ignore=ignored)

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def append(self, path, text):
        """Adds lines and returns the number of the first of them."""
        target = self.root / path
        old = target.read_text(encoding="utf-8") if target.exists() else ""
        self.write(path, old + ("" if old.endswith("\n") or not old else "\n") + text)
        return old.count("\n") + 1 + (1 if old and not old.endswith("\n") else 0)

    def line_with(self, path, text):
        for number, line in enumerate(
            (self.root / path).read_text(encoding="utf-8").splitlines(), 1
        ):
            if text in line:
                return number
        self.fail(f"{path} has no line with '{text}'")

    def run_gate(self, *options):
        script = OPTIONS.root / "scripts" / self.gate
        command = [script] if script.suffix == ".sh" else [sys.executable, "-B", script]
        return subprocess.run(
            [*command, "--root", self.root, *options], capture_output=True, text=True, check=False
        )

    def wants(self, path, line, words, *options):
        done = self.run_gate(*options)
        output = done.stdout + done.stderr
        self.assertEqual(done.returncode, 1, f"the gate accepted the fault:\n{output}")
        place = re.escape(path) + ":" + (r"\d+" if line is None else str(line)) + ":"
        found = [text for text in output.splitlines() if re.match(place, text) and words in text]
        self.assertTrue(found, f"no finding at {path}:{line} with '{words}' in:\n{output}")

    def wants_nothing(self, path, *options):
        """No finding in this file; the rest of the tree is judged by test_tree_is_clean."""
        output = self.run_gate(*options).stdout
        self.assertNotRegex(output, rf"(?m)^{re.escape(path)}:")


class Layers(GateCase):
    gate = "check_layers.py"

    def plant(self, path, include, words):
        self.write(path, f"/* planted */\n#include {include}\n")
        self.wants(path, 2, words)

    def test_tree_is_clean(self):
        done = self.run_gate()
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_wrong_direction(self):
        self.plant("shm/planted.c", '"daemon/planted.h"', "does not exist")
        self.write("daemon/planted.h", "")
        self.plant("shm/planted.c", '"daemon/planted.h"', "shm must not know daemon")

    def test_siblings_do_not_know_each_other(self):
        self.write("ioengine/planted.h", "")
        self.plant("index/planted.c", '"ioengine/planted.h"', "index must not know ioengine")

    def test_header_counts_as_well(self):
        self.write("index/planted.h", "")
        self.plant("base/planted.h", '"index/planted.h"', "base must not know index")

    def test_public_header_of_a_higher_folder(self):
        self.plant("daemon/planted.c", "<vex/vex.h>", "daemon must not know libclient")

    def test_public_header_that_does_not_exist(self):
        self.plant("daemon/planted.c", "<vex/nothing.h>", "does not exist")

    def test_public_header_by_its_path(self):
        self.plant("shm/planted.c", '"base/include/vex/status.h"', "include it as <vex/status.h>")

    def test_public_header_uses_what_is_not_installed(self):
        self.plant("base/include/vex/planted.h", '"base/error.h"', "not installed")

    def test_include_without_folder(self):
        self.write("shm/planted.h", "")
        self.plant("shm/planted.c", '"planted.h"', "from the root")

    def test_include_upwards(self):
        self.plant("shm/planted.c", '"shm/../base/error.h"', "from the root")

    def test_private_header_of_another_folder(self):
        self.write("ioengine/planted_priv.h", "")
        self.plant("daemon/planted.c", '"ioengine/planted_priv.h"', "private to ioengine")

    def test_liburing_has_one_place(self):
        self.plant("ioengine/planted.c", "<liburing.h>", "for ioengine/io_uring.c alone")

    def test_jemalloc_is_for_the_daemon(self):
        self.plant("index/planted.c", "<jemalloc/jemalloc.h>", "for daemon/ alone")

    def test_unknown_dependency(self):
        self.plant("index/planted.c", "<openssl/sha.h>", "is unknown")

    def test_vexctl_uses_the_public_library_only(self):
        self.write("base/planted.h", "")
        self.plant("libclient/vexctl/planted.c", '"base/planted.h"', "vexctl")

    def test_vexctl_does_not_reach_into_libclient(self):
        self.write("libclient/planted.h", "")
        self.plant("libclient/vexctl/planted.c", '"libclient/planted.h"', "vexctl")

    def test_libclient_does_not_reach_into_vexctl(self):
        self.write("libclient/vexctl/planted.h", "")
        self.plant("libclient/planted.c", '"libclient/vexctl/planted.h"', "vexctl")

    def test_jansson_is_for_vexctl(self):
        self.plant("libclient/planted.c", "<jansson.h>", "for libclient/vexctl/ alone")

    def test_comment_is_no_include(self):
        self.write(
            "shm/planted.c", '/*\n#include "daemon/server.h"\n*/\n// #include <liburing.h>\n'
        )
        self.wants_nothing("shm/planted.c")

    def test_tests_may_know_everything(self):
        self.write("ioengine/planted_priv.h", "")
        self.write(
            "tests/unit/planted.c", '#include <cmocka.h>\n#include "ioengine/planted_priv.h"\n'
        )
        self.wants_nothing("tests/unit/planted.c")

    def test_folder_without_a_line(self):
        self.write("planted/planted.c", "")
        self.wants("planted/planted.c", 1, "no line in the block")

    def test_link_against_the_direction(self):
        line = self.append(
            "shm/CMakeLists.txt", "target_link_libraries(vex_shm\n    PRIVATE vex_index)\n"
        )
        self.wants("shm/CMakeLists.txt", line, "shm must not know index")

    def test_link_in_a_circle(self):
        line = self.append(
            "base/CMakeLists.txt",
            "add_library(planted_a a.c)\nadd_library(planted_b b.c)\n"
            "target_link_libraries(planted_a planted_b)\n"
            "target_link_libraries(planted_b PUBLIC planted_a)\n",
        )
        self.wants("base/CMakeLists.txt", line, "planted_a -> planted_b -> planted_a")

    def test_vexctl_links_only_vex(self):
        line = self.append(
            "libclient/CMakeLists.txt",
            "add_executable(planted vexctl/planted.c)\n"
            "target_link_libraries(planted PRIVATE vex vex_base)\n",
        )
        self.wants("libclient/CMakeLists.txt", line + 1, "vexctl links only vex")

    def test_block_in_a_circle(self):
        line = self.append("ARCHITECTURE.md", "")
        text = (self.root / "ARCHITECTURE.md").read_text(encoding="utf-8")
        text = re.sub(r"(?m)^base(\s*)->", r"base\1-> shm", text)
        self.write("ARCHITECTURE.md", text)
        line = self.line_with("ARCHITECTURE.md", "-> shm")
        self.wants("ARCHITECTURE.md", line, "circle: base -> shm -> base")

    def test_block_is_missing(self):
        self.write("ARCHITECTURE.md", "# Architecture\n\n```\nls -l\n```\n")
        self.wants("ARCHITECTURE.md", 1, "no fenced block")


class Pairs(GateCase):
    gate = "check_pairs.py"
    path = "shm/planted.c"

    def plant(self, lines, line, words, rows=("PLANTED",)):
        self.write(self.path, HEAD + lines)
        if rows:
            self.append(
                "shm/README.md",
                "\n| pair | why |\n|------|-----|\n"
                + "".join(f"| {row} | planted |\n" for row in rows),
            )
        self.wants(self.path, line, words)

    store = "/* pairs: PLANTED */\natomic_store_explicit(&a->word, 1, memory_order_release);\n"
    load = "/* pairs: PLANTED */\nx = atomic_load_explicit(&a->word, memory_order_acquire);\n"

    def accepts(self, lines):
        self.write(self.path, HEAD + lines)
        self.append("shm/README.md", "\n| pair | why |\n|---|---|\n| PLANTED | planted |\n")
        self.wants_nothing(self.path)

    def test_tree_is_clean(self):
        done = self.run_gate()
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_named_on_both_sides(self):
        self.accepts(self.store + self.load)

    def test_comment_forms(self):
        self.accepts(
            "atomic_store_explicit(&a->word, 1,\n    memory_order_release); /* pairs: PLANTED */\n"
            "/* pairs: PLANTED with the other, which\n * is\n * said\n * at\n * length. */\n"
            "x = atomic_load_explicit(&a->word, memory_order_acquire);\n"
            "// relaxed: a statistic\nx = atomic_load_explicit(&a->n, memory_order_relaxed);\n"
        )

    def test_unnamed_acquire(self):
        self.plant(
            self.store
            + self.load
            + "\n\n\nx = atomic_load_explicit(&a->word, memory_order_acquire);\n",
            10,
            "acquire has no comment",
        )

    def test_comment_serves_one_line(self):
        self.plant(
            self.store + self.load + "x = atomic_load_explicit(&a->word, memory_order_acquire);\n",
            7,
            "acquire has no comment",
        )

    def test_comment_too_far_away(self):
        self.plant(
            "/* pairs: PLANTED */\n\n\n\n" + self.store.splitlines()[1] + "\n" + self.load,
            7,
            "release has no comment",
        )

    def test_comment_beside_no_access(self):
        self.plant(
            self.store + self.load + "/* pairs: PLANTED */\nx = 1;\n", 7, "beside no ordered access"
        )

    def test_name_in_a_string(self):
        self.plant(
            self.load + 'f("/* pairs: PLANTED */"); ' + self.store.splitlines()[1],
            5,
            "release has no comment",
        )

    def test_nothing_acquires(self):
        self.plant(self.store + self.store, 4, "nothing acquires")

    def test_nothing_releases(self):
        self.plant(self.load + self.load, 4, "nothing releases")

    def test_acquiring_exchange_does_not_release(self):
        self.plant(
            self.load + "/* pairs: PLANTED */\n"
            "x = atomic_exchange_explicit(&a->word, 1, memory_order_acquire);\n",
            4,
            "nothing releases",
        )

    count = "x = atomic_fetch_sub_explicit(&a->word, 1, memory_order_acq_rel);\n"

    def test_one_place_only(self):
        self.plant("/* pairs: PLANTED */\n" + self.count, 4, "one place only")

    def test_one_place_that_says_so(self):
        self.accepts("/* pairs: PLANTED with itself: the last one frees. */\n" + self.count)

    def test_with_itself_needs_both_orders(self):
        self.plant(
            "/* pairs: PLANTED with itself */\n" + self.count.replace("acq_rel", "acquire"),
            4,
            "nothing releases",
        )

    def test_row_missing(self):
        self.plant(self.store + self.load, 4, "PLANTED has no row", rows=())

    def test_row_in_another_table(self):
        self.append("shm/README.md", "\n| word | why |\n|---|---|\n| PLANTED | planted |\n")
        self.plant(self.store + self.load, 4, "PLANTED has no row", rows=())

    def test_row_twice(self):
        self.write(self.path, HEAD + self.store + self.load)
        line = self.append(
            "index/README.md", "\n| pair | why |\n|---|---|\n| PLANTED | x |\n| PLANTED | x |\n"
        )
        self.wants("index/README.md", line + 4, "has a row already")

    def test_row_without_code(self):
        line = self.append(
            "daemon/README.md", "\n| pair | why |\n|---|---|\n| PLANTED | planted |\n"
        )
        self.wants("daemon/README.md", line + 3, "not in the code")

    def test_relaxed_without_reason(self):
        self.plant(
            "x = atomic_load_explicit(&a->word, memory_order_relaxed);\n",
            3,
            "relaxed has no comment",
            rows=(),
        )

    def test_relaxed_with_an_empty_reason(self):
        self.plant(
            "/* relaxed: */\nx = atomic_load_explicit(&a->word, memory_order_relaxed);\n",
            4,
            "relaxed has no comment",
            rows=(),
        )

    def test_relaxed_failure_of_a_compare_exchange(self):
        self.plant(
            "/* pairs: PLANTED */\natomic_compare_exchange_strong_explicit(&a->word, &x, 1,\n"
            "    memory_order_acq_rel, memory_order_relaxed);\n" + self.load,
            4,
            "relaxed has no comment",
        )

    def test_fence(self):
        self.plant("atomic_thread_fence(memory_order_seq_cst);\n", 3, "fence", rows=())

    def test_implicit_call(self):
        self.plant(
            "/* pairs: PLANTED */\natomic_store(&a->word, 1);\n" + self.load,
            4,
            "use atomic_store_explicit",
        )

    def test_builtin(self):
        self.plant("__atomic_store_n(&a->word, 1, __ATOMIC_RELEASE);\n", 3, "C11", rows=())
        self.plant("__sync_synchronize();\n", 3, "C11", rows=())

    def test_consume(self):
        self.plant(
            "x = atomic_load_explicit(&a->word, memory_order_consume);\n",
            3,
            "write the order out",
            rows=(),
        )

    def test_order_in_a_variable(self):
        self.plant(
            "x = atomic_load_explicit(&a->word, order);\n", 3, "write the order out", rows=()
        )

    types = (
        "struct planted_part { _Atomic uint32_t planted_word; uint32_t plain; };\n"
        "struct planted { struct planted_part part; _Atomic(uint64_t) lsn; uint64_t id;\n"
        "    const _Atomic uint64_t *table; atomic_uint many[4]; struct planted *_Atomic next; };\n"
        "struct planted_view { uint64_t lsn; };\n"
        "static _Atomic(const struct planted *) planted_first;\n"
        "static struct planted *planted_of(int x);\n"
        "static void f(struct planted *p, struct planted_view *v, _Atomic uint32_t *hash)\n{\n"
    )
    first_line = 11

    def expressions(self, expressions):
        body = "".join(f"    {expression};\n" for expression in expressions)
        self.write(self.path, HEAD + self.types + body + "}\n")
        return self.run_gate().stdout

    def test_operators_on_atomic_objects(self):
        expressions = (
            ("p->lsn = 1", "lsn"),
            ("p->part.planted_word++", "planted_word"),
            ("x = planted_of(3)->lsn", "lsn"),
            ("x = y & p->lsn", "lsn"),
            ("x = y && p->lsn", "lsn"),
            ("x = p->table[3]", "table"),
            ("x = *p->table", "table"),
            ("p->many[x]--", "many"),
            ("p->next = NULL", "next"),
            ("x = p->next->id", "next"),
            ("planted_first = NULL", "planted_first"),
            ("x = planted_first->id", "planted_first"),
            ("hash[3] = 1", "hash"),
            ("return *hash", "hash"),
            ("x = ((struct planted *)raw)->lsn", "lsn"),
            ("x = UNKNOWN->planted_word", "planted_word"),
        )
        output = self.expressions([expression for expression, _ in expressions])
        for line, (expression, name) in enumerate(expressions, self.first_line):
            with self.subTest(expression):
                self.assertIn(f"{self.path}:{line}: '{name}' is _Atomic", output)

    def test_no_operators_on_atomic_objects(self):
        output = self.expressions(
            (
                "v->lsn = 1",
                "p->id = p->part.plain",
                "x = &p->lsn",
                "x = &(p->lsn)",
                "x = p->table",
                "x = &p->table[1]",
                "x = p->many",
                "x = sizeof(p->lsn)",
                "x = sizeof p->many[0]",
                "x = offsetof(struct planted, part.planted_word)",
                "x = &planted_first",
                "x = hash + 1",
                "x = &hash[3]",
                "x = (struct planted){.lsn = 1}",
                "x = &planted_of(3)->part.planted_word",
                "x = &p->next",
                "x = ((struct planted_view *)raw)->lsn",
            )
        )
        self.assertNotIn(self.path + ":", output)


class Exports(GateCase):
    gate = "check_exports.py"
    header = "libclient/include/vex/vex.h"
    map = "libclient/libvex.map"

    def test_tree_is_clean(self):
        done = self.run_gate()
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_declared_but_not_in_the_map(self):
        text = (self.root / self.header).read_text(encoding="utf-8")
        text = text.replace("#endif\n", "VEX_API int vex_planted(\n    int x);\n#endif\n", 1)
        self.write(self.header, text)
        self.wants(
            self.header, self.line_with(self.header, "vex_planted"), "not in libclient/libvex.map"
        )

    def test_in_the_map_but_not_declared(self):
        text = (self.root / self.map).read_text(encoding="utf-8")
        self.write(self.map, text.replace("global:", "global:\n    vex_planted;", 1))
        self.wants(self.map, self.line_with(self.map, "vex_planted"), "not declared VEX_API")

    def test_pattern_in_the_map(self):
        text = (self.root / self.map).read_text(encoding="utf-8")
        self.write(self.map, text.replace("global:", "global:\n    vex_*;", 1))
        self.wants(self.map, self.line_with(self.map, "vex_*"), "write every exported name out")

    def test_map_that_hides_nothing(self):
        text = (self.root / self.map).read_text(encoding="utf-8")
        self.write(self.map, re.sub(r"local:\s*\*;", "", text))
        self.wants(self.map, 1, "'local: *;' is missing")

    def test_foreign_name_in_the_header(self):
        text = (self.root / self.header).read_text(encoding="utf-8")
        self.write(self.header, text.replace("#endif\n", "VEX_API int planted(void);\n#endif\n", 1))
        self.wants(self.header, self.line_with(self.header, "planted"), "does not begin with vex_")

    def small_library(self, code, map_names="vex_a; vex_b;", link=()):
        """A header that declares vex_a and vex_b, its map, and a library made from `code`."""
        self.write(
            self.header,
            "#define VEX_API\nVEX_API int vex_a(void);\nVEX_API double vex_b(double x);\n",
        )
        self.write(self.map, f"V {{ global: {map_names} local: *; }};\n")
        self.write("planted.c", code)
        self.write("planted.map", "V { global: vex_*; local: *; };\n")
        library = self.root / "libplanted.so"
        subprocess.run(
            [
                OPTIONS.compiler,
                "-shared",
                "-fPIC",
                "-o",
                library,
                self.root / "planted.c",
                f"-Wl,--version-script={self.root / 'planted.map'}",
                *link,
            ],
            check=True,
        )
        return library

    both = "int vex_a(void);\nint vex_a(void) { return 1; }\ndouble vex_b(double x) { return x; }\n"

    def test_library_that_agrees(self):
        done = self.run_gate("--library", self.small_library(self.both))
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_library_exports_too_much(self):
        library = self.small_library(self.both + "int vex_c(void) { return 1; }\n")
        self.wants(self.map, 1, "vex_c is exported", "--library", library)

    def test_library_exports_too_little(self):
        library = self.small_library("int vex_a(void) { return 1; }\n")
        self.wants(self.map, 1, "vex_b is not exported", "--library", library)

    def test_library_needs_more_than_libc(self):
        library = self.small_library(self.both, link=("-Wl,--no-as-needed", "-lm"))
        self.wants("libclient/CMakeLists.txt", 1, "needs libm.so.6", "--library", library)
        done = self.run_gate("--library", library, "--allow", "libm.so.*")
        self.assertEqual(done.returncode, 0, done.stdout)


class Words(GateCase):
    gate = "check_words.py"

    def test_tree_is_clean(self):
        done = self.run_gate()
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_words(self):
        # In two parts each, because this file is in the tree as well.
        for first, second in (
            ("/wor", "k/main/x.c"),
            ("see /roo", "t/notes"),
            ("in /hom", "e/someone/vex"),
            (".libr", "ary/env"),
            ("a sub", "agent"),
            ("issue ", "#12"),
            ("TO", "DO: later"),
            ("FIX", "ME"),
        ):
            with self.subTest(first + second):
                self.write("docs/planted.md", f"fine\n\n{first}{second}\n")
                self.wants("docs/planted.md", 3, first[-2:] + second[:1])

    def test_innocent_words(self):
        self.write(
            "docs/planted.md",
            "${dir}/work/x framework/work worked /workers .libraryx\n"
            'a tissue # 1, the session, mkstemp("/tmp/x-XXXXXX")\n',
        )
        self.wants_nothing("docs/planted.md")

    def test_build_trees_are_no_part(self):
        self.write("out/CMakeCache.txt", "")
        self.write("out/planted.c", "/* TO" "DO */\n")
        self.wants_nothing("out/planted.c")


class Format(GateCase):
    gate = "check_format.sh"

    def setUp(self):
        super().setUp()
        self.write("shm/planted.c", "int x;\n")
        if self.run_gate().returncode == 77:
            self.skipTest("no clang-format 14 here")

    def test_tree_is_clean(self):
        done = self.run_gate()
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_badly_laid_out_line(self):
        self.write("shm/planted.c", "int x;\n\nint f( void )\n{\n    return x;\n}\n")
        done = self.run_gate()
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, r"(?m)^shm/planted\.c:3:")

    def test_build_trees_are_no_part(self):
        self.write("out/CMakeCache.txt", "")
        self.write("out/planted.c", "int  f( void );\n")
        self.assertNotIn("out/planted.c", self.run_gate().stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2]
    )
    parser.add_argument("--compiler", default="cc")
    OPTIONS, others = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *others])
