#!/usr/bin/env python3
"""Plants known faults in a copy of the storage engine and sees that the crash explorer finds each of them.

A test that finds nothing may have nothing to find, or may not be looking. The faults are in seeds/*.txt:
blocks of "bug:" (its name), optionally "program:" (explore_log, explore_store) and "options:" (of the
program), "file:", and the text to replace ("old:" lines) by another ("new:" lines). The old text must occur
exactly once, so a rule whose code has changed fails here instead of testing nothing. Where one thing is
checked twice, a fault has a second "file:" with its own texts.

For each fault the changed file is compiled and linked with the objects of the unchanged ones, and the
explorer runs with a small budget. It must end with a fault. First it runs on the unchanged engine, where
it must not. --table prints the result as the table of README.md.

Exit status: 0 every fault was found, 1 not, 2 a rule or the build is broken.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FLAGS = ["-std=c17", "-O1", "-g", "-D_GNU_SOURCE", '-DVEX_VERSION="seeds"', "-ffp-contract=off"]
WRAPPED = ["pthread_create", "pthread_join", "pthread_mutex_lock", "pthread_mutex_unlock",
           "pthread_cond_wait", "pthread_cond_signal", "pthread_cond_broadcast", "pthread_sigmask",
           "getrandom", "clock_gettime", "nanosleep"]
# The disks of real life are not linked; the explorer brings its own.
LEFT_OUT = {"ioengine/io.c", "ioengine/io_posix.c", "ioengine/io_uring.c"}
SHARED = ["tests/lib/io_sim.c", "tests/lib/io_sim_crash.c", "tests/lib/io_sim_look.c",
          "tests/lib/io_sim_tree.c",
          "tests/crash/explore.c", "tests/crash/explore_points.c", "tests/crash/explore_steps.c",
          "tests/crash/fibers.c"]
# What each explorer has beside them.
PROGRAMS = {"explore_log": ["tests/crash/explore_log.c"],
            "explore_store": ["tests/crash/explore_store.c", "tests/crash/explore_store_damage.c",
                              "tests/crash/explore_toy.c"]}
SECONDS_MAX = 120


class Broken(Exception):
    """A rule or the build, not the engine."""


class Edit:
    def __init__(self, file):
        self.file = file
        self.old = []
        self.new = []

    def count(self, tree):
        path = tree / self.file
        return path.read_text().count("\n".join(self.old)) if path.is_file() and self.old else 0

    def applied(self, text):
        return text.replace("\n".join(self.old), "\n".join(self.new))


class Bug:
    def __init__(self, where, name):
        self.where, self.name = where, name
        self.program = "explore_log"
        self.options = []
        self.edits = []

    def files(self):
        return [edit.file for edit in self.edits]

    def outdated(self, tree):
        """None, or why the rule does not fit the code any more."""
        for edit in self.edits:
            count = edit.count(tree)
            if count != 1:
                return (f"{self.where}: '{self.name}': the old text occurs {count} times in {edit.file}, "
                        f"not once")
        return None if self.edits else f"{self.where}: '{self.name}' changes nothing"


def read_bugs(path):
    bugs = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        key, _, value = line.partition(":")
        value = value[1:]
        if key == "bug":
            bugs.append(Bug(f"{path.name}:{number}", value))
        elif key == "program" and bugs:
            bugs[-1].program = value
        elif key == "options" and bugs:
            bugs[-1].options = value.split()
        elif key == "file" and bugs:
            bugs[-1].edits.append(Edit(value))
        elif key in ("old", "new") and bugs and bugs[-1].edits:
            getattr(bugs[-1].edits[-1], key).append(value)
        else:
            raise Broken(f"{path.name}:{number}: not understood: {line}")
    return bugs


class Builder:
    def __init__(self, root, scratch, compiler):
        self.root, self.scratch, self.compiler = root, scratch, compiler
        engine = [str(path.relative_to(root)) for folder in ("base", "ioengine")
                  for path in sorted((root / folder).glob("*.c"))]
        self.engine = [path for path in engine if path not in LEFT_OUT]
        self.copy = scratch / "tree"
        for folder in ("base", "ioengine", "tests/lib", "tests/crash"):
            shutil.copytree(root / folder, self.copy / folder)

    def run(self, command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Broken(f"{' '.join(command)}\n{done.stderr[:2000]}")

    def compile(self, source, into, origin=None):
        """`origin`: the file in the tree that `source` stands for."""
        include = self.copy
        warnings = ["-w"] if origin else []
        self.run([self.compiler, *FLAGS, *warnings, "-I", str(include),
                  "-I", str(include / "base/include"), "-c", str(source), "-o", str(into)])

    def object_of(self, source):
        return self.scratch / "objects" / (source.replace("/", "_") + ".o")

    def compile_all(self, programs):
        (self.scratch / "objects").mkdir()
        sources = self.engine + SHARED + [path for name in programs for path in PROGRAMS[name]]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda source: self.compile(self.copy / source, self.object_of(source)),
                          sources))

    def link(self, program, out, replaced=None):
        """`replaced`: objects to take for some sources."""
        sources = self.engine + SHARED + PROGRAMS[program]
        objects = [str((replaced or {}).get(source, self.object_of(source))) for source in sources]
        self.run([self.compiler, *objects, "-o", str(out), "-lpthread",
                  *[f"-Wl,--wrap={name}" for name in WRAPPED]])


def explore(program, states, seed, options=()):
    try:
        done = subprocess.run([str(program), "--states", str(states), "--seed", str(seed), "--thin",
                               *options],
                              capture_output=True, text=True, timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return "hang", 0, "no end"
    found = re.search(r"FAULT (\S+) after (\d+) states: (.*)", done.stdout)
    if found:
        return found.group(1), int(found.group(2)), found.group(3)
    if done.returncode != 0:
        raise Broken(f"{program.name} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return None, states, ""


def try_bug(builder, bug, number, states):
    folder = builder.scratch / f"bug{number}"
    folder.mkdir()
    replaced = {}
    for index, edit in enumerate(bug.edits):
        # Headers are found from the root, so the changed file can lie anywhere.
        source = folder / f"{index}.c"
        source.write_text(edit.applied((builder.copy / edit.file).read_text()))
        replaced[edit.file] = folder / f"{index}.o"
        builder.compile(source, replaced[edit.file], origin=edit.file)
    builder.link(bug.program, folder / bug.program, replaced)
    result = explore(folder / bug.program, states, 1, bug.options)
    shutil.rmtree(folder)
    return result


def run(arguments, scratch):
    bugs = [bug for path in sorted((HERE / "seeds").glob("*.txt")) for bug in read_bugs(path)]
    bugs = [bug for bug in bugs if not arguments.only or arguments.only in bug.name]
    builder = Builder(arguments.root.resolve(), scratch, arguments.cc)
    outdated = [fault for fault in (bug.outdated(builder.copy) for bug in bugs) if fault]
    if outdated:
        raise Broken("bring these rules up to date:\n" + "\n".join(outdated))
    programs = sorted({bug.program for bug in bugs})
    builder.compile_all(programs)
    for program in programs:
        builder.link(program, scratch / program)
        check, states, text = explore(scratch / program, arguments.states, 1)
        if check:
            print(f"{program}: the unchanged engine fails {check} after {states} states: {text}")
            return 1
    survivors = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        results = pool.map(lambda item: try_bug(builder, item[1], item[0], arguments.states),
                           enumerate(bugs))
        for bug, (check, states, text) in zip(bugs, results):
            survivors += check is None
            if arguments.table:
                files = ", ".join(f"`{file}`" for file in bug.files())
                print(f"| {bug.name} | {files} | {bug.program} | {check or '**none**'} | {states} |",
                      flush=True)
            else:
                print(f"{check or 'SURVIVED':8} {states:8} states  {bug.name}: {text}"[:160], flush=True)
    print(f"{len(bugs) - survivors} of {len(bugs)} planted faults found")
    return 1 if survivors or not bugs else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=HERE.parent.parent)
    parser.add_argument("--cc", default=os.environ.get("CC", "cc"))
    parser.add_argument("--states", type=int, default=300000, help="budget for each fault")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help="faults whose name contains this")
    parser.add_argument("--table", action="store_true", help="print rows for README.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vexdb-seeds-") as scratch:
        try:
            return run(arguments, pathlib.Path(scratch))
        except Broken as broken:
            print(f"seeds: {broken}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
