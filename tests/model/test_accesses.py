#!/usr/bin/env python3
"""Compares the accesses of the model with those of the sources, and that the comparison bites.

The model prints its table (protocol --accesses); the sources are read as scripts/check_pairs.py reads them.
Function by function, the ordered accesses must be the same, in the same order, with the same pair, kind
and order; in shm/ that includes relaxed stores and read-modify-writes of functions that the model has. The
pairs of the READMEs must be those of the model. Functions that the scenarios say they stand for must exist.

Then each of these is broken in a copy of the text, and the comparison must notice.

Exit status: 0 all is well, 1 not.
"""

import argparse
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FOLDERS = ("shm", "libclient")
TABLES = ("shm/README.md", "libclient/README.md")
FUNCTION = re.compile(
    r"^(?![\s#/}]|struct\s+\w+\s*\{)[^;{}=]*?\b(\w+)\s*\([^;{}]*\)\s*\{", re.M
)
NAMED = re.compile(r"\bvex_[a-z0-9_]+\b")


class Tree:
    """The sources, some of them replaced by other text."""

    def __init__(self, root, replaced=None):
        self.root = root
        self.replaced = replaced or {}

    def text(self, path):
        return self.replaced.get(path, (self.root / path).read_text(encoding="utf-8"))


def functions_of(code):
    """[(offset of the body, name)] in the order of the source."""
    return [(match.end(), match[1]) for match in FUNCTION.finditer(code)]


def accesses_of(tree, gate):
    """{(file, function): [(pair, kind, order)]} of what is ordered, or relaxed and changes something."""
    found = {}
    for path in gate.files_below(tree.root, FOLDERS, (".c", ".h")):
        source = gate.Source(tree.root, path)
        if path in tree.replaced:
            source = gate.Source.__new__(gate.Source)
            source.path, source.text = path, tree.replaced[path]
            source.line_starts = [0] + [m.end() for m in re.finditer("\n", source.text)]
            source.comments = []
            source.code = gate.LEXEME.sub(source._blank_lexeme, source.text)
        findings = gate.Findings("accesses")
        accesses = gate.read_accesses(source, findings)
        gate.check_comments(source, accesses, findings)
        starts = [(source.line_of(offset), name) for offset, name in functions_of(source.code)]
        for access in accesses:
            function = [name for line, name in starts if line <= access.first_line][-1]
            order = access.orders[0]
            if order == "relaxed" and (access.kind == "load" or not path.startswith("shm/")):
                continue
            pairs = "+".join(sorted(access.pairs)) or "-"
            found.setdefault((path, function), []).append((pairs, access.kind, order))
    return found


def table_of(model):
    done = subprocess.run([model, "--accesses"], capture_output=True, text=True, check=True)
    table = {}
    for line in done.stdout.splitlines():
        path, function, *rest = line.split("\t")
        table.setdefault((path, function), []).append(tuple(rest))
    return table


def compare(tree, table, gate):
    faults = []
    found = accesses_of(tree, gate)
    for key in sorted(set(found) | set(table)):
        theirs, ours = found.get(key, []), table.get(key, [])
        if key not in table and all(order == "relaxed" for _, _, order in theirs):
            continue
        if theirs != ours:
            faults.append(f"{key[0]}: {key[1]}: the source has {theirs}, the model {ours}")
    rows = set()
    for path in TABLES:
        rows |= set(re.findall(r"^\| ([A-Z][A-Z0-9_]+) \|", tree.text(path), re.M))
    pairs = {pair for accesses in table.values() for pair, _, _ in accesses} - {"-"}
    for pair in sorted(rows ^ pairs):
        faults.append(f"pair {pair} is {'not in the model' if pair in rows else 'in no README'}")
    return faults


def check_names(tree, gate):
    """Every vex_ function that a scenario mentions."""
    known = set()
    for path in gate.files_below(tree.root, ("shm", "libclient", "daemon"), (".c", ".h")):
        known |= {name for _, name in functions_of(gate.Source(tree.root, path).code)}
    faults = []
    for path in sorted(HERE.glob("scenario_*.c")):
        for name in sorted(set(NAMED.findall(path.read_text(encoding="utf-8"))) - known):
            faults.append(f"{path.name} stands for {name}, which is not there")
    return faults


# Each must be noticed: file, text, what it becomes.
BREAKS = [
    ("shm/pin.h", "(&slot->pinned, 0, memory_order_acq_rel)", "(&slot->pinned, 0, memory_order_release)"),
    ("shm/pin.h", "atomic_exchange_explicit(&slot->pinned, current,", "atomic_store_explicit(&slot->pinned, current,"),
    ("shm/pin.c", "pairs: REVOKED", "pairs: PIN"),
    ("shm/pin.c", "(void)atomic_fetch_or_explicit(&page->slots[i].pinned, 0, memory_order_acq_rel);", ""),
    ("shm/control.c", "(&control->current, generation, memory_order_seq_cst)", "(&control->current, generation, memory_order_release)"),
    ("shm/control.c", "(&cell->sequence, 0, memory_order_relaxed)", "(&cell->sequence, 0, memory_order_release)"),
    ("shm/control.c", "&cell->tail_rows, state->tail_rows, memory_order_release", "&cell->tail_rows, state->tail_rows, memory_order_relaxed"),
    ("libclient/view.c", "static struct view_cache *cache_of(", "static struct view_cache *cache_at("),
    ("shm/README.md", "| WAKE |", "| WOKEN |"),
]


def check_breaks(root, table, gate):
    faults = []
    for path, old, new in BREAKS:
        text = (root / path).read_text(encoding="utf-8")
        if old not in text:
            faults.append(f"{path} has no longer: {old}")
        elif not compare(Tree(root, {path: text.replace(old, new, 1)}), table, gate):
            faults.append(f"{path}: not noticed: {old} -> {new}")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=HERE.parent.parent)
    parser.add_argument("--model", required=True, help="the program `protocol`")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    sys.path.insert(0, str(root / "scripts"))
    import check_pairs as gate  # noqa: E402  (where it is follows from --root)
    import csource

    gate.LEXEME = csource.LEXEME
    table = table_of(arguments.model)
    tree = Tree(root)
    faults = compare(tree, table, gate) + check_names(tree, gate)
    faults = faults or check_breaks(root, table, gate)
    for fault in faults:
        print(fault)
    count = sum(len(accesses) for accesses in table.values())
    print(f"{count} accesses in {len(table)} functions, {len(BREAKS)} breaks, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
