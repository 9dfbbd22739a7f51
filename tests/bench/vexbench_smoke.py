#!/usr/bin/env python3
"""Runs each sub-command of vexbench for a moment and compares what it prints with README.md.

The example lines in README.md are the documentation of the fields: every printed line must be a JSON
object whose keys, in their order, and kinds of values are those of the example with the same "bench"
and "what"; every example must be printed. Also checked: figures that cannot be right (not positive,
quantiles out of order), exit codes and messages of wrong usage, and that a run which is interrupted
leaves neither a file nor a process behind.

Exit status: 0 all well, 1 not, 77 if there is no disk to write to.
"""

import argparse
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

RUNS = (
    ["pin", "--seconds", "0.02", "--threads", "2", "--rows", "100"],
    ["scan", "--seconds", "0.02", "--rows", "3000", "--dim", "40,128", "--metric", "cosine"],
    ["scan", "--seconds", "0.02", "--rows", "3000", "--metric", "dot"],
    ["ingest", "--seconds", "0.04", "--rounds", "2", "--clients", "1,3", "--batch", "50"],
)

# Arguments, and what the message must say.
WRONG = (
    ([], "name what to measure"),
    (["nonsense"], "'nonsense' is nothing it measures"),
    (["pin", "extra"], "'extra' is one word too many"),
    (["pin", "--speed", "1"], "there is no option '--speed'"),
    (["pin", "--seconds"], "--seconds: S is missing"),
    (["pin", "--seconds", "-1"], "'-1' is not a number of seconds from 0.001 to 3600"),
    (["pin", "--threads=0"], "'0' is not a whole number from 1 to 256"),
    (["pin", "--threads", "2x"], "'2x' is not a whole number"),
    (["scan", "--metric", "l3"], "'l3' is not one of l2|cosine|dot"),
    (["scan", "--dim", "128,"], "'128,' is not 1 to 8 whole numbers"),
    (["ingest", "--clients", "1,,2"], "'1,,2' is not 1 to 8 whole numbers"),
)

PAIRS_IN_ORDER = (
    ("ns_least", "ns"),
    ("ns", "ns_p90"),
    ("p50_us", "p99_us"),
    ("ratio_least", "ratio"),
    ("ratio", "ratio_greatest"),
    ("writes_s_least", "writes_s"),
    ("writes_s", "writes_s_greatest"),
)

failures = []


def expect(condition, message):
    if not condition:
        failures.append(message)
    return condition


def kind(value):
    """null is a number that cannot be had here: there are file systems without O_DIRECT."""
    return "number" if value is None or isinstance(value, (int, float)) else type(value).__name__


def shape(line):
    return [(key, kind(value)) for key, value in line.items()]


def read_examples(readme):
    """The lines of README.md that are JSON objects, by bench and what."""
    examples = {}
    for text in re.findall(r"^\{\"bench\".*\}$", readme.read_text(encoding="utf-8"), re.M):
        line = json.loads(text)
        examples[line["bench"], line["what"]] = line
    return examples


def check_line(text, examples, seen):
    try:
        line = json.loads(text)
    except ValueError as error:
        expect(False, f"not JSON: {text!r}: {error}")
        return
    name = (line.get("bench"), line.get("what"))
    if not expect(name in examples, f"README.md has no example of {name}"):
        return
    seen.add(name)
    expect(
        shape(line) == shape(examples[name]),
        f"{name}: printed {shape(line)}, README.md says {shape(examples[name])}",
    )
    for key, value in line.items():
        if isinstance(value, (int, float)) and key not in ("core", "load", "client_cores", "daemon_cores"):
            # The least of few passes on a busy machine may round to nothing.
            least = key.endswith("_least")
            expect(value > 0 or (least and value == 0), f"{name}: {key} is {value}")
    for low, high in PAIRS_IN_ORDER:
        if line.get(low) is not None and line.get(high) is not None:
            expect(line[low] <= line[high], f"{name}: {low} {line[low]} > {high} {line[high]}")


def run(program, arguments):
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=100, check=False
    )


def has_disk(program, folder):
    result = run(program, ["ingest", "--seconds", "0.001", "--rounds", "1", "--dir", folder])
    return "is in memory" not in result.stderr


def check_runs(program, folder, examples):
    seen = set()
    for arguments in RUNS:
        result = run(program, [*arguments, "--dir", folder])
        expect(
            result.returncode == 0,
            f"{arguments}: exit status {result.returncode}: {result.stderr}",
        )
        expect(result.stdout, f"{arguments}: printed nothing")
        for text in result.stdout.splitlines():
            check_line(text, examples, seen)
        expect(not list(pathlib.Path(folder).iterdir()), f"{arguments}: left files behind")
    for name in examples.keys() - seen:
        expect(False, f"README.md has an example of {name}, but no run printed one")


def check_usage(program):
    for arguments, message in WRONG:
        result = run(program, arguments)
        expect(result.returncode == 2, f"{arguments}: exit status {result.returncode}, not 2")
        expect(message in result.stderr, f"{arguments}: said {result.stderr!r}, not {message!r}")
        expect(not result.stdout, f"{arguments}: wrong usage printed a result")
    overview = run(program, ["--help"]).stdout
    for bench in ("pin", "scan", "ingest"):
        expect(f"  {bench} " in overview, f"--help does not name {bench}")
        help_text = run(program, [bench, "--help"])
        expect(help_text.returncode == 0, f"{bench} --help: exit status {help_text.returncode}")
        expect("--seconds S" in help_text.stdout, f"{bench} --help does not list --seconds")


def daemons_of(folder):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word.startswith(f"--dir={folder}/") for word in words):
            found.append(path.parent.name)
    return found


def check_interruption(program, folder):
    process = subprocess.Popen(
        [program, "ingest", "--seconds", "60", "--dir", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Its first note says that the instance is up and the rounds have begun.
    expect("round 1" in process.stderr.readline(), "ingest: no note about its rounds")
    expect(daemons_of(folder), "ingest runs, but no daemon serves its directory")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    expect(process.returncode == 130, f"SIGINT: exit status {process.returncode}, not 130")
    expect(not daemons_of(folder), "SIGINT left a daemon behind")
    expect(not list(pathlib.Path(folder).iterdir()), "SIGINT left files behind")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--readme", type=pathlib.Path, required=True)
    options = parser.parse_args()
    # Beside the program, where the default is too: on the disk that the build is on.
    parent = pathlib.Path(options.program).resolve().parent
    with tempfile.TemporaryDirectory(prefix="smoke.", dir=parent) as folder:
        if not has_disk(options.program, folder):
            print(f"skipped: {folder} is in memory")
            return 77
        examples = read_examples(options.readme)
        expect(examples, f"{options.readme} has no example lines")
        check_runs(options.program, folder, examples)
        check_interruption(options.program, folder)
    check_usage(options.program)
    for failure in failures:
        print(failure)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
