#!/usr/bin/env python3
"""Runs each sub-command of vexbench for a moment and compares what it prints with README.md.

The example lines in README.md are the documentation of the fields: every printed line must be a JSON
object whose keys, in their order, and kinds of values are those of the example with the same "bench"
and "what"; every example must be printed. Also checked: figures that cannot be right (not positive,
quantiles out of order), recall against true neighbours that are found here, exit codes and messages
of wrong usage, and that a run which is interrupted leaves neither a file nor a process behind.

Exit status: 0 all well, 1 not, 77 if there is no disk to write to.
"""

import argparse
import json
import operator
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "sample"
DATA = [
    *("--base", str(SAMPLE / "packages.fvecs"), "--query", str(SAMPLE / "queries.fvecs")),
    *("--metric", "cosine"),
]
SEARCH = ["search", *DATA]
EXACT = ["exact", *DATA]
CHURN = ["churn", *DATA, "--still-seconds", "0.2", "--settle-seconds", "5"]
LIVE = [
    *("live", *DATA, "--seconds", "0.3", "--rounds", "3"),
    *("--still-seconds", "0.1", "--settle-seconds", "5"),
]
SCALE = ["scale", "--dim", "24", "--latent", "6", "--queries", "40", "--effort", "10,40"]

RUNS = (
    ["pin", "--seconds", "0.02", "--threads", "2", "--rows", "100"],
    ["scan", "--seconds", "0.02", "--rows", "3000", "--dim", "40,128", "--metric", "cosine"],
    ["scan", "--seconds", "0.02", "--rows", "3000", "--metric", "dot"],
    ["ingest", "--seconds", "0.04", "--rounds", "2", "--clients", "1,3", "--batch", "50"],
    ["start", "--rows", "20000", "--rounds", "2"],
    ["start", "--rows", "20000", "--rounds", "2", "--kill"],
    [
        *("churn", "--rows", "2000", "--rounds", "2", "--batch", "70", "--readers", "2"),
        *("--quiet-seconds", "0.2", "--still-seconds", "0.2", "--settle-seconds", "5"),
    ],
    [*SEARCH, "--index", "flat", "--limit", "3000", "--k", "3"],
    [*SEARCH, "--effort", "10,50,200", "--m", "8", "--ef-construction", "50"],
    [*SEARCH, "--effort", "10,50", "--batch", "3", "--peers", "graph", "--peer-effort", "20,40"],
    [*SEARCH, "--recall", "0.9", "--isa", "scalar", "--limit", "1000"],
    [*EXACT, "--batch", "3"],
    [*CHURN, "--limit", "3000", "--turnovers", "2", "--effort", "10,40"],
    [*CHURN, "--limit", "500", "--turnovers", "1", "--index", "flat", "--batch", "70"],
    [*LIVE, "--rate", "300", "--writers", "2", "--check-every", "7"],
    [*LIVE, "--rate", "100", "--index", "flat", "--daemon-cores", "all", "--limit", "900"],
    [*SCALE, "--rows", "3000,5000"],
    [*EXACT, "--index", "hnsw", "--batch", "1", "--queries", "2", "--limit", "3001", "--k", "1"],
)
# Only where the peer was there when vexbench was built, and the lines that only these print.
PEERS = {
    "rocksdb": [[*RUNS[3], "--peers", "rocksdb"]],
    "hnswlib": [
        [*SEARCH, "--effort", "10,50", "--peer-effort", "10,20,200", "--peers", "hnswlib"],
        [*SEARCH, "--index", "flat", "--peers", "graph,hnswlib", "--isa", "scalar"],
        [*SCALE, "--rows", "3000", "--peers", "hnswlib", "--peer-effort", "10,20"],
    ],
    "faiss": [
        [*SEARCH, "--index", "flat", "--peers", "faiss", "--batch", "8"],
        [*SEARCH, "--effort", "10,50", "--m", "8", "--peers", "faiss"],
        [*EXACT, "--peers", "faiss"],
    ],
}
PEER_LINES = {
    "rocksdb": {("ingest", "peer"), ("ingest", "peer_insert"), ("ingest", "peer_batch")},
    "hnswlib": {("search", "peer"), ("scale", "peer"), ("scale", "ratio")},
    "faiss": {("search", "peer"), ("exact", "peer"), ("exact", "peer_batch")},
}

# Arguments of a run that lasts until it is interrupted, and in what state that meets it: all say so
# with a note about their first round or pass.
LONG_RUNS = (
    ["ingest", "--seconds", "60"],  # the daemon is the library's
    ["start", "--rows", "20000", "--rounds", "1000"],  # it is the program's own
    ["start", "--rows", "20000", "--rounds", "1000", "--kill"],
    ["churn", "--rows", "2000", "--rounds", "10000", "--quiet-seconds", "0.2"],  # others read
    [*SEARCH, "--passes", "1000000"],
    [*EXACT, "--passes", "1000000"],
    [*CHURN, "--turnovers", "100"],
    [*LIVE, "--rate", "1", "--seconds", "1", "--rounds", "1000"],
    [*SCALE, "--rows", "3000", "--passes", "1000000"],
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
    (["scan", "--dim", "128,"], "'128,' is not 1 to 16 whole numbers"),
    (["ingest", "--clients", "1,,2"], "'1,,2' is not 1 to 16 whole numbers"),
    (["ingest", "--peers", "all"], "'all' is not one of none|rocksdb"),
    (["search", "--index", "tree"], "'tree' is not one of flat|hnsw|ivf"),
    (["search", "--peers", "graph,graph"], "'graph,graph' is not one or more of none|hnswlib"),
    (["search", "--peers", "graph,"], "'graph,' is not one or more of none|hnswlib"),
    (["search", "--recall", "1"], "'1' is not a number from 0.01 to 0.9999"),
    (["exact", "--index", "auto"], "'auto' is not one or more of flat|hnsw|ivf"),
    (["search", "--passes", "2"], "'2' is not a whole number from 3 to"),
    (["live", "--metric", "dot"], "'dot' is not one of l2|cosine"),
    (["scale", "--rows", "5"], "'5' is not 1 to 16 whole numbers from 10 to"),
    (["start", "--kill=9"], "'9' is not wanted: it takes no value"),
)

# Arguments that fail before or after anything was started, and what the message must say.
FAILING = (
    (["search"], "give --base and --query"),
    (["exact"], "give --base and --query"),
    (["live"], "give --base and --query"),
    (["churn", *DATA[:2]], "give --query with --base"),
    (["churn", *DATA[2:4]], "--query goes with --base, which is missing"),
    ([*CHURN, "--limit", "9"], "--base: 9 rows; 10 are searched for"),
    ([*LIVE, "--rate", "5000"], "1500 would arrive in each of 3 rounds, which leaves less than 10"),
    (["scale", "--rows", "2000,1000"], "--rows: the sizes must rise: 2000,1000"),
    ([*EXACT, "--limit", "9"], "--k: 10 neighbours of 9 rows"),
    ([*SEARCH, "--effort", "20,10"], "the efforts of vexdb must rise: 20,10"),
    ([*SEARCH, "--limit", "5"], "--k: 10 neighbours of 5 rows"),
    ([*SEARCH, "--truth", str(SAMPLE / "queries.fvecs")], "the name must end in .ivecs"),
    ([*SEARCH, "--base", str(SAMPLE / "queries.txt")], "the name must end in .fvecs or .bvecs"),
)

PAIRS_IN_ORDER = (
    ("ns_least", "ns"),
    ("ns", "ns_p90"),
    ("p50_us", "p99_us"),
    ("ratio_least", "ratio"),
    ("ratio", "ratio_greatest"),
    ("writes_s_least", "writes_s"),
    ("writes_s", "writes_s_greatest"),
    ("queries_s_least", "queries_s"),
    ("queries_s", "queries_s_greatest"),
)

# What may be nothing: by itself, where the system does not count it, or because the runs are short.
MAY_BE_ZERO = {"core", "load", "client_cores", "daemon_cores", "dead_rows_fresh", "settle_s"}
MAY_BE_ZERO_OF = {
    "start": {"stop_s", "daemon_cpu_s", "replayed", "read_mib", "limit_s"}
    | {"ratio", "ratio_greatest"},
    "churn": {"dead_rows_end", "dead_rows_settled"}
    | {"dead", "twice", "unfilled", "recall_loss", "dead_rows", "effort"},
    "live": {"unrested", "missed", "graphs", "effort"},
    "scale": {"cpu_s"},
    "search": {"effort", "import_s", "build_s", "cpu_s", "lists", "beside_bytes"},
    "exact": {"tied", "wrong"},
}

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
    if name in (("exact", "single"), ("exact", "batch")):
        right = line["same"] + line["tied"] == line["queries"] and line["wrong"] == 0
        expect(right, f"{name}: wrong answers: {text}")
    for key, value in line.items():
        may_be_zero = key in MAY_BE_ZERO | MAY_BE_ZERO_OF.get(name[0], set())
        if isinstance(value, (int, float)) and not may_be_zero:
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


def has_peer(program, name, folder):
    """As far as it is found to be missing before anything is started or measured."""
    wrong = ["ingest", "--seconds", "0.001"] if name == "rocksdb" else ["search"]
    result = run(program, [*wrong, "--peers", name, "--dir", folder])
    return "was built without" not in result.stderr


def check_runs(program, folder, examples):
    seen = set()
    runs, missing = [*RUNS], set()
    for name, more in PEERS.items():
        if has_peer(program, name, folder):
            runs += more
        else:
            missing |= PEER_LINES[name]
    for arguments in runs:
        result = run(program, [*arguments, "--dir", folder])
        expect(
            result.returncode == 0,
            f"{arguments}: exit status {result.returncode}: {result.stderr}",
        )
        expect(result.stdout, f"{arguments}: printed nothing")
        for text in result.stdout.splitlines():
            check_line(text, examples, seen)
        expect(not list(pathlib.Path(folder).iterdir()), f"{arguments}: left files behind")
    for name in examples.keys() - seen - missing:
        expect(False, f"README.md has an example of {name}, but no run printed one")


def read_fvecs(path):
    data = path.read_bytes()
    (dim,) = struct.unpack_from("<i", data)
    return [row[1:] for row in struct.iter_unpack(f"<i{dim}f", data)]


def write_ivecs(path, rows):
    path.write_bytes(b"".join(struct.pack(f"<i{len(row)}i", len(row), *row) for row in rows))
    return str(path)


def check_recall(program, folder):
    """Against true neighbours that are found here: the vectors of the sample have unit length."""
    base = read_fvecs(SAMPLE / "packages.fvecs")
    queries = read_fvecs(SAMPLE / "queries.fvecs")
    truth = []
    for query in queries:
        products = [sum(map(operator.mul, query, row)) for row in base]
        truth.append(sorted(range(len(base)), key=lambda row, p=products: -p[row])[:5])
    with tempfile.TemporaryDirectory(prefix="truth.", dir=pathlib.Path(program).parent) as place:
        path = pathlib.Path(place)
        good = write_ivecs(path / "good.ivecs", truth)
        # Of each query the last one is exchanged for one that is farther away.
        bad = write_ivecs(path / "bad.ivecs", [row[:4] + [row[0] ^ 1] for row in truth])
        beyond = write_ivecs(path / "beyond.ivecs", [row[:4] + [len(base)] for row in truth])
        for index, least in (("flat", 1), ("hnsw", 0.9)):
            arguments = [*SEARCH, "--index", index, "--effort", "200", "--k", "5"]
            result = run(program, [*arguments, "--truth", good, "--dir", folder])
            lines = [json.loads(text) for text in result.stdout.splitlines()]
            recalls = [line["recall"] for line in lines if line["what"] == "search"]
            modes = [line["mode"] for line in lines if line["what"] == "search"]
            expect(len(recalls) == 1 and least <= recalls[0] <= 1, f"{index}: recall {recalls}")
            expect(modes == ["hnsw" if index == "hnsw" else "exact"], f"{index}: mode {modes}")
        for arguments, message in (
            (["--k", "5", "--truth", bad], "is it of this base and metric"),
            (["--k", "5", "--truth", beyond], "row 4000 is not among the 4000"),
            (["--truth", good], "has 8 rows of 5"),
        ):
            expect_failure(program, folder, [*SEARCH, *arguments], message)


def expect_failure(program, folder, arguments, message):
    result = run(program, [*arguments, "--dir", folder])
    expect(result.returncode == 1, f"{arguments}: exit status {result.returncode}, not 1")
    expect(message in result.stderr, f"{arguments}: said {result.stderr!r}, not {message!r}")
    expect(not list(pathlib.Path(folder).iterdir()), f"{arguments}: left files behind")


def check_usage(program):
    for arguments, message in WRONG:
        result = run(program, arguments)
        expect(result.returncode == 2, f"{arguments}: exit status {result.returncode}, not 2")
        expect(message in result.stderr, f"{arguments}: said {result.stderr!r}, not {message!r}")
        expect(not result.stdout, f"{arguments}: wrong usage printed a result")
    overview = run(program, ["--help"]).stdout
    for bench in ("pin", "scan", "ingest", "start", "churn", "search", "exact", "live", "scale"):
        expect(f"  {bench} " in overview, f"--help does not name {bench}")
    for bench in ("pin", "scan", "ingest"):
        help_text = run(program, [bench, "--help"])
        expect(help_text.returncode == 0, f"{bench} --help: exit status {help_text.returncode}")
        expect("--seconds S" in help_text.stdout, f"{bench} --help does not list --seconds")


def processes_of(folder, but=None):
    """Numbers of those that have a path in `folder` among their arguments."""
    found = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found - {but, os.getpid()}


def shared_memory_of(processes):
    """Files in /dev/shm that they map."""
    found = set()
    for process in processes:
        try:
            maps = pathlib.Path(f"/proc/{process}/maps").read_text(encoding="utf-8")
        except OSError:
            continue
        found |= set(re.findall(r"/dev/shm/vexdb-\S+", maps))
    return found


def check_interruption(program, folder, arguments):
    process = subprocess.Popen(
        [program, *arguments, "--dir", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    notes = iter(process.stderr.readline, "")
    begun = any(re.search("(round|pass) 1", note) for note in notes)
    expect(begun, f"{arguments}: no note about its rounds")
    # Somewhere in the middle; a daemon is there for most of the time.
    others, memory = set(), set()
    deadline = time.monotonic() + 20
    while not (others and memory) and process.poll() is None and time.monotonic() < deadline:
        others = processes_of(folder, process.pid)
        memory = shared_memory_of(others)
        time.sleep(0.01)
    expect(memory, f"{arguments}: no daemon serves its directory")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    code = process.returncode
    expect(code == 130, f"{arguments}: SIGINT: exit status {code}, not 130")
    expect(not processes_of(folder), f"{arguments}: SIGINT left a process behind")
    expect(not list(pathlib.Path(folder).iterdir()), f"{arguments}: SIGINT left files behind")
    left = [name for name in memory if pathlib.Path(name).exists()]
    expect(not left, f"{arguments}: SIGINT left {left} behind")


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
        check_recall(options.program, folder)
        for arguments, message in FAILING:
            expect_failure(options.program, folder, arguments, message)
        for arguments in LONG_RUNS:
            check_interruption(options.program, folder, arguments)
    check_usage(options.program)
    for failure in failures:
        print(failure)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
