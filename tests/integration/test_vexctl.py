#!/usr/bin/env python3
"""Drives the real vexctl, and through it libvex and vexd, as an operator would.

    tests/integration/test_vexctl.py [--vexctl PATH] [unittest arguments]

Without --vexctl the program is $VEXCTL or build/release/bin/vexctl. Everything happens in a temporary
directory; no daemon is left. Only Python's standard library is used, so files are made by hand, which
also makes the damaged ones easy.
"""

import argparse
import base64
import contextlib
import fcntl
import json
import math
import os
import pathlib
import pty
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
VEXCTL = None
SECONDS_MAX = 60  # of one command; a hang is a failure

OK, FAILED, USAGE, NOT_FOUND, CONFLICT, UNREACHABLE, CORRUPT, TIMEOUT, PARTIAL, DENIED, NO_SPACE = range(11)


# ---- files ---------------------------------------------------------------------------------------


def fvecs(rows):
    return b"".join(struct.pack(f"<i{len(row)}f", len(row), *row) for row in rows)


def bvecs(rows):
    return b"".join(struct.pack("<i", len(row)) + bytes(row) for row in rows)


def npy(data, shape, descr="<f4", fortran=False, version=1):
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"
    prefix = 10 if version == 1 else 12
    header += " " * (-(prefix + len(header) + 1) % 64) + "\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + data


def npy_rows(rows, descr="<f4", code="f", version=1):
    data = b"".join(struct.pack(f"<{len(row)}{code}", *row) for row in rows)
    return npy(data, (len(rows), len(rows[0])), descr, version=version)


def jsonl(objects):
    return "".join(json.dumps(item) + "\n" for item in objects).encode()


ROWS = [[1.0, 2.0, 3.0], [4.0, -5.0, 6.0], [0.5, 0.25, 8.0], [7.0, 7.0, 7.0]]
BYTE_ROWS = [[0, 1, 255], [9, 8, 7], [200, 100, 50], [1, 1, 1]]
NAN = float("nan")


# ---- processes -----------------------------------------------------------------------------------


def is_alive(pid):
    """A zombie that nobody has waited for yet is not alive."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(0.01)


def error_of(done):
    """Standard error of a command with -o json that failed: one line, one object."""
    assert done.stderr.endswith(b"\n") and done.stderr.count(b"\n") == 1, done.stderr
    error = json.loads(done.stderr)
    assert set(error) == {"error", "exit_code", "message"}, error
    assert error["exit_code"] == done.returncode and error["message"], error
    return error


class Case(unittest.TestCase):
    """A directory for files and one instance in it, shared by the cases of a class."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="vexctl-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.instance = cls.folder / "db"
        cls.addClassCleanup(cls.end_daemon, cls.instance)

    @classmethod
    def end_daemon(cls, instance):
        """Stops it in order, or by force if that fails."""
        status = cls.call("-o", "json", "--no-spawn", "status", instance=instance)
        if status.returncode == OK:
            pid = json.loads(status.stdout)["daemon_pid"]
            cls.call("stop", instance=instance)
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)

    @classmethod
    def environment(cls, instance):
        return {**os.environ, "VEXDB_DIR": str(instance)}

    @classmethod
    def call(cls, *words, instance=None, stdin=b"", env=None):
        return subprocess.run(
            [VEXCTL, *map(str, words)],
            input=stdin,
            capture_output=True,
            timeout=SECONDS_MAX,
            check=False,
            env=env or cls.environment(instance or cls.instance),
        )

    @classmethod
    def make_instance(cls, instance=None):
        """An empty one: of vexctl's verbs only those that create a collection make one."""
        words = ["--dir", str(instance or cls.instance), "--embedded", "--idle-timeout-ms", "1"]
        subprocess.run([vexd(), *words], capture_output=True, timeout=SECONDS_MAX, check=True)

    def good(self, *words, **more):
        """Standard output of a command that must succeed without a word on standard error."""
        done = self.call(*words, **more)
        self.assertEqual((done.returncode, done.stderr.decode()), (OK, ""), words)
        return done.stdout.decode()

    def json(self, *words, **more):
        text = self.good("-o", "json", *words, **more)
        self.assertTrue(text.endswith("\n"))
        return json.loads(text)

    def bad(self, code, *words, says=r"\w", **more):
        """A command that must fail with `code`, say so in one line, and print nothing else."""
        for output in ("table", "json"):
            done = self.call("-o", output, *words, **more)
            message = done.stderr.decode()
            self.assertEqual((done.returncode, done.stdout), (code, b""), (words, message))
            if output == "json":
                error = error_of(done)
                self.assertEqual(error["exit_code"], code, words)
                self.assertRegex(error["error"] or "VEX_ERR_", r"\AVEX_ERR_\w*\Z", words)
                message = "vexctl: " + error["message"] + "\n"
            self.assertRegex(message, r"\Avexctl: [^\n]+\n\Z", words)
            self.assertRegex(message, says, words)
        return message

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def fresh(self, name, dim=3, metric="l2"):
        """An empty collection of that name."""
        self.call("coll", "drop", name, "--yes")
        self.good("coll", "create", name, "--dim", dim, "--metric", metric)
        return name

    def stored(self, name, *ids):
        return self.json("get", name, *ids)["records"]

    def names(self):
        return [item["name"] for item in self.json("coll", "list")["collections"]]


# ---- cases ---------------------------------------------------------------------------------------


VERBS = (
    "status", "coll create", "coll list", "coll show", "coll alter", "coll drop", "put", "get", "delete", "count",
    "search", "recall", "import", "index status", "checkpoint", "compact run", "compact status", "backup create",
    "backup list",
    "backup verify", "backup restore", "fsck", "log dump", "log repair", "stop", "help", "version",
)


class Help(Case):
    def test_every_verb_is_explained_with_an_example(self):
        overview = self.good("help")
        for verb in VERBS:
            text = self.good("help", *verb.split())
            self.assertIn(f"  {verb} ", overview)
            self.assertIn(f"usage: vexctl {verb}", text)
            self.assertRegex(text, rf"examples?:\n  vexctl .*{verb}")
            self.assertEqual(text, self.good(*verb.split(), "--help"))
        self.assertEqual(overview, self.good("--help"))
        self.assertEqual(overview, self.good("coll", "--help"))
        self.assertEqual(self.good("help", "coll").count("usage:"), 5)

    def test_help_fits_a_terminal_and_starts_no_daemon(self):
        for verb in VERBS:
            for line in self.good("help", *verb.split()).splitlines():
                self.assertLessEqual(len(line), 100, line)
        self.assertFalse(self.instance.exists())

    def test_every_status_has_an_exit_code(self):
        header = (ROOT / "base/include/vex/status.h").read_text()
        names = re.findall(r"^\s*X\((\w+), \d+,", header, re.M)
        self.assertGreater(len(names), 20)
        text = self.good("help", "exit-codes")
        for name in names:
            self.assertEqual(len(re.findall(rf"\bVEX_{name}\b", text.split("\nOn any code")[0])), 1, name)
        for code in range(11):
            self.assertRegex(text, rf"(?m)^ +{code}  \w")
        self.assertRegex(text, r" 0  done\n +VEX_OK ")

    def test_version(self):
        number = r"\d+\.\d+\.\d+"
        shape = rf"\Avexctl {number}, libvex {number}, kernels \w+\n\Z"
        self.assertRegex(self.good("version"), shape)
        self.assertEqual(self.good("--version"), self.good("version"))
        self.assertLessEqual({"vexctl", "libvex"}, self.json("version").keys())

    def test_output_that_cannot_be_written_is_a_failure(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([VEXCTL, "help"], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, FAILED)
        self.assertRegex(done.stderr.decode(), "standard output")


class Usage(Case):
    WRONG = (
        ([], "a verb is missing"),
        (["frobnicate"], "'frobnicate' is no verb"),
        (["coll"], "create, list, show, alter or drop"),
        (["coll", "frobnicate"], "create, list, show, alter or drop"),
        (["index"], "say status"),
        (["index", "status", "a", "b"], "one argument too many"),
        (["coll", "alter"], "too few"),
        (["coll", "alter", "c"], "nothing to change"),
        (["coll", "alter", "c", "--index", "tree"], "none of auto, flat, hnsw, ivf"),
        (["coll", "alter", "c", "--m", "65"], "--m: '65'"),
        (["coll", "alter", "c", "--lists", "65537"], "--lists: '65537'"),
        (["coll", "alter", "c", "--storage", "int8"], "unknown option --storage"),
        (["--frobnicate", "status"], "unknown option --frobnicate"),
        (["status", "--frobnicate"], "status: unknown option --frobnicate"),
        (["status", "x"], "'x' is one argument too many"),
        (["-d"], "needs a value"),
        (["-d", "", "status"], "empty name"),
        (["-d", "a", "-d", "b", "status"], "given twice"),
        (["--no-spawn=1", "status"], "takes no value"),
        (["--timeout", "0", "status"], "seconds"),
        (["--timeout", "-1", "status"], "seconds"),
        (["--timeout", "1e3", "status"], "seconds"),
        (["--timeout", "99999999", "status"], "seconds"),
        (["--idle", "soon", "status"], "seconds"),
        (["help", "frobnicate"], "no verb"),
        (["coll", "create", "c"], "--dim and --metric"),
        (["coll", "create", "c", "--dim", "3"], "--dim and --metric"),
        (["coll", "create", "c", "--dim", "0", "--metric", "l2"], "--dim: '0'"),
        (["coll", "create", "c", "--dim", "65536", "--metric", "l2"], "--dim: '65536'"),
        (["coll", "create", "c", "--dim", "3x", "--metric", "l2"], "--dim: '3x'"),
        (["coll", "create", "c", "--dim", "3", "--metric", "hamming"], "none of l2, cosine, dot"),
        (["coll", "create", "c", "--dim", "3", "--metric", "l2", "--index", "tree"], "none of auto, flat, hnsw, ivf"),
        (["coll", "create", "c", "--dim", "3", "--metric", "l2", "--storage", "int4"], "none of float32, float16, int8"),
        (["coll", "create", "c", "--dim", "3", "--metric", "l2", "--lists", "65537"], "--lists: '65537'"),
        (["coll", "create", "c", "--dim", "3", "--metric", "l2", "--m", "3"], "--m: '3'"),
        (["coll", "create", "c", "--dim", "3", "--metric", "l2", "--ef-construction", "7"], "--ef-construction: '7'"),
        (["coll", "drop", "c"], "--yes"),
        (["put"], "too few"),
        (["put", "c"], "--vector is needed"),
        (["put", "c", "--vector", "[1]", "--mode", "upsert"], "--mode upsert needs --id"),
        (["put", "c", "--vector", "[1]", "--mode", "replace"], "none of insert, upsert, update"),
        (["put", "c", "--vector", "[1]", "--id", "18446744073709551615"], "--id"),
        (["put", "c", "--vector", "[1]", "--id", "-1"], "--id"),
        (["put", "c", "--vector", "1,2,3"], "not a JSON array"),
        (["put", "c", "--vector", "[]"], "0 numbers"),
        (["put", "c", "--vector", '[1, "2"]'], "component 1 is not a number"),
        (["put", "c", "--vector", "[1e39]"], "does not fit a 32-bit float"),
        (["put", "c", "--vector", "{}"], "must be an array"),
        (["put", "c", "--vector", "@/nonexistent/file"], "No such file"),
        (["put", "c", "--vector", "[1]", "--payload", "@/nonexistent/file"], "No such file"),
        (["get", "c"], "too few"),
        (["get", "c", "x"], "'x' is not a whole number"),
        (["delete", "c", "1", "2.5"], "'2.5' is not a whole number"),
        (["search", "c"], "one of --vector, --vector-file and --id"),
        (["search", "c", "--vector", "[1]", "--id", "1"], "one of --vector, --vector-file and --id"),
        (["search", "c", "--vector", "[1]", "-k", "0"], "-k: '0'"),
        (["search", "c", "--vector", "[1]", "-k65537"], "-k: '65537'"),
        (["search", "c", "--vector", "[1]", "--limit", "1"], "go with --vector-file"),
        (["search", "c", "--vector", "[1]", "--nprobe", "65537"], "--nprobe: '65537'"),
        (["search", "c", "--vector", "[1]", "--recall", "1"], "above 0 and below 1"),
        (["search", "c", "--vector", "[1]", "--recall", "0.0"], "above 0 and below 1"),
        (["search", "c", "--vector", "[1]", "--recall", "0."], "above 0 and below 1"),
        (["search", "c", "--vector", "[1]", "--recall", "95%"], "above 0 and below 1"),
        (["search", "c", "--vector", "[1]", "--exact", "--ef-search", "9"], "--exact finds all"),
        (["search", "c", "--vector", "[1]", "--exact", "--nprobe", "9"], "--exact finds all"),
        (["search", "c", "--vector", "[1]", "--exact", "--recall", "0.9"], "--exact finds all"),
        (["search", "c", "--vector", "[1]", "--recall", "0.9", "--ef-search", "9"], "--recall chooses"),
        (["search", "c", "--vector", "[1]", "--recall", ".9", "--nprobe", "9"], "--recall chooses"),
        (["search", "c", "--vector-file", "/nonexistent/a.fvecs"], "No such file"),
        (["search", "c", "--vector-file", "/nonexistent/a.txt"], "does not tell the format"),
        (["search", "c", "--vector-file", "a.fvecs", "--rows", "5"], "--rows"),
        (["search", "c", "--vector-file", "a.fvecs", "--rows", "5-4"], "--rows"),
        (["search", "c", "--vector-file", "a.fvecs:1", "--rows", "1-2"], "--rows"),
        (["recall"], "too few"),
        (["recall", "c", "--sample", "0"], "--sample: '0'"),
        (["recall", "c", "-k", "65536"], "-k: '65536'"),
        (["recall", "c", "--ef-search", "16,,32"], "--ef-search: ''"),
        (["recall", "c", "--ef-search", "16,0"], "--ef-search: '0'"),
        (["recall", "c", "--ef-search", ",".join(["1"] * 65)], "more than 64 efforts"),
        (["recall", "c", "--nprobe", "65537"], "--nprobe: '65537'"),
        (["recall", "c", "--nprobe", "1", "--ef-search", "1"], "one of --ef-search and --nprobe"),
        (["recall", "c", "--target", "0"], "--target: '0'"),
        (["recall", "c", "--target", "0.0"], "--target: '0.0'"),
        (["recall", "c", "--target", "1.5"], "--target: '1.5'"),
        (["recall", "c", "--target", "0.9x"], "--target: '0.9x'"),
        (["recall", "c", "--format", "npy"], "--format goes with --queries"),
        (["recall", "c", "--queries", "/nonexistent/a.fvecs"], "No such file"),
        (["recall", "c", "--queries", "/nonexistent/a.txt"], "does not tell the format"),
        (["import", "c"], "too few"),
        (["import", "c", "a.txt"], "does not tell the format"),
        (["import", "c", "a.txt", "--format", "csv"], "none of fvecs, bvecs, npy, jsonl"),
        (["import", "c", "/nonexistent/a.fvecs"], "No such file"),
        (["import", "c", "/dev/null", "--format", "npy"], "not a regular file"),
        (["import", "c", "a.fvecs", "--create"], "--create needs --metric"),
        (["import", "c", "a.fvecs", "--metric", "l2"], "only with --create"),
        (["import", "c", "a.fvecs", "--index", "flat"], "--index is of use only with --create"),
        (["import", "c", "a.fvecs", "--create", "--metric", "l2", "--storage", "x"], "none of float32"),
        (["import", "c", "a.fvecs", "--mode", "update"], "none of insert, upsert"),
        (["import", "c", "a.fvecs", "--batch", "0"], "--batch"),
        (["compact"], "run or status"),
        (["backup", "make"], "create, list, verify or restore"),
        (["log"], "dump or repair"),
        (["checkpoint", "now"], "one argument too many"),
        (["compact", "run", "a", "b"], "one argument too many"),
        (["backup", "create", ""], "neither a name nor a path"),
        (["backup", "create", ".."], "neither a name nor a path"),
        (["backup", "verify"], "too few"),
        (["backup", "restore", "a"], "too few"),
        (["backup", "restore", "a", "b", "c"], "one argument too many"),
        (["fsck", "now"], "one argument too many"),
        (["log", "dump", "--from", "-1"], "--from"),
        (["log", "dump", "--from", "first"], "--from"),
        (["log", "repair", "--accept-loss=no"], "takes no value"),
    )

    def test_wrong_usage_is_named_and_starts_no_daemon(self):
        untouched = self.folder / "untouched"
        for words, says in self.WRONG:
            done = self.call(*words, instance=untouched)
            message = done.stderr.decode()
            self.assertEqual((done.returncode, done.stdout), (USAGE, b""), (words, message))
            self.assertRegex(message, r"\Avexctl: [^\n]+\n\Z", words)
            self.assertIn(says, message)
            done = self.call("-o", "json", *words, instance=untouched)
            self.assertEqual((done.returncode, done.stdout), (USAGE, b""), words)
            error = error_of(done)
            self.assertEqual(error["message"], message[len("vexctl: "):-1])
            self.assertRegex(error["error"], r"\AVEX_ERR_[A-Z_]+\Z", words)
        self.assertFalse(untouched.exists())

    def test_errors_take_the_form_of_the_output(self):
        nowhere = self.folder / "nowhere"
        for words in (["status", "-o", "json"], ["status", "-ojson"], ["--output=json", "status"]):
            self.assertEqual(error_of(self.call(*words, instance=nowhere))["error"], "VEX_ERR_NOT_FOUND")
        for words in (["status"], ["-o", "table", "status"], ["-o", "yaml", "status"], ["-o"]):
            self.assertRegex(self.call(*words, instance=nowhere).stderr, rb"\Avexctl: [^\n]+\n\Z")
        done = self.call("-o", "json", "put", "c", "--vector", '["\u00e9\\n"]', instance=nowhere)
        self.assertEqual(error_of(done)["exit_code"], USAGE)
        with open("/dev/full", "wb") as full:
            done = subprocess.run([VEXCTL, "-o", "json", "help"], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, FAILED)
        self.assertIn("standard output", json.loads(done.stderr)["message"])

    def test_options_may_stand_anywhere_and_in_every_form(self):
        self.good("coll", "create", "--metric=dot", "forms", "--dim", "2")
        self.good("put", "forms", "--id=1", "--vector", "[1, 2]")
        for words in (
            ["-o", "json", "search", "forms", "--id", "1", "-k", "1"],
            ["-ojson", "search", "forms", "--id", "1", "-k1"],
            ["search", "forms", "--id", "1", "--k=1", "--output=json"],
            ["search", "--id", "1", "-k", "1", "-o", "json", "--", "forms"],
            ["search", "-d", self.instance, "--id", "1", "-k", "1", "-o", "json", "forms"],
        ):
            self.assertEqual(json.loads(self.good(*words))["queries"], [{"hits": [{"id": 1, "distance": 5}]}])


class Collections(Case):
    def test_a_verb_that_reads_makes_no_instance(self):
        nowhere = self.folder / "nowhere"
        for words in (
            ["status"], ["coll", "list"], ["coll", "show", "b"], ["search", "b", "--id", "1"],
            ["get", "b", "1"], ["count", "b"], ["checkpoint"], ["compact", "run"],
            ["backup", "create"],
        ):
            self.bad(3, *words, instance=nowhere, says="no instance in")
            self.assertFalse(nowhere.exists(), words)

    def test_create_list_show_drop(self):
        self.make_instance()
        self.assertEqual(self.good("coll", "list"), "no collections\n")
        self.assertEqual(self.json("coll", "list"), {"collections": []})
        made = self.json("coll", "create", "b", "--dim", 4, "--metric", "cosine")
        self.assertEqual((made["name"], made["dim"], made["metric"], made["count"]), ("b", 4, "cosine", 0))
        self.good("coll", "create", "a", "--dim", 65535, "--metric", "dot")
        self.assertEqual(self.names(), ["a", "b"])
        self.assertRegex(self.good("coll", "list"), r"NAME +DIM .*\na +65535 +dot +auto +float32 +0 .*\nb +4 +cosine +auto +float32 +0 ")
        self.assertEqual(self.json("coll", "show", "b"), made)
        self.assertRegex(self.good("coll", "show", "b"), r"metric +cosine")
        self.bad(CONFLICT, "coll", "create", "b", "--dim", 4, "--metric", "cosine", says="b")
        self.bad(USAGE, "coll", "create", ".b", "--dim", 4, "--metric", "cosine")
        self.bad(USAGE, "coll", "create", "x" * 64, "--dim", 4, "--metric", "cosine")
        tuned = self.json("coll", "create", "tuned", "--dim", 2, "--metric", "l2", "--index", "hnsw", "--m", 8,
                          "--ef-construction", 77, "--lists", 12, "--storage", "float32")
        self.assertEqual([tuned[key] for key in ("index", "m", "ef_construction", "lists", "storage")],
                         ["hnsw", 8, 77, 12, "float32"])
        self.assertRegex(self.good("coll", "show", "tuned"),
                         r"index +hnsw, M 8, ef_construction 77\n(.*\n)*lists +12 in each segment\nstorage +float32\n")
        self.good("coll", "drop", "tuned", "--yes")
        shape = ["coll", "create", "c", "--dim", 2, "--metric", "l2"]
        self.bad(NOT_FOUND, "coll", "show", "nothing", says="nothing")
        self.bad(NOT_FOUND, "coll", "drop", "nothing", "--yes", says="nothing")
        self.bad(USAGE, "coll", "drop", "b", says="nothing was dropped")
        self.assertEqual(self.json("coll", "drop", "b", "--yes"), {"dropped": "b", "count": 0})
        self.good("coll", "drop", "a", "--yes")
        self.assertEqual(self.names(), [])

    def test_storage_keeps_what_fits(self):
        for storage, kept in (("float16", [1, 0.0999755859375, -300.25]), ("int8", [0, 0, -300.2452392578125])):
            name = self.fresh("kept")
            self.good("coll", "drop", name, "--yes")
            self.good("coll", "create", name, "--dim", 3, "--metric", "l2", "--storage", storage)
            self.assertRegex(self.good("coll", "show", name), rf"storage +{storage}\n")
            self.good("put", name, "--id", 1, "--vector", "[1, 0.1, -300.25]")
            self.assertEqual(struct.pack("<3f", *self.stored(name, 1)[0]["vector"]), struct.pack("<3f", *kept))
            found = self.json("search", name, "--vector", json.dumps(kept), "--k", 1)
            self.assertIn('"distance": 0', json.dumps(found))
            if storage == "float16":
                self.bad(USAGE, "put", name, "--vector", "[1, 2, 70000]", says="coordinate 2 is 70000")
            self.good("coll", "drop", name, "--yes")

    def test_drop_asks_on_a_terminal(self):
        self.fresh("asked")
        for answer, code, left in (("n\n", FAILED, True), ("\n", FAILED, True), ("y\n", OK, False)):
            ended, shown = on_terminal(self, ["coll", "drop", "asked"], answer)
            self.assertEqual(ended, code, shown)
            self.assertIn("Drop the collection 'asked' with its 0 vectors", shown)
            self.assertEqual("asked" in self.names(), left)


class Altering(Case):
    def status_of(self, name):
        found, = self.json("index", "status", name)["collections"]
        self.assertEqual(found["rows_scanned"], found["rows"] - found["rows_indexed"] - found["rows_other"])
        return found

    def test_alter_and_how_far_it_is(self):
        self.make_instance()
        source = random.Random(9)
        rows = [[source.uniform(-1, 1) for _ in range(8)] for _ in range(3000)]
        name = "altered"
        self.good("import", name, self.file("altered.fvecs", fvecs(rows)), "--create", "--metric", "l2",
                  "--index", "flat")
        found = self.status_of(name)
        self.assertEqual([found[key] for key in ("index", "segments_waiting", "rows", "rows_scanned")],
                         ["flat", 0, 3000, 3000])
        self.assertRegex(self.good("index", "status", name), rf"\ACOLLECTION +INDEX .*\n{name} +flat +- +1 +0 +0 +0 +3000 +3000 +-\n\Z")
        asked = self.json("coll", "alter", name, "--index", "hnsw", "--m", 8)
        self.assertEqual([asked[key] for key in ("name", "index", "m", "ef_construction")], [name, "hnsw", 8, 200])
        wait_until(lambda: self.status_of(name)["segments_indexed"] == 1, 60, "the graph is there")
        found = self.status_of(name)
        self.assertEqual([found[key] for key in ("segments_other", "segments_waiting", "rows_scanned")], [0, 0, 0])
        self.assertRegex(self.good("coll", "show", name),
                         r"index +hnsw, M 8, ef_construction 200\n(.*\n)*indexed +1 of 1 segment, 0 rows scanned\n")
        self.assertEqual(self.json("search", name, "--id", 5, "-k", 1)["queries"][0]["hits"][0]["id"], 5)
        # What is asked for twice is there already.
        self.assertEqual(self.good("coll", "alter", name, "--m", 8),
                         f"altered '{name}': index hnsw, M 8, ef_construction 200; nothing to be built now\n")
        self.assertRegex(self.good("coll", "alter", name, "--index", "flat", "--lists", 0),
                         r"index flat; (1 of 1 segment to be built or replaced, see .*|nothing to be built now)\n\Z")
        self.good("compact", "run", name)
        self.assertEqual(self.status_of(name)["rows_scanned"], 3000)
        self.assertEqual(self.json("coll", "show", name)["m"], 8)
        self.assertIn(name, [item["name"] for item in self.json("index", "status")["collections"]])
        self.bad(NOT_FOUND, "coll", "alter", "nothing", "--m", 8, says="nothing")
        self.bad(NOT_FOUND, "index", "status", "nothing", says="nothing")
        self.bad(NOT_FOUND, "index", "status", "x" * 80, says="xxx")
        self.good("coll", "drop", name, "--yes")


def on_terminal(case, words, answer="", columns=80):
    """Exit code and all that a command shows whose three streams are a terminal."""
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        case.skipTest(f"no terminal to be had here: {error}")
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        process = subprocess.Popen(
            [VEXCTL, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs,
            env=case.environment(case.instance), start_new_session=True,
        )
        os.close(theirs)
        terminal.write(answer.encode())
        shown = b""
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                some = terminal.read(65536)
            except OSError:  # the other end is closed
                some = b""
            if not some:
                break
            shown += some
        return process.wait(SECONDS_MAX), shown.decode(errors="replace").replace("\r\n", "\n")


class Rows(Case):
    def test_put_get_delete_count(self):
        name = self.fresh("rows")
        first = self.json("put", name, "--vector", "[1, 2.5, -3e-1]")
        second = self.json("put", name, "--vector", "-", stdin=b"[4, 5, 6]")
        self.assertGreater(second["lsn"], first["lsn"])
        self.assertNotEqual(second["id"], first["id"])
        vector = self.stored(name, first["id"])[0]["vector"]
        self.assertEqual(struct.pack("<3f", *vector), struct.pack("<3f", 1, 2.5, -0.3))
        top = 2**64 - 2
        self.assertEqual(self.json("put", name, "--id", top, "--vector", "[7,7,7]")["id"], top)
        self.assertEqual([r["id"] for r in self.stored(name, top, first["id"])], [top, first["id"]])
        self.assertEqual(self.json("count", name), {"count": 3})
        self.assertEqual(self.good("count", name), "3\n")
        self.bad(NOT_FOUND, "get", name, top, 77, says="77")
        self.bad(NOT_FOUND, "delete", name, top, 77, says="77")
        self.assertEqual(self.json("count", name)["count"], 3)
        self.assertEqual(self.json("delete", name, top, first["id"])["deleted"], 2)
        self.assertEqual(self.json("count", name)["count"], 1)
        self.bad(NOT_FOUND, "get", name, top, says=str(top))
        some = ["--vector", "[1]"]
        for verb, *rest in (["count"], ["get", 1], ["delete", 1], ["put", *some], ["search", *some]):
            self.bad(NOT_FOUND, verb, "nothing", *rest, says="nothing")

    def test_modes(self):
        name = self.fresh("modes")
        put = ["put", name, "--id", 5, "--vector"]
        self.bad(NOT_FOUND, *put, "[1,1,1]", "--mode", "update", says="5")
        self.good(*put, "[1,1,1]", "--mode", "insert", "--payload", "first")
        self.bad(CONFLICT, *put, "[2,2,2]", "--mode", "insert", says="5")
        self.good(*put, "[3,3,3]", "--mode", "update")
        self.assertEqual(self.stored(name, 5), [{"id": 5, "vector": [3, 3, 3], "payload": "first"}])
        self.good(*put, "[4,4,4]")
        self.assertEqual(self.stored(name, 5), [{"id": 5, "vector": [4, 4, 4], "payload": None}])
        self.bad(USAGE, *put, "[1,2]", says="dim")
        self.assertEqual(self.json("count", name)["count"], 1)

    def test_vectors_that_the_metric_refuses(self):
        name = self.fresh("directions", metric="cosine")
        self.bad(USAGE, "put", name, "--vector", "[0,0,0]")
        self.bad(USAGE, "search", name, "--vector", "[0,0,0]")
        self.assertEqual(self.json("count", name)["count"], 0)

    def test_payloads_come_back_as_they_went_in(self):
        name = self.fresh("payloads")
        cases = (
            ("plain text", "payload", '"plain text"'),
            ("", "payload", '""'),
            ("caf\u00e9 \u4e16\u754c \U0001f600", "payload", '"caf\u00e9 \u4e16\u754c \U0001f600"'),
            ('line\n"two"\t\\ \x1b[31m', "payload", '"line\\n\\"two\\"\\t\\\\ \\u001b[31m"'),
            ('{"b": 1.50, "a": [184467440737095516150, null]}', "payload", None),
            ("[1, 2", "payload", '"[1, 2"'),
            ("42", "payload", "42"),
        )
        for text, key, shown in cases:
            self.good("put", name, "--id", 1, "--vector", "[1,2,3]", f"--payload={text}")
            raw = self.good("-o", "json", "get", name, 1)
            json.loads(raw)
            self.assertIn(f'"{key}":{shown if shown is not None else text}', raw)
        for content in (b"\xff\x00\xfe", bytes(range(256)), b"\x80" * 65536):
            path = self.file("bytes", content)
            self.good("put", name, "--id", 2, "--vector", "[1,2,3]", "--payload", f"@{path}")
            record = self.stored(name, 2)[0]
            self.assertNotIn("payload", record)
            text = record["payload_base64"]
            self.assertEqual(base64.b64decode(text, validate=True), content)
            hits = self.json("search", name, "--id", 2, "-k", 2, "--payloads")["queries"][0]["hits"]
            self.assertIn(text, [hit.get("payload_base64") for hit in hits])
        put = ["put", name, "--id", 3, "--vector", "[1,2,3]", "--payload"]
        self.bad(USAGE, *put, f"@{self.file('big', b'x' * 65537)}", says="65536")
        self.good(*put, "@-", stdin=b'{"from": "stdin"}')
        self.assertEqual(self.stored(name, 3)[0]["payload"], {"from": "stdin"})

    def test_tables_are_tame_and_fit_the_terminal(self):
        name = self.fresh("tables")
        payload = "\x1b]0;title\x07\u202e" + "long text " * 30
        self.good("put", name, "--id", 1, "--vector", "[1,2,3]", "--payload", payload)
        plain = self.good("search", name, "--id", 1, "--payloads")
        self.assertIn("long text " * 30, plain)
        for text in (plain, self.good("get", name, 1)):
            self.assertNotRegex(text, "[\x00-\x09\x0b-\x1f\x7f\u202e]")
        code, shown = on_terminal(self, ["search", name, "--id", 1, "--payloads"], columns=60)
        self.assertEqual(code, OK)
        self.assertLessEqual(max(map(len, shown.splitlines()[:2])), 60)
        self.assertIn("...", shown)


def distance(metric, a, b):
    dot = sum(x * y for x, y in zip(a, b))
    if metric == "dot":
        return dot
    if metric == "cosine":
        return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum((x - y) ** 2 for x, y in zip(a, b))


class Search(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        source = random.Random(3)
        cls.rows = [[source.randint(-9, 9) + 0.5 for _ in range(5)] for _ in range(200)]
        cls.queries = [[source.randint(-9, 9) + 0.25 for _ in range(5)] for _ in range(30)]
        cls.base = cls.folder / "base.fvecs"
        cls.base.write_bytes(fvecs(cls.rows))
        cls.asked = cls.folder / "queries.fvecs"
        cls.asked.write_bytes(fvecs(cls.queries))
        for metric in ("l2", "cosine", "dot"):
            cls.call("import", metric, cls.base, "--create", "--metric", metric)

    def expect(self, metric, query, k):
        sign = -1 if metric == "dot" else 1
        ranked = sorted(range(200), key=lambda row: (sign * distance(metric, query, self.rows[row]), row))
        return ranked[:k]

    def test_finds_what_brute_force_finds(self):
        for metric in ("l2", "cosine", "dot"):
            answer = self.json("search", metric, "--vector-file", self.asked, "-k", 7)
            self.assertEqual(len(answer["queries"]), 30)
            self.assertTrue(answer["complete"])
            self.assertFalse(answer["stale"])
            for query, found in zip(self.queries, answer["queries"]):
                self.assertEqual([hit["id"] for hit in found["hits"]], self.expect(metric, query, 7))
                for hit in found["hits"]:
                    true = distance(metric, query, self.rows[hit["id"]])
                    self.assertAlmostEqual(hit["distance"], true, delta=1e-5 * max(1, abs(true)))

    def test_chosen_queries(self):
        def found(*words):
            answer = self.json("search", "l2", *words, "-k", 3)
            return [[hit["id"] for hit in query["hits"]] for query in answer["queries"]]

        every = found("--vector-file", self.asked)
        self.assertEqual(found("--vector-file", f"{self.asked}:4"), every[4:5])
        self.assertEqual(found("--vector-file", self.asked, "--rows", "3-6"), every[3:7])
        self.assertEqual(found("--vector-file", self.asked, "--limit", "2"), every[:2])
        self.assertEqual(found("--vector-file", self.asked, "--rows", "3-6", "--limit", "2"), every[3:5])
        self.assertEqual(found("--vector", json.dumps(self.queries[9])), every[9:10])
        path = self.file("q.jsonl", jsonl({"vector": q} for q in self.queries))
        self.assertEqual(found("--vector-file", path), every)
        self.assertEqual(found("--vector-file", f"{path}:29"), every[29:])
        odd = self.file("odd.fvecs:4", fvecs(self.queries[:1]))
        self.assertEqual(found("--vector-file", odd, "--format", "fvecs"), every[:1])
        self.bad(USAGE, "search", "l2", "--vector-file", f"{self.asked}:30", says="row 30 is beyond the end")
        self.bad(USAGE, "search", "l2", "--vector-file", self.asked, "--rows", "29-30", says="row 30")
        nan = self.file("nan.fvecs", fvecs([self.queries[0], [1, 2, NAN, 4, 5]]))
        self.bad(USAGE, "search", "l2", "--vector-file", nan, says="nan.fvecs: row 1, component 2")

    def test_by_id_and_k_beyond_the_rows(self):
        hits = self.json("search", "l2", "--id", 11, "-k", 1)["queries"][0]["hits"]
        self.assertEqual(hits, [{"id": 11, "distance": 0}])
        self.assertEqual(len(self.json("search", "l2", "--id", 0, "-k", 65536)["queries"][0]["hits"]), 200)
        self.bad(NOT_FOUND, "search", "l2", "--id", 200, says="200")
        self.bad(USAGE, "search", "l2", "--vector", "[1]", says="dim")

    def test_min_lsn(self):
        lsn = self.json("status")["lsn"]
        self.assertEqual(self.json("search", "l2", "--id", 1, "--min-lsn", lsn)["snapshot_lsn"], lsn)
        self.bad(TIMEOUT, "--timeout", "0.2", "search", "l2", "--id", 1, "--min-lsn", lsn + 1)

    def test_table(self):
        text = self.good("search", "l2", "--vector-file", self.asked, "--limit", 2, "-k", 2)
        self.assertRegex(text, r"\Aquery 0\nRANK +ID +DISTANCE\n +1 +\d+ +[\d.]+\n +2 .*\n\nquery 1\n")


class Recall(Case):
    """Truth is computed here, from what search answers; the rows have many ties."""

    COUNT = 3000
    DIM = 24

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        source = random.Random(5)
        cls.rows = [[float(source.randint(-1, 1)) for _ in range(cls.DIM)] for _ in range(cls.COUNT)]
        cls.rows[7] = cls.rows[8] = cls.rows[9]
        for row in cls.rows:
            row[0] = 0.5  # none is zero
        cls.queries = [[source.gauss(0, 1) for _ in range(cls.DIM)] for _ in range(40)]
        cls.base = cls.folder / "base.fvecs"
        cls.base.write_bytes(fvecs(cls.rows))
        cls.asked = cls.folder / "queries.fvecs"
        cls.asked.write_bytes(fvecs(cls.queries))
        for metric in ("l2", "cosine", "dot"):
            cls.call("coll", "create", metric, "--dim", cls.DIM, "--metric", metric, "--index", "hnsw", "--m", 4)
            cls.call("import", metric, cls.base)
        cls.call("compact", "run")

    def answers(self, metric, *words):
        found = self.json("search", metric, "--vector-file", self.asked, "-k", 10, *words)
        self.assertEqual(found["mode"], "exact" if "--exact" in words else "hnsw")
        return [[hit["distance"] for hit in query["hits"]] for query in found["queries"]]

    def test_recall_is_what_the_answers_say(self):
        for metric in ("l2", "cosine", "dot"):
            sign = -1 if metric == "dot" else 1
            truth = self.answers(metric, "--exact")
            said = self.json("recall", metric, "--queries", self.asked, "--ef-search", "40,10")
            self.assertEqual([effort["effort"] for effort in said["efforts"]], [10, 40])
            for effort in said["efforts"]:
                found = self.answers(metric, "--ef-search", effort["effort"])
                shares = [
                    sum(sign * near <= sign * true[-1] for near in hits) / len(true)
                    for hits, true in zip(found, truth)
                ]
                mean = sum(shares) / len(shares)
                self.assertAlmostEqual(effort["recall"], mean, places=6)
                spread = sum((share - mean) ** 2 for share in shares) / (len(shares) - 1)
                self.assertAlmostEqual(effort["margin"], 1.96 * math.sqrt(spread / len(shares)), places=5)
                self.assertGreater(effort["us"], 0)
                self.assertGreater(effort["rows_visited"], 10)
            self.assertLess(said["efforts"][0]["recall"], said["efforts"][1]["recall"])
            self.assertLess(said["efforts"][0]["recall"], 1)
            self.assertEqual((said["queries"], said["drawn"], said["mode"]), (40, "file", "hnsw"))
            self.assertEqual((said["target"], said["suggested"]), (None, None))

    def test_a_target_finds_the_least_effort(self):
        said = self.json("recall", "l2", "--queries", self.asked, "--target", "0.9")
        reached = [effort["effort"] for effort in said["efforts"] if effort["recall"] >= 0.9]
        missed = [effort["effort"] for effort in said["efforts"] if effort["recall"] < 0.9]
        self.assertEqual(said["suggested"], min(reached))
        self.assertLessEqual(min(reached) - max(missed), 1 + min(reached) // 16)
        text = self.good("recall", "l2", "--queries", self.asked, "--target", "0.9")
        self.assertRegex(text, r"\A *EF_SEARCH +RECALL +\+- +US/QUERY +ROWS COMPARED\n +10 +0\.\d{4} ")
        self.assertRegex(text, rf"\nsuggests ef_search {min(reached)} for recall 0\.9\n\Z")
        text = self.good("recall", "l2", "--queries", self.asked, "--ef-search", "10", "--target", "1")
        self.assertTrue(text.endswith("no effort measured reaches recall 1\n"))

    def test_rows_as_queries_leave_themselves_out(self):
        said = self.json("recall", "l2", "--sample", 300, "--target", "0.95", "--seed", 2)
        self.assertEqual((said["queries"], said["drawn"], said["seed"]), (300, "rows", 2))
        self.assertIsNotNone(said["suggested"])
        again = self.json("recall", "l2", "--sample", 300, "--target", "0.95", "--seed", 2)
        self.assertEqual([e["recall"] for e in said["efforts"]], [e["recall"] for e in again["efforts"]])
        other = self.json("recall", "l2", "--sample", 300, "--ef-search", 10, "--seed", 3)
        self.assertNotEqual(said["efforts"][0]["recall"], other["efforts"][0]["recall"])

    def test_all_rows_as_queries(self):
        def others(*words):
            found = self.json("search", "l2", "--vector-file", self.base, "-k", 6, *words)["queries"]
            hits = [[hit["distance"] for hit in query["hits"] if hit["id"] != row] for row, query in enumerate(found)]
            return [near[:5] for near in hits]

        said = self.json("recall", "l2", "--sample", self.COUNT + 1, "-k", 5, "--ef-search", 8)
        pairs = list(zip(others("--ef-search", 8), others("--exact")))
        shares = [sum(near <= true[-1] for near in hits) / 5 for hits, true in pairs]
        self.assertEqual(said["queries"], self.COUNT)
        self.assertAlmostEqual(said["efforts"][0]["recall"], sum(shares) / self.COUNT, places=6)
        self.assertLess(said["efforts"][0]["recall"], 1)

    def test_where_all_is_exact_one_measurement_is_all(self):
        for metric in ("l2", "cosine", "dot"):
            name = self.fresh(f"flat-{metric}", dim=self.DIM, metric=metric)
            self.good("import", name, self.base)
            for words in (["--target", "0.95"], ["--ef-search", "10,20"], ["--queries", self.asked], ["-k", 4000]):
                said = self.json("recall", name, "--sample", 20, *words)
                self.assertEqual((said["mode"], said["suggested"], said["queries"]), ("exact", None, 20))
                self.assertEqual([(e["effort"], e["recall"]) for e in said["efforts"]], [(None, 1)])
            self.assertIn("every search of this collection is exact", self.good("recall", name, "--sample", 5))

    def test_more_rows_than_a_search_can_list(self):
        source = random.Random(6)
        count = 70000
        rows = [struct.pack("<4f", *(source.gauss(0, 1) for _ in range(4))) for _ in range(count)]
        path = self.file("many.npy", npy(b"".join(rows), (count, 4)))
        self.good("import", self.fresh("numbered", dim=4), path, "--first-id", 1000)
        said = self.json("recall", "numbered", "--sample", 50)
        self.assertEqual((said["drawn"], said["queries"], said["efforts"][0]["recall"]), ("ids", 50, 1))
        lines = (f'{{"id": {source.getrandbits(63)}, "vector": [{i % 100}, {i}]}}\n' for i in range(count))
        path = self.file("scattered.jsonl", "".join(lines).encode())
        self.good("import", self.fresh("scattered", dim=2), path)
        said = self.json("recall", "scattered", "--sample", 50)
        self.assertEqual((said["drawn"], said["queries"], said["efforts"][0]["recall"]), ("neighbourhoods", 50, 1))
        self.assertIn("not equally likely", self.good("recall", "scattered", "--sample", 5))

    def test_what_cannot_be_measured(self):
        self.bad(NOT_FOUND, "recall", "nothing", says="nothing")
        name = self.fresh("hollow", dim=self.DIM, metric="cosine")
        self.bad(USAGE, "recall", name, says="hollow holds 0 rows")
        self.bad(USAGE, "recall", name, "--queries", self.asked, says="empty")
        self.good("put", name, "--vector", json.dumps(self.queries[0]))
        self.bad(USAGE, "recall", name, says="hollow holds 1 rows")
        self.assertEqual(self.json("recall", name, "--queries", self.asked)["efforts"][0]["recall"], 1)
        zero = self.file("zero.fvecs", fvecs([self.queries[0], [0.0] * self.DIM]))
        self.bad(USAGE, "recall", name, "--queries", zero, says="zero.fvecs: query 1 is a zero vector")
        nan = self.file("nan.fvecs", fvecs([self.queries[0], [NAN] * self.DIM]))
        self.bad(USAGE, "recall", name, "--queries", nan, says="nan.fvecs: row 1, component 0")
        self.bad(USAGE, "recall", name, "--queries", self.file("short.fvecs", fvecs(ROWS)), says="dimension 3")
        self.bad(USAGE, "recall", name, "--queries", self.file("none.npy", npy(b"", (0, 3))), says="none.npy")


class Import(Case):
    def rows_of(self, name, count):
        return [record["vector"] for record in self.stored(name, *range(count))]

    def test_every_format(self):
        signed = [[-128, 127, 0], [1, -1, 5]]
        wide = [[0.1, 1e-3, -3e38], [1, 2, 3]]
        half = [[0.5, -2.0, 65504.0], [6e-8, 1.0, -0.25]]
        plain = jsonl({"vector": row} for row in ROWS)
        cases = {
            "a.fvecs": (fvecs(ROWS), ROWS),
            "a.bvecs": (bvecs(BYTE_ROWS), BYTE_ROWS),
            "a.npy": (npy_rows(ROWS), ROWS),
            "v2.npy": (npy_rows(ROWS, version=2), ROWS),
            "f8.npy": (npy_rows(wide, "<f8", "d"), wide),
            "f2.npy": (npy_rows(half, "<f2", "e"), [[0.5, -2.0, 65504.0], [2.0**-24, 1.0, -0.25]]),
            "i1.NPY": (npy_rows(signed, "|i1", "b"), signed),
            "u1.npy": (npy_rows(BYTE_ROWS, "|u1", "B"), BYTE_ROWS),
            "one.npy": (npy(struct.pack("<3f", 1, 2, 3), "(3,)"), [[1, 2, 3]]),
            "a.jsonl": (plain, ROWS),
            "a.ndjson": (b"\xef\xbb\xbf\n" + plain.replace(b"\n", b"\r\n\r\n")[:-4], ROWS),
        }
        for name, (content, rows) in cases.items():
            path = self.file(name, content)
            report = self.json("import", name, path, "--create", "--metric", "l2")
            self.assertEqual((report["rows"], report["created"]), (len(rows), True), name)
            self.assertEqual(self.json("count", name)["count"], len(rows), name)
            self.assertEqual(fvecs(self.rows_of(name, len(rows))), fvecs(rows), name)

    def test_format_overrides_the_name(self):
        path = self.file("vectors.bin", bvecs(BYTE_ROWS))
        self.good("import", self.fresh("format"), path, "--format", "bvecs")
        self.assertEqual(self.rows_of("format", 4), BYTE_ROWS)

    def test_ids_and_payloads_of_jsonl(self):
        items = [
            {"id": 10, "vector": [1, 2, 3], "payload": {"a": [1, "\u00fc"]}},
            {"id": str(2**64 - 2), "vector": [4, 5, 6], "payload": "text"},
            {"id": 12, "vector": [7, 8, 9], "payload": None},
            {"id": 0, "vector": [7, 8, 9]},
            {"id": 13, "vector": [7, 8, 9], "payload": 1.5},
            {"id": 14, "vector": [7, 8, 9], "payload": "nul \x00 inside"},
        ]
        empty = self.file("empty-payload.jsonl", jsonl([{"vector": [1, 2, 3], "payload": ""}]))
        self.good("import", self.fresh("empty"), empty)
        self.assertEqual(self.stored("empty", 0)[0]["payload"], "")
        name = self.fresh("jsonl")
        path = self.file("ids.jsonl", jsonl(items))
        self.good("import", name, path, "--batch", 4)
        got = self.stored(name, *(item["id"] for item in items))
        self.assertEqual([r.get("payload") for r in got], [i.get("payload") for i in items])
        self.bad(USAGE, "import", name, path, "--first-id", 3, says="ids of their own")
        six = self.file("six.txt", b"a\n" * 6)
        more = ["--payload-file", six, "--mode", "upsert"]
        self.bad(USAGE, "import", name, path, *more, says="--payload-file cannot")
        rows = ((77, [1, 2, 3]), (76, [1, 2, 3]), (77, [3, 2, 1]))
        twice = self.file("twice.jsonl", jsonl({"id": i, "vector": row} for i, row in rows))
        self.bad(USAGE, "import", name, twice, says="row 2 has the id 77 of row 0 again")
        self.good("import", name, twice, "--mode", "upsert")
        self.assertEqual(self.stored(name, 77)[0]["vector"], [3, 2, 1])

    def test_payload_file(self):
        name = self.fresh("lines")
        path = self.file("lines.fvecs", fvecs(ROWS))
        lines = self.file("lines.txt", b'first\r\n\n{"n": 3}\nlast')
        self.good("import", name, path, "--payload-file", lines)
        payloads = [record["payload"] for record in self.stored(name, 0, 1, 2, 3)]
        self.assertEqual(payloads, ["first", None, {"n": 3}, "last"])
        for content, says in (
            (b"1\n2\n3\n", "3 lines for 4 rows"),
            (b"1\n2\n3\n4\n5", "5 lines for 4 rows"),
            (b"", "empty"),
            (b"1\n" + b"x" * 65537 + b"\n3\n4\n", "line 2 .byte 2. has 65537 bytes"),
        ):
            lines = self.file("bad.txt", content)
            words = ["--mode", "upsert", "--payload-file", lines]
            self.bad(USAGE, "import", name, path, *words, says=says)
        self.assertEqual(self.stored(name, 0)[0]["payload"], "first")

    def test_modes_ids_and_parts(self):
        name = self.fresh("parts")
        path = self.file("parts.fvecs", fvecs(ROWS))
        self.good("import", name, path, "--skip", 1, "--limit", 2)
        self.assertEqual(self.json("count", name)["count"], 2)
        self.assertEqual(self.stored(name, 1, 2)[0]["vector"], ROWS[1])
        self.bad(CONFLICT, "import", name, path, says="row 1: id 1 exists already; nothing was written")
        self.assertEqual(self.json("count", name)["count"], 2)
        self.good("import", name, path, "--mode", "upsert", "--batch", 3)
        self.assertEqual(self.json("count", name)["count"], 4)
        self.good("import", name, path, "--first-id", 100)
        self.assertEqual(self.stored(name, 103)[0]["vector"], ROWS[3])
        self.bad(USAGE, "import", name, path, "--first-id", 2**64 - 4, says="--first-id")
        self.good("import", name, path, "--first-id", 2**64 - 5)
        self.bad(USAGE, "import", name, path, "--skip", 5, says="only 4 rows")
        self.assertEqual(self.json("import", name, path, "--skip", 4)["rows"], 0)
        self.assertEqual(self.json("count", name)["count"], 12)

    def test_create_and_mismatches(self):
        path = self.file("create.fvecs", fvecs(ROWS))
        self.bad(NOT_FOUND, "import", "absent", path, says="--create")
        self.good("import", "absent", path, "--create", "--metric", "cosine", "--batch", 1)
        create = ["import", "absent", path, "--create", "--metric"]
        self.bad(CONFLICT, *create, "l2", says="metric cosine, not l2")
        report = self.json(*create, "cosine", "--mode", "upsert")
        self.assertFalse(report["created"])
        self.bad(CONFLICT, *create, "cosine", "--index", "hnsw", says="exists, and not with --index hnsw")
        self.good(*create, "cosine", "--index", "auto", "--m", 16, "--mode", "upsert")
        self.good("import", "shaped", path, "--create", "--metric", "l2", "--index", "hnsw", "--m", 9)
        shaped = self.json("coll", "show", "shaped")
        self.assertEqual((shaped["index"], shaped["m"]), ("hnsw", 9))
        self.bad(USAGE, "import", self.fresh("dims", dim=4), path, says="create.fvecs: vectors of dimension 3, .* has 4")
        self.bad(USAGE, "import", "bad name", path, "--create", "--metric", "l2")

    def test_a_large_file_is_split_into_batches(self):
        name = self.fresh("large", dim=300)
        source = random.Random(5)
        rows = [[source.random() for _ in range(300)] for _ in range(9000)]
        lines = [("payload %d " % i) * (i % 50) for i in range(9000)]
        path = self.file("large.fvecs", fvecs(rows))
        text = self.file("large.txt", "\n".join(lines).encode() + b"\n")
        for words in ([], ["--batch", 1048576]):
            report = self.json("import", name, path, "--payload-file", text, "--mode", "upsert", *words)
            self.assertEqual(report["rows"], 9000)
            self.assertGreater(report["batches"], 0)
            for row in (0, 1, 4711, 8999):
                record = self.stored(name, row)[0]
                self.assertEqual(struct.pack("<300f", *record["vector"]), struct.pack("<300f", *rows[row]))
                self.assertEqual(record["payload"], lines[row] or None)

    def test_progress_only_on_a_terminal(self):
        name = self.fresh("progress", dim=300)
        path = self.file("progress.fvecs", fvecs([[float(i)] * 300 for i in range(3000)]))
        self.good("import", name, path, "--batch", 5)  # good() sees that standard error is empty
        code, shown = on_terminal(self, ["import", name, path, "--batch", 5, "--mode", "upsert"], columns=70)
        self.assertEqual(code, OK, shown)
        self.assertRegex(shown, r"importing \[[#.]+\] +\d+% \d+/3000 rows")
        self.assertTrue(all(len(line.rstrip("\x1b[K")) < 70 for line in shown.split("\r")[:-1]))
        self.assertRegex(shown, r"\r\x1b\[Kimported 3000 rows into 'progress'")


def damaged_files():
    """Name, content, what the message must say."""
    good = fvecs(ROWS)
    numbers = npy_rows(ROWS)
    line = b'{"vector": [1, 2, 3]}\n'
    data = struct.pack("<12f", *sum(ROWS, []))
    record = npy(data, (4, 3), "x").replace(b"'x'", b"[('a', '<f4')]")
    long_payload = jsonl([{"vector": [1, 2, 3], "payload": "x" * 65537}])
    too_large = npy_rows([[1, 2, 3], [1, 1e39, 3]], "<f8", "d")
    twice = line[:-2] + b', "vector": [1, 2, 3]}\n'
    yield from (
        ("empty.fvecs", b"", "is empty"),
        ("short.fvecs", good[:2], "cut short"),
        ("cut.fvecs", good[:-1], r"row 3 \(byte 48\) is cut short: 15 of its 16 bytes"),
        ("cut0.fvecs", good[:10], r"row 0 \(byte 0\) is cut short"),
        ("cutdim.fvecs", good + b"\x03\x00", r"row 4 \(byte 64\) is cut short: 2 of its 16"),
        ("zero.fvecs", fvecs([[]]), "dimension 0, allowed are 1 to 65535"),
        ("huge.fvecs", struct.pack("<if", 65536, 1), "dimension 65536"),
        ("negative.fvecs", struct.pack("<if", -1, 1), "dimension -1"),
        ("change.fvecs", good + fvecs([[1, 2]]), r"row 4 \(byte 64\) has dimension 2, .* have 3"),
        ("nan.fvecs", fvecs(ROWS[:2] + [[1, NAN, 3]]), r"row 2, component 1 \(byte 40\): NaN or infinity"),
        ("inf.fvecs", fvecs([[1, 2, -math.inf]]), r"row 0, component 2 \(byte 12\)"),
        ("gzip.fvecs", b"\x1f\x8b\x08\x00" + bytes(60), "looks like a gzip archive"),
        ("numpy.fvecs", numbers, "looks like a numpy array"),
        ("bytes.fvecs", bvecs(BYTE_ROWS), "looks like bvecs"),
        ("text.fvecs", b"name,x,y\nfoo,1,2\n", "looks like plain text"),
        ("json.fvecs", line * 4, "looks like JSON text"),
        ("fbin.fvecs", struct.pack("<2I", 100000, 3) + bytes(1200000), "looks like a .fbin"),
        ("zip.npy", b"PK\x03\x04" + bytes(100), r"looks like a zip or numpy .npz"),
        ("floats.bvecs", good, "looks like fvecs"),
        ("cut.bvecs", bvecs(BYTE_ROWS)[:-2], r"row 3 \(byte 21\) is cut short: 5 of its 7"),
        ("empty.npy", b"", "is empty"),
        ("head.npy", numbers[:9], "ends within its header"),
        ("head2.npy", numbers[:60], "the header claims"),
        ("version.npy", numbers[:6] + b"\x03" + numbers[7:], r"version 3.0"),
        ("cut.npy", numbers[:-1], r"row 3 \(byte 164\) is cut short or missing"),
        ("long.npy", numbers + b"1", "1 bytes too many"),
        ("fortran.npy", npy(data, (4, 3), fortran=True), "Fortran order"),
        ("big.npy", npy(data, (4, 3), ">f4"), "big-endian"),
        ("dtype.npy", npy(data, (4, 3), "<i4"), "dtype '<i4'"),
        ("record.npy", record, "not that of a plain array"),
        ("axes.npy", npy(data, (2, 2, 3)), "more than 2 axes"),
        ("scalar.npy", npy(data[:4], "()"), "no axes"),
        ("norows.npy", npy(b"", (0, 3)), "no rows"),
        ("nodim.npy", npy(b"", (4, 0)), "dimension 0"),
        ("wide.npy", npy(b"", (4, 65536)), "dimension 65536"),
        ("overflow.npy", npy(data, (2**62, 3)), "cut short or missing"),
        ("twice.npy", npy(data, "(4, 3), 'shape': (4, 3)"), "not that of a plain array"),
        ("f8.npy", too_large, r"row 1, component 1 \(byte 160\): the value does not fit"),
        ("f8nan.npy", npy_rows([[1, 2, NAN]], "<f8", "d"), r"row 0, component 2 .* NaN"),
        ("f2inf.npy", npy_rows([[1, 2, math.inf]], "<f2", "e"), r"row 0, component 2 .* NaN or infinity"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n  \n\t\n", "only blank lines"),
        ("array.jsonl", b'[{"vector": [1]}]\n', r"row 0 \(line 1, byte 0\).*not an array.*JSON array"),
        ("gzip.jsonl", b"\x1f\x8b\x08\x00" + bytes(60), "looks like a gzip archive"),
        ("syntax.jsonl", line * 2 + b'\n{"vector": [1, 2, }\n', r"row 2 \(line 4, byte 6\d\): no JSON"),
        ("nan.jsonl", line + b'{"vector": [1, 2, NaN]}\n', r"row 1 \(line 2, byte \d+\): no JSON"),
        ("cut.jsonl", line + line[:15], r"row 1 \(line 2, byte \d+\): no JSON"),
        ("key.jsonl", line + b'{"vector": [1], "meta": 1}\n', r'row 1 \(line 2, byte 22\): unknown key "meta"'),
        ("novector.jsonl", line + b'{"payload": 1}\n', 'row 1 .*"vector" is missing'),
        ("double.jsonl", line + twice, r"row 1 .*no JSON: duplicate"),
        ("dims.jsonl", line + b'{"vector": [1, 2]}\n', r"row 1 .*has 2 numbers, that of the first line 3"),
        ("string.jsonl", line + b'{"vector": [1, "2", 3]}\n', "row 1 .*component 1 is not a number"),
        ("range.jsonl", line + b'{"vector": [1, 1e39, 3]}\n', "row 1 .*does not fit"),
        ("mixed.jsonl", line + b'{"id": 1, "vector": [1, 2, 3]}\n', 'row 1 .*the first one has none'),
        ("mixed2.jsonl", b'{"id": 1, "vector": [1, 2, 3]}\n' + line, 'row 1 .*"id" is missing'),
        ("idtext.jsonl", b'{"id": "x1", "vector": [1, 2, 3]}\n', '"id" must be a whole number'),
        ("idminus.jsonl", b'{"id": -1, "vector": [1, 2, 3]}\n', '"id" must be a whole number'),
        ("idtop.jsonl", b'{"id": "18446744073709551615", "vector": [1, 2, 3]}\n', '"id" must be'),
        ("payload.jsonl", long_payload, "65537 bytes; at most 65536"),
    )


class DamagedFiles(Case):
    def test_a_damaged_file_is_named_and_changes_nothing(self):
        name = self.fresh("damaged")
        self.good("import", name, self.file("good.fvecs", fvecs(ROWS)))
        before = self.json("coll", "show", name)
        names = self.names()
        for file_name, content, says in damaged_files():
            path = self.file(file_name, content)
            with self.subTest(file_name):
                for words in ([name, path, "--mode", "upsert"], ["new", path, "--create", "--metric", "l2"]):
                    done = self.call("import", *words, "--batch", 1)
                    message = done.stderr.decode()
                    self.assertEqual((done.returncode, done.stdout), (USAGE, b""), message)
                    self.assertRegex(message, r"\Avexctl: [^\n]+\n\Z")
                    self.assertRegex(message, says)
                    self.assertIn(file_name, message)
        self.assertEqual(self.json("coll", "show", name), before)
        self.assertEqual(self.names(), names)

    def test_zero_vectors_are_refused_under_cosine(self):
        name = self.fresh("zero", metric="cosine")
        rows = ROWS[:2] + [[0.0, -0.0, 0.0]]
        for path, where in (
            (self.file("zero.fvecs", fvecs(rows)), r"row 2 \(byte 36\)"),
            (self.file("zero.jsonl", jsonl({"vector": row} for row in rows)), r"row 2 \(line 3, byte \d+\)"),
        ):
            self.bad(USAGE, "import", name, path, "--batch", 1, says=where + ".*zero vector")
        self.assertEqual(self.json("count", name)["count"], 0)
        self.good("import", self.fresh("zero2"), path)


class PartWay(Case):
    """An import that is stopped after some batches says how to go on, and then nothing is missing."""

    COUNT = 100000

    def interrupt(self, name, stop):
        self.fresh(name, dim=4)
        path = self.file("part.fvecs", fvecs([[i, i + 1, i + 2, i + 3] for i in range(self.COUNT)]))
        process = subprocess.Popen(
            [VEXCTL, "import", name, str(path), "--batch", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment(self.instance),
        )
        with contextlib.closing(process.stdout), contextlib.closing(process.stderr):
            wait_until(
                lambda: process.poll() is not None or self.json("count", name)["count"] > 20,
                30, "20 rows are written",
            )
            self.assertIsNone(process.poll(), "the import ended before it could be interrupted")
            stop(process)
            self.assertEqual(process.wait(SECONDS_MAX), PARTIAL)
            self.assertEqual(process.stdout.read(), b"")
            message = process.stderr.read().decode()
        self.assertRegex(message, r"\Avexctl: import stopped: [^\n]*\n\Z")
        return path, message

    def go_on(self, name, path, message):
        durable = int(re.search(r"(\d+) rows are durable", message)[1])
        count = self.json("count", name)["count"]
        self.assertIn(count - durable, (0, 1) if "may be, too" in message else (0,), message)
        self.assertEqual(self.stored(name, durable - 1)[0]["vector"][0], durable - 1)
        words = re.search(r"the same command with (--skip .*)", message)[1].split()
        self.good("import", name, path, *words)
        self.assertEqual(self.json("count", name)["count"], self.COUNT)
        for row in (0, durable - 1, durable, durable + 1, self.COUNT - 1):
            self.assertEqual(self.stored(name, row)[0]["vector"], [row, row + 1, row + 2, row + 3])

    def test_interrupted(self):
        path, message = self.interrupt("signal", lambda process: process.send_signal(signal.SIGINT))
        self.assertIn("interrupted", message)
        self.go_on("signal", path, message)

    def test_daemon_killed(self):
        self.make_instance()
        pid = self.json("status")["daemon_pid"]
        path, message = self.interrupt("killed", lambda process: os.kill(pid, signal.SIGKILL))
        self.go_on("killed", path, message)
        self.assertNotEqual(self.json("status")["daemon_pid"], pid)


class Daemon(Case):
    def fresh_instance(self, name):
        instance = self.folder / name
        self.addCleanup(self.end_daemon, instance)
        self.make_instance(instance)
        return instance

    def test_status(self):
        instance = self.fresh_instance("status")
        stats = self.json("status", instance=instance)
        self.assertTrue(is_alive(stats["daemon_pid"]))
        self.assertRegex(stats["instance"], r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
        self.assertIs(stats["embedded"], True)
        self.assertIs(stats["read_only"], False)
        self.assertEqual((stats["collections"], stats["live_rows"]), (0, 0))
        self.assertRegex(self.good("-d", instance, "status"), rf"instance +{stats['instance']}\n")

    def test_stop_and_no_spawn(self):
        instance = self.fresh_instance("stop")
        self.bad(UNREACHABLE, "--no-spawn", "status", instance=instance)
        self.bad(UNREACHABLE, "stop", instance=instance, says="no daemon to stop")
        self.good("coll", "create", "kept", "--dim", "2", "--metric", "l2", instance=instance)
        pid = self.json("status", instance=instance)["daemon_pid"]
        self.assertEqual(self.json("stop", instance=instance), {"stopped": True, "daemon_pid": pid})
        wait_until(lambda: not is_alive(pid), 5, "the daemon is gone")
        self.bad(UNREACHABLE, "--no-spawn", "coll", "list", instance=instance)
        self.assertEqual(self.json("coll", "list", instance=instance)["collections"][0]["name"], "kept")

    def test_many_at_once_start_one_daemon(self):
        for attempt in range(3):
            instance = self.fresh_instance(f"race{attempt}")
            started = [
                subprocess.Popen(
                    [VEXCTL, "-d", str(instance), "-o", "json", "status"],
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )
                for _ in range(8)
            ]
            ends = [(process.communicate(timeout=SECONDS_MAX), process.returncode) for process in started]
            self.assertEqual([code for _, code in ends], [OK] * 8, ends)
            pids = {json.loads(output)["daemon_pid"] for (output, _), _ in ends}
            self.assertEqual(len(pids), 1, pids)
            self.assertEqual(pids, {self.json("status", instance=instance)["daemon_pid"]})

    def test_an_idle_daemon_ends_and_loses_nothing(self):
        instance = self.fresh_instance("idle")
        self.good("--idle", "0.5", "coll", "create", "kept", "--dim", "2", "--metric", "l2", instance=instance)
        self.good("--idle", "0.5", "put", "kept", "--vector", "[1,2]", instance=instance)
        pid = self.json("--no-spawn", "status", instance=instance)["daemon_pid"]
        wait_until(lambda: not is_alive(pid), 10, "the idle daemon has ended")
        self.bad(UNREACHABLE, "--no-spawn", "count", "kept", instance=instance)
        self.assertEqual(self.json("count", "kept", instance=instance)["count"], 1)

    def test_default_directory(self):
        home = self.folder / "home"
        home.mkdir()
        instance = home / ".local/share/vexdb"
        self.addCleanup(self.end_daemon, instance)
        env = {key: value for key, value in os.environ.items() if key != "VEXDB_DIR"}
        env["HOME"] = str(home)
        self.make_instance(instance)
        self.good("status", env=env)
        self.assertTrue(instance.is_dir())

    def test_a_directory_that_cannot_be_one(self):
        self.bad(UNREACHABLE, "-d", self.file("occupied", b"x"), "--no-spawn", "status")
        self.assertNotEqual(self.call("-d", self.folder / "occupied", "status").returncode, OK)

    def test_damaged_data_is_an_integrity_failure(self):
        instance = self.fresh_instance("corrupt")
        for number in range(3):
            self.good("coll", "create", f"c{number}", "--dim", "2", "--metric", "l2", instance=instance)
            self.good("put", f"c{number}", "--vector", "[1,2]", instance=instance)
        self.good("stop", instance=instance)
        logs = sorted((instance / "log").glob("*.log"))
        self.assertTrue(logs)
        with open(logs[0], "r+b") as log:  # the second batch; those behind prove that it was written
            log.seek(2 * 4096 + 100)
            log.write(bytes(b ^ 0xFF for b in log.read(8)))
        done = self.call("status", instance=instance)
        self.assertEqual((done.returncode, done.stdout), (CORRUPT, b""), done.stderr)


# ---- upkeep ----------------------------------------------------------------------------------------


def tree(directory):
    """What is in a directory, down to the bytes; what two calls return is equal if nothing was changed."""
    found = {}
    for path in sorted(directory.rglob("*")):
        info = path.lstat()
        if path.is_file():
            found[str(path.relative_to(directory))] = (info.st_mtime_ns, path.read_bytes())
        else:
            found[str(path.relative_to(directory))] = None
    return found


def vexd():
    return os.environ.get("VEXD_PATH") or os.path.join(os.path.dirname(VEXCTL), "vexd")


def orphaned_memory():
    """Names of shared memory that no process has mapped."""
    mapped = ""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            mapped += pathlib.Path(f"/proc/{pid}/maps").read_text(errors="replace")
    return {name for name in os.listdir("/dev/shm") if name.startswith("vexdb-") and name not in mapped}


def files_with(directory, marker):
    return [str(path) for path in directory.rglob("*") if path.is_file() and marker in path.read_bytes()]


def flip(path, offset, count=8):
    with open(path, "r+b") as file:
        file.seek(offset)
        old = file.read(count)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in old))


class Upkept(Case):
    """Instances of a few rows; `report` and `refused` are for what vexd does for vexctl."""

    def build(self, name, collections=("a",), rows=20):
        instance = self.folder / name
        self.addCleanup(self.end_daemon, instance)
        for collection in collections:
            self.good("coll", "create", collection, "--dim", 2, "--metric", "l2", instance=instance)
            lines = jsonl({"id": i, "vector": [i, 1], "payload": f"{collection}-{i}"} for i in range(rows))
            self.good("import", collection, self.file(f"{name}.jsonl", lines), instance=instance)
        return instance

    def stopped(self, *words, **more):
        instance = self.build(*words, **more)
        self.good("stop", instance=instance)
        return instance

    def rows(self, instance, collection="a", ids=range(20)):
        return self.json("get", collection, *ids, instance=instance)["records"]

    def report(self, *words, code=OK, **more):
        """The report of an offline verb as JSON; for people it is there, too, with the same exit code."""
        plain = self.call(*words, **more)
        self.assertEqual(plain.returncode, code, (words, plain.stderr))
        self.assertTrue(plain.stdout)
        done = self.call("-o", "json", *words, **more)
        self.assertEqual(done.returncode, code, (words, done.stderr))
        if code == OK:
            self.assertEqual((plain.stderr, done.stderr), (b"", b""), words)
        else:
            self.assertRegex(plain.stderr.decode(), r"(?m)^vexd: [^\n]+\n\Z")
            error = json.loads(done.stderr.splitlines()[-1])
            self.assertEqual((error["error"], error["exit_code"]), (None, code))
            # A path with a number made for the occasion may be in it.
            self.assertEqual(len(done.stderr.splitlines()), len(plain.stderr.splitlines()))
        return json.loads(done.stdout)

    def refused(self, code, *words, says=r"\w", **more):
        """An offline verb that does nothing, says why in one line, and prints nothing else."""
        for output in ("table", "json"):
            done = self.call("-o", output, *words, **more)
            message = done.stderr.decode()
            self.assertEqual((done.returncode, done.stdout), (code, b""), (words, message))
            if output == "json":
                error = error_of(done)
                self.assertEqual((error["error"], error["exit_code"]), (None, code), words)
                message = "vexd: " + error["message"] + "\n"
            self.assertRegex(message, r"\Avexd: [^\n]+\n\Z", words)
            self.assertRegex(message, says, words)

    def assert_nothing_left(self, orphans_before=None):
        self.assertEqual(list(self.folder.rglob("*.scratch-*")), [])
        self.assertEqual(list(self.folder.rglob("*.part")), [])
        if orphans_before is not None:  # other tests may run beside this one: theirs pass by
            left = orphaned_memory() - orphans_before
            wait_until(lambda: not left & orphaned_memory(), 10, "no shared memory is left")


class Upkeep(Upkept):
    def test_status_tells_how_much_space_and_writing_it_costs(self):
        instance = self.folder / "amplified"
        self.addCleanup(self.end_daemon, instance)
        self.make_instance(instance)
        empty = self.json("status", instance=instance)
        for key in ("space_amplification", "write_amplification", "shm_amplification"):
            self.assertIsNone(empty[key])
        self.assertEqual((empty["live_bytes"], empty["checkpoint_lsn"]), (0, 0))
        instance = self.build("amplified")
        full = self.json("status", instance=instance)
        self.assertEqual(full["disk_bytes"], full["log_file_bytes"] + full["segment_bytes"])
        for key, above, below in (
            ("space_amplification", "disk_bytes", "live_bytes"),
            ("write_amplification", "written_bytes", "ingested_bytes"),
            ("shm_amplification", "shm_bytes", "live_bytes"),
        ):
            self.assertAlmostEqual(full[key], full[above] / full[below], places=2)
        self.assertGreaterEqual(full["live_bytes"], 20 * 2 * 4)
        self.assertGreater(full["ingested_bytes"], 20 * 2 * 4)
        self.assertGreater(full["recovery_us"], 0)
        self.assertEqual((full["quarantined"], full["upkeep_error"]), (0, None))
        self.assertEqual(full["checkpoint_failures"] + full["merge_failures"], 0)
        text = self.good("status", instance=instance)
        for name in ("amplification", "segment files", "checkpoints", "merges", "recovery", "upkeep"):
            self.assertRegex(text, rf"(?m)^{name} +\S")
        log_bytes = sum(path.stat().st_size for path in (instance / "log").iterdir())
        self.assertLessEqual(full["log_file_bytes"], log_bytes)

    def test_checkpoint(self):
        instance = self.build("checkpoint")
        before = self.json("status", instance=instance)
        self.assertEqual(self.json("checkpoint", instance=instance), {"checkpoint_lsn": before["lsn"]})
        after = self.json("status", instance=instance)
        self.assertEqual(after["checkpoint_lsn"], before["lsn"])
        self.assertGreater(after["checkpoints"], before["checkpoints"])
        self.assertEqual(after["segment_files"], 1)
        self.assertRegex(self.good("checkpoint", instance=instance), rf"lsn {before['lsn']}\n")
        rows = self.rows(instance)
        self.good("stop", instance=instance)
        self.assertEqual(self.rows(instance), rows)
        self.assertEqual(self.json("status", instance=instance)["replayed"], 0)

    def test_compact(self):
        instance = self.build("compact", ("a", "b"))
        self.good("delete", "a", *range(15), instance=instance)
        self.assertRegex(self.good("compact", "status", instance=instance), r"(?m)^a +\d+ +5 ")
        status = self.json("compact", "status", instance=instance)
        self.assertEqual([(c["name"], c["live"]) for c in status["collections"]], [("a", 5), ("b", 20)])
        self.bad(NOT_FOUND, "compact", "run", "nothing", instance=instance, says="nothing")
        self.bad(NOT_FOUND, "compact", "run", "x" * 64, instance=instance, says="xxx")
        done = self.json("compact", "run", "a", instance=instance)
        self.assertEqual((done["segments_after"], done["erased"]), (1, False))
        self.assertRegex(self.good("compact", "run", instance=instance), r"\Aremoved 0 dead rows; ")
        status = self.json("compact", "status", instance=instance)
        self.assertEqual([c["dead"] for c in status["collections"]], [0, 0])
        self.assertEqual(len(self.rows(instance, ids=range(15, 20))), 5)

    def test_erase_leaves_no_trace(self):
        instance = self.build("erase")
        vector = struct.pack("<2f", 12345.678, -8765.4321)
        self.good("put", "a", "--id", 99, "--vector", "[12345.678, -8765.4321]", "--payload", "TRACE-IT",
                  instance=instance)
        self.good("put", "a", "--id", 98, "--vector", "[1, 2]", "--payload", "KEEP-IT", instance=instance)
        self.good("checkpoint", instance=instance)
        self.good("delete", "a", 99, instance=instance)
        self.assertTrue(files_with(instance, b"TRACE-IT"))
        self.assertTrue(files_with(instance, vector))
        self.assertIs(self.json("compact", "run", "--erase", instance=instance)["erased"], True)
        for marker in (b"TRACE-IT", vector):
            self.assertEqual(files_with(instance, marker), [])
        self.assertTrue(files_with(instance, b"KEEP-IT"))
        self.good("stop", instance=instance)
        self.assertEqual(files_with(instance, b"TRACE-IT"), [])
        self.assertEqual(self.json("count", "a", instance=instance), {"count": 21})

    def test_backup_create_and_list(self):
        instance = self.build("backed")
        self.assertEqual(self.report("backup", "list", instance=instance), {"backups": [], "count": 0})
        lsn = self.json("status", instance=instance)["lsn"]
        named = self.json("backup", "create", "named", instance=instance)
        self.assertEqual((named["path"], named["lsn"]), (str(instance / "backup/named"), lsn))
        size = sum(path.stat().st_size for path in (instance / "backup/named").rglob("*") if path.is_file())
        self.assertEqual(named["bytes"], size)
        timed = self.json("backup", "create", instance=instance)
        self.assertRegex(timed["path"], r"/backup/\d{8}T\d{6}Z\Z")
        elsewhere = self.folder / "elsewhere"
        self.assertRegex(self.good("backup", "create", f"{elsewhere}/", instance=instance), rf"lsn {lsn}, .*elsewhere")
        self.assertTrue((elsewhere / "MANIFEST").is_file())
        relative = os.path.relpath(self.folder / "relative")
        self.good("backup", "create", relative if "/" in relative else f"./{relative}", instance=instance)
        self.assertTrue((self.folder / "relative/MANIFEST").is_file())
        self.bad(CONFLICT, "backup", "create", "named", instance=instance, says="named.* exists")
        self.assertNotEqual(self.call("backup", "create", self.folder / "no/such", instance=instance).returncode, OK)
        listed = self.report("backup", "list", instance=instance)
        self.assertEqual(listed["count"], 2)
        self.assertEqual({b["name"]: (b["lsn"], b["whole"]) for b in listed["backups"]},
                         {"named": (lsn, True), pathlib.Path(timed["path"]).name: (lsn, True)})
        self.good("stop", instance=instance)
        self.assertEqual(self.report("backup", "list", instance=instance), listed)
        (instance / "backup/half.part").mkdir()
        half = self.report("backup", "list", instance=instance)["backups"][1]
        self.assertEqual((half["name"], half["whole"]), ("half.part", False))


class Offline(Upkept):
    VERBS = (["fsck"], ["fsck", "--deep"], ["log", "dump"], ["log", "repair"], ["log", "repair", "--accept-loss"])

    def test_a_running_daemon_keeps_them_out(self):
        instance = self.build("served")
        for words in self.VERBS:
            self.refused(CONFLICT, *words, instance=instance, says="vexctl stop.*process [0-9]+")
        self.refused(CONFLICT, "backup", "restore", instance, self.folder / "not", instance=instance)
        self.refused(CONFLICT, "backup", "verify", instance, instance=instance)
        self.assertFalse((self.folder / "not").exists())
        self.assertEqual(len(self.rows(instance)), 20)

    def test_no_instance(self):
        self.folder.joinpath("empty").mkdir(exist_ok=True)
        for place in ("empty", "missing"):
            for words in self.VERBS:
                self.refused(NOT_FOUND, *words, instance=self.folder / place)
        self.assertEqual(list(self.folder.joinpath("empty").iterdir()), [])
        self.assertFalse(self.folder.joinpath("missing").exists())
        env = {**self.environment(self.instance), "VEXD_PATH": "/nonexistent/vexd"}
        self.bad(UNREACHABLE, "fsck", env=env, says="/nonexistent/vexd")

    def test_a_sound_instance_stays_as_it_is(self):
        instance = self.build("sound", ("a", "b"))
        self.good("checkpoint", instance=instance)
        self.good("delete", "a", 3, instance=instance)
        self.good("backup", "create", "one", instance=instance)
        self.good("put", "b", "--id", 100, "--vector", "[1,1]", instance=instance)
        self.good("stop", instance=instance)
        before = tree(instance)
        orphans = orphaned_memory()
        checked = self.report("fsck", instance=instance)
        self.assertEqual((checked["sound"], checked["damaged"]), (True, 0))
        self.assertLessEqual({"MANIFEST"}, {item["path"] for item in checked["files"]})
        for folder in ("checkpoints/", "segments/", "log/"):
            self.assertTrue([item for item in checked["files"] if item["path"].startswith(folder)], folder)
        for words, live in ((["fsck", "--deep"], 40), (["backup", "verify", "one"], 39)):
            deep = self.report(*words, instance=instance)
            self.assertIs(deep["sound"], True)
            self.assertEqual([c["name"] for c in deep["collections"]], ["a", "b"])
            self.assertEqual(sum(c["live_rows"] for c in deep["collections"]), live)
            self.assertEqual(deep["live_rows"], live)
        self.assertIs(self.report("log", "repair", instance=instance)["damaged"], False)
        self.report("log", "dump", "--records", instance=instance)
        self.assertEqual(tree(instance), before)
        self.assert_nothing_left(orphans)

    def test_damage_is_named(self):
        for kind in ("segments/*.seg", "checkpoints/*.ckpt", "MANIFEST"):
            with self.subTest(kind):
                instance = self.build("damaged-" + kind.split("/")[0])
                self.good("checkpoint", instance=instance)
                self.good("stop", instance=instance)
                path = sorted(instance.glob(kind))[-1]
                flip(path, path.stat().st_size - 100 if kind != "MANIFEST" else 20)
                before = tree(instance)
                found = self.report("fsck", code=CORRUPT, instance=instance)
                self.assertIs(found["sound"], False)
                self.assertEqual([item["path"] for item in found["files"] if not item["sound"]],
                                 [str(path.relative_to(instance))])
                self.assertEqual(self.call("fsck", "--deep", instance=instance).returncode, CORRUPT)
                self.assertEqual(tree(instance), before)
        self.assert_nothing_left()

    def test_a_lost_file_is_damage(self):
        instance = self.build("lost")
        self.good("checkpoint", instance=instance)
        self.good("stop", instance=instance)
        for path in (sorted(instance.glob("segments/*.seg"))[0], instance / "MANIFEST"):
            path.unlink()
            self.assertEqual(self.call("fsck", instance=instance).returncode, CORRUPT)
            self.assertEqual(self.call("fsck", "--deep", instance=instance).returncode, CORRUPT)

    def test_restore(self):
        instance = self.build("origin", ("a", "b"))
        rows = self.rows(instance)
        self.good("backup", "create", "one", instance=instance)
        self.good("delete", "a", *range(20), instance=instance)
        target = self.folder / "restored"
        done = self.json("backup", "restore", "one", target, instance=instance)
        self.assertEqual(done, {"restored": str(target), "from": str(instance / "backup/one")})
        self.addCleanup(self.end_daemon, target)
        self.assertEqual(self.rows(target), rows)
        self.assertEqual(self.json("count", "a", instance=instance), {"count": 0})
        self.good("put", "a", "--id", 1, "--vector", "[5,5]", instance=target)
        self.refused(CONFLICT, "backup", "restore", "one", target, instance=instance, says="not empty")
        self.assertEqual(self.json("count", "a", instance=target), {"count": 20})
        self.refused(NOT_FOUND, "backup", "restore", "two", self.folder / "nowhere", instance=instance, says="two")
        other = self.folder / "third.part"  # an instance that happens to have this name
        other.mkdir()
        for name in ("LOCK", "MANIFEST"):
            (other / name).touch()
        self.refused(CONFLICT, "backup", "restore", "one", self.folder / "third", instance=instance, says="third.part")
        self.assertTrue((other / "MANIFEST").exists())
        shutil.rmtree(other)
        self.assertFalse((self.folder / "nowhere").exists())

    def test_restore_by_copy_and_into_an_empty_directory(self):
        instance = self.build("linked")
        self.good("backup", "create", "one", instance=instance)
        names = sorted(path.name for path in (instance / "backup/one/segments").iterdir())
        for options, links in ([], True), (["--copy"], False):
            target = self.folder / f"linked-{links}"
            target.mkdir()
            (self.folder / f"linked-{links}.part").mkdir()  # an attempt that was interrupted
            (self.folder / f"linked-{links}.part/MANIFEST").write_bytes(b"part of one")
            self.good("backup", "restore", "one", target, *options, instance=instance)
            self.assertEqual(sorted(path.name for path in (target / "segments").iterdir()), names)
            for name in names:
                same = (target / "segments" / name).samefile(instance / "backup/one/segments" / name)
                self.assertEqual(same, links)
            self.assertEqual(self.call("fsck", instance=target).returncode, OK)
        self.assert_nothing_left()
        strange = self.folder / "strange.part"
        strange.mkdir()
        (strange / "diary").write_bytes(b"mine")
        self.refused(CONFLICT, "backup", "restore", "one", self.folder / "strange", instance=instance, says="in the way")
        self.assertEqual((strange / "diary").read_bytes(), b"mine")
        shutil.rmtree(strange)

    def test_a_damaged_backup_is_not_restored(self):
        instance = self.build("bad")
        self.good("backup", "create", "one", instance=instance)
        copied = self.folder / "copied"
        shutil.copytree(instance / "backup/one", copied)
        segment = sorted(copied.glob("segments/*.seg"))[0]
        flip(segment, segment.stat().st_size - 100)
        done = self.call("backup", "restore", copied, self.folder / "never", instance=instance)
        self.assertEqual((done.returncode, done.stdout), (CORRUPT, b""), done.stderr)
        self.assertIn(segment.name, done.stderr.decode())
        self.assertFalse((self.folder / "never").exists())
        self.assertEqual(self.call("backup", "verify", copied, instance=instance).returncode, CORRUPT)
        self.assertEqual(self.call("backup", "verify", "one", instance=instance).returncode, OK)
        self.assert_nothing_left()

    def test_a_stopped_instance_is_as_good_as_a_backup(self):
        instance = self.build("whole")
        self.good("checkpoint", instance=instance)
        self.good("put", "a", "--id", 50, "--vector", "[1,1]", instance=instance)
        rows = self.rows(instance, ids=[*range(20), 50])
        self.good("stop", instance=instance)
        before = tree(instance)
        target = self.folder / "whole-again"
        self.json("backup", "restore", instance, target, instance=instance)
        self.addCleanup(self.end_daemon, target)
        self.assertEqual(self.rows(target, ids=[*range(20), 50]), rows)
        self.good("compact", "run", "--erase", instance=target)
        self.assertEqual(tree(instance), before)

    def test_a_restore_that_is_killed_leaves_no_half_instance(self):
        instance = self.build("killed", rows=20000)
        self.good("backup", "create", "one", instance=instance)
        target = self.folder / "half"
        finished = 0
        for attempt in range(12):
            process = subprocess.Popen([vexd(), "--restore", instance / "backup/one", "--copy", "--dir", target],
                                       stdout=subprocess.DEVNULL)
            time.sleep(attempt * 0.004)
            process.kill()
            process.wait()
            if target.exists():
                finished += 1
                self.assertEqual(self.call("fsck", instance=target).returncode, OK)
                shutil.rmtree(target)
        self.assertLess(finished, 12)
        self.good("backup", "restore", "one", target, "--copy", instance=instance)
        self.assertEqual(self.json("count", "a", instance=target), {"count": 20000})
        self.end_daemon(target)
        self.assert_nothing_left()

    def test_where_links_are_not_possible_files_are_copied(self):
        instance = self.build("here")
        self.good("backup", "create", "one", instance=instance)
        if os.stat("/dev/shm").st_dev == os.stat(self.folder).st_dev:
            self.skipTest("one file system only")
        there = pathlib.Path(tempfile.mkdtemp(prefix="vexctl-test-", dir="/dev/shm"))
        self.addCleanup(shutil.rmtree, there, ignore_errors=True)
        self.good("backup", "restore", "one", there / "db", instance=instance)
        self.assertEqual(self.call("fsck", "--deep", instance=there / "db").returncode, OK)
        self.good("backup", "create", there / "copy", instance=instance)
        self.assertIs(self.report("backup", "verify", there / "copy", instance=instance)["sound"], True)

    def test_strange_names_do_not_disturb_a_report(self):
        instance = self.stopped("strange-names")
        (instance / "segments").mkdir(exist_ok=True)
        strange = os.fsencode(instance / "segments") + b'/\xff"\n\x1b[31m\\'
        with open(strange, "wb"):
            pass
        found = self.report("fsck", instance=instance)
        self.assertEqual(len([i for i in found["files"] if "[31m" in i["path"]]), 1)
        plain = self.good("fsck", instance=instance)
        self.assertNotIn("\x1b", plain)
        self.assertEqual(len(plain.splitlines()), found["findings"] + 1)

    def test_quarantine_is_seen_and_keeps_upkeep_away(self):
        instance = self.build("sick", ("a", "b"))
        self.good("checkpoint", instance=instance)
        self.good("checkpoint", instance=instance)
        self.good("stop", instance=instance)
        segment = sorted(instance.glob("segments/*.seg"))[0]  # of a
        flip(segment, segment.stat().st_size - 100)
        self.assertEqual(self.call("status", instance=instance).returncode, CORRUPT)
        with subprocess.Popen([vexd(), "--dir", instance, "--quarantine"], stderr=subprocess.DEVNULL) as daemon:
            self.addCleanup(daemon.kill)
            wait_until(lambda: self.call("--no-spawn", "status", instance=instance).returncode == OK, 20, "it serves")
            self.assertEqual(self.json("status", instance=instance)["quarantined"], 1)
            self.assertRegex(self.good("status", instance=instance), r"state +DAMAGED: 1 ")
            self.assertEqual(len(self.rows(instance, "b")), 20)
            for words in (["checkpoint"], ["compact", "run"], ["backup", "create"]):
                self.bad(CORRUPT, *words, instance=instance, says="quarantined")
            self.good("stop", instance=instance)
        self.assertEqual(self.call("fsck", instance=instance).returncode, CORRUPT)

    def test_log_dump(self):
        instance = self.build("dumped", rows=3)
        self.good("delete", "a", 2, instance=instance)
        self.good("coll", "drop", "a", "--yes", instance=instance)
        self.good("stop", instance=instance)
        whole = self.report("log", "dump", "--records", instance=instance)
        records = [item for item in whole["log"] if item["kind"] == "record"]
        self.assertEqual([(r["lsn"], r["what"]) for r in records],
                         [(1, "create"), (2, "insert"), (3, "delete"), (4, "drop")])
        self.assertEqual((records[0]["name"], records[1]["count"], records[2]["first_id"]), ("a", 3, 2))
        self.assertEqual((whole["last_lsn"], whole["end"]), (4, "orderly stop"))
        self.assertEqual(whole["files"], len([i for i in whole["log"] if i["kind"] == "file"]))
        tail = self.report("log", "dump", "--records", "--from", 3, instance=instance)
        self.assertEqual([i["lsn"] for i in tail["log"] if i["kind"] == "record"], [3, 4])
        batches = self.report("log", "dump", instance=instance)["log"]
        self.assertEqual({i["kind"] for i in batches}, {"file", "batch"})
        self.assertRegex(self.good("log", "dump", "--records", instance=instance), r"(?m)^ +3: delete of 1 in coll")

    def test_log_repair(self):
        instance = self.build("cut", rows=3)
        for i in range(5):
            self.good("put", "a", "--id", 10 + i, "--vector", "[1,1]", instance=instance)
        self.good("stop", instance=instance)
        batches = [i for i in self.report("log", "dump", instance=instance)["log"] if i["kind"] == "batch"]
        damaged = next(i for i in batches if i["first_lsn"] == 5 and i["records"])
        flip(sorted((instance / "log").glob("*.log"))[0], damaged["offset"] + 100)
        self.assertEqual(self.call("status", instance=instance).returncode, CORRUPT)
        self.assertEqual(self.call("fsck", instance=instance).returncode, CORRUPT)
        self.assertEqual(self.call("log", "dump", instance=instance).returncode, CORRUPT)
        before = tree(instance)
        found = self.report("log", "repair", code=CORRUPT, instance=instance)
        self.assertEqual((found["damaged"], found["changed"], found["last_lsn"]), (True, False, 4))
        self.assertEqual(found["lost_records"], 3)
        self.assertEqual(tree(instance), before)
        self.assert_nothing_left()
        done = self.json("log", "repair", "--accept-loss", instance=instance)
        self.assertEqual((done["changed"], done["last_lsn"], done["lost_records"]), (True, 4, 3))
        self.assertIs(self.report("log", "repair", "--accept-loss", instance=instance)["damaged"], False)
        self.assertEqual(self.call("fsck", "--deep", instance=instance).returncode, OK)
        self.assertEqual(self.json("count", "a", instance=instance), {"count": 5})
        self.good("put", "a", "--id", 30, "--vector", "[1,1]", instance=instance)

    def test_an_interrupted_check_clears_up(self):
        instance = self.stopped("large", rows=20000)
        before = tree(instance)
        orphans = orphaned_memory()
        for after in (0.02, 0.05, 0.1):
            process = subprocess.Popen([VEXCTL, "fsck", "--deep"], env=self.environment(instance),
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
            time.sleep(after)
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=SECONDS_MAX)
            wait_until(lambda: not list(self.folder.glob("large.scratch-*")), 10, "the scratch copy is gone")
        self.assertEqual(tree(instance), before)
        self.assert_nothing_left(orphans)


def main():
    global VEXCTL
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("VEXCTL", str(ROOT / "build/release/bin/vexctl"))
    parser.add_argument("--vexctl", default=default)
    options, rest = parser.parse_known_args()
    VEXCTL = os.path.abspath(options.vexctl)
    if not os.access(VEXCTL, os.X_OK):
        sys.exit(f"{VEXCTL} is no program; give --vexctl PATH")
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)


if __name__ == "__main__":
    main()
