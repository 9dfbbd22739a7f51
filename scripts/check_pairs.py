#!/usr/bin/env python3
"""Checks that every ordered access to shared words names what it is paired with.

Memory ordering is only understood in pairs: a release means nothing without the acquire that sees
it. So each side carries a name, and a table in a folder's README.md says what the pair hands over:

    /* pairs: GENERATION with vex_pin */
    atomic_store_explicit(&control->current, generation, memory_order_release);

    | pair | released by | acquired by | what it carries |
    |------|-------------|-------------|-----------------|
    | GENERATION | vex_control_publish | vex_pin | every view set before |

In the sources of the folders in FOLDERS:

  * An access with acquire, release, acq_rel or seq_cst has a comment `pairs: NAME` on its lines or
    ending at most three lines above; one comment serves the accesses of one line, no more.
  * A relaxed access has, likewise, a comment `relaxed: why order does not matter`.
  * The order is always written out. Plain atomic_load() and its like, operators on _Atomic objects,
    __atomic_ and __sync_ builtins, memory_order_consume and fences are refused: a reader cannot see
    what the first ones order, and the thread sanitizer cannot see what fences order.
  * Each name has a releasing store or read-modify-write, an acquiring load or read-modify-write at
    another place, and one row in a table whose first column is headed "pair". No row is without
    code. A reference count needs one place only, because each thread meets the others there: its
    read-modify-write, which both releases and acquires, says `pairs: NAME with itself`.
"""

import re
import sys

from atomic_operators import Types, atomic_operands
from csource import Findings, Source, argument_parser, files_below, matching_paren

FOLDERS = ("shm", "index", "ioengine", "libclient", "daemon")
LINES_ABOVE = 3

ATOMIC_CALL = re.compile(r"\b((?:atomic|__atomic|__sync)_\w+)\s*\(")
OPERATION = re.compile(
    r"^atomic_(?:(?P<load>load)|(?P<store>store|flag_clear)"
    r"|(?P<rmw>exchange|compare_exchange_(?:strong|weak)|fetch_(?:add|sub|or|xor|and)"
    r"|flag_test_and_set))(?P<explicit>_explicit)?$"
)
NO_ACCESS = ("atomic_is_lock_free",)
PAIRS = re.compile(r"\b[Pp]airs:\s*([A-Z][A-Z0-9_]*)\b")
WITH_ITSELF = re.compile(PAIRS.pattern + r"\s+with\s+itself\b")
RELAXED = re.compile(r"\b[Rr]elaxed:\s*(?:\*\s*)?(\w+\W+\w+)")
ROW = re.compile(r"^\s*\|\s*`?([^|`]*?)`?\s*\|")

RELEASING = {"release", "acq_rel", "seq_cst"}
ACQUIRING = {"acquire", "acq_rel", "seq_cst"}


class Access:
    """One atomic call: which lines it spans, what it does, and the orders it names."""

    def __init__(self, source, name, first_line, last_line, kind, orders):
        self.source = source
        self.name = name
        self.first_line, self.last_line = first_line, last_line
        self.kind = kind  # load, store or rmw
        self.orders = orders
        self.pairs = set()
        self.pairs_with_itself = set()

    def releases(self):
        return self.kind != "load" and bool(RELEASING & set(self.orders[:1]))

    def acquires(self):
        # The order of a failing compare-exchange is that of a load.
        return self.kind != "store" and bool(ACQUIRING & set(self.orders))


# ---- accesses through atomic_ calls -------------------------------------------------------------


def top_level_arguments(code, opening, closing):
    arguments, depth, start = [], 0, opening + 1
    for offset in range(opening + 1, closing):
        if code[offset] in "([{":
            depth += 1
        elif code[offset] in ")]}":
            depth -= 1
        elif code[offset] == "," and depth == 0:
            arguments.append(code[start:offset].strip())
            start = offset + 1
    arguments.append(code[start:closing].strip())
    return arguments


def read_accesses(source, findings):
    accesses = []
    for match in ATOMIC_CALL.finditer(source.code):
        name = match[1]
        line = source.line_of(match.start())
        if name in NO_ACCESS:
            continue
        if name.endswith("_fence"):
            findings.add(
                source.path,
                line,
                f"{name}: order the access itself; the thread sanitizer "
                "does not understand fences",
            )
            continue
        operation = OPERATION.match(name)
        if operation is None:
            findings.add(source.path, line, f"{name}: use the C11 calls whose order is written out")
            continue
        if not operation["explicit"]:
            findings.add(source.path, line, f"{name}: use {name}_explicit and name the order")
            continue
        opening = match.end() - 1
        closing = matching_paren(source.code, opening)
        arguments = top_level_arguments(source.code, opening, closing)
        orders_count = 2 if "compare_exchange" in name else 1
        orders = [argument.removeprefix("memory_order_") for argument in arguments[-orders_count:]]
        if any(order not in RELEASING | ACQUIRING | {"relaxed"} for order in orders):
            findings.add(
                source.path,
                line,
                f"{name}: write the order out as relaxed, acquire, " "release, acq_rel or seq_cst",
            )
            continue
        kind = next(kind for kind in ("load", "store", "rmw") if operation[kind])
        accesses.append(Access(source, name, line, source.line_of(closing), kind, orders))
    return accesses


def comments_of(access, accesses, source):
    """The comments that speak for an access: on its lines, or above it with no access between."""
    others_above = [a.last_line for a in accesses if a.first_line < access.first_line]
    nearest_above = max(others_above, default=0)
    for comment in source.comments:
        if comment.first_line >= access.first_line and comment.last_line <= access.last_line:
            yield comment
        elif (
            not comment.trailing
            and comment.last_line < access.first_line
            and comment.last_line >= access.first_line - LINES_ABOVE
            and comment.first_line > nearest_above
        ):
            yield comment
        elif comment.first_line < access.first_line == comment.last_line:
            yield comment  # ends on the line of the access


def check_comments(source, accesses, findings):
    spoken = set()
    for access in accesses:
        comments = list(comments_of(access, accesses, source))
        spoken.update(comments)
        texts = [comment.text for comment in comments]
        strong = [order for order in access.orders if order != "relaxed"]
        for text in texts:
            access.pairs.update(PAIRS.findall(text))
            access.pairs_with_itself.update(WITH_ITSELF.findall(text))
        if strong and not access.pairs:
            findings.add(
                source.path,
                access.first_line,
                f"{access.name} with {strong[0]} has no comment "
                "'pairs: NAME' of its own on its lines or the three above",
            )
        if "relaxed" in access.orders and not any(RELAXED.search(text) for text in texts):
            findings.add(
                source.path,
                access.first_line,
                f"{access.name} with relaxed has no comment "
                "'relaxed: why' of its own on its lines or the three above",
            )
        if not strong:
            access.pairs.clear()
    for comment in source.comments:
        name = PAIRS.search(comment.text)
        if name and comment not in spoken:
            findings.add(
                source.path,
                comment.first_line,
                f"'pairs: {name[1]}' stands beside no ordered " "access",
            )


# ---- the tables ---------------------------------------------------------------------------------


def read_rows(root, findings):
    """{name: (path, line)} of the rows of all tables headed "pair"."""
    rows = {}
    for path in files_below(root, FOLDERS, "README.md"):
        heading = None
        for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1):
            cell = ROW.match(line)
            if cell is None:
                heading = None
                continue
            if heading is None:
                heading = cell[1].strip("* ").lower()
                continue
            if heading not in ("pair", "pairs") or re.fullmatch(r":?-+:?", cell[1]):
                continue
            if cell[1] in rows:
                first = rows[cell[1]]
                findings.add(
                    path, number, f"pair {cell[1]} has a row already, at {first[0]}:{first[1]}"
                )
            rows.setdefault(cell[1], (path, number))
    return rows


def check_names(accesses, rows, findings):
    sites = {}
    for access in accesses:
        for name in access.pairs:
            sites.setdefault(name, []).append(access)
    for name, found in sites.items():
        path, line = found[0].source.path, found[0].first_line
        releasing = [access for access in found if access.releases()]
        acquiring = [access for access in found if access.acquires()]
        if not releasing:
            findings.add(path, line, f"pair {name} has one side only: nothing releases")
        elif not acquiring:
            findings.add(path, line, f"pair {name} has one side only: nothing acquires")
        elif (
            releasing == acquiring
            and len(releasing) == 1
            and name not in releasing[0].pairs_with_itself
        ):
            findings.add(
                path,
                line,
                f"pair {name} has one place only; if that is meant, write "
                f"'pairs: {name} with itself'",
            )
        if name not in rows:
            findings.add(
                path,
                line,
                f"pair {name} has no row in a table headed 'pair' of a README.md in "
                + ", ".join(FOLDERS),
            )
    for name, (path, line) in rows.items():
        if name not in sites:
            findings.add(path, line, f"pair {name} is in the table but not in the code")
    return len(sites)


def main():
    root = argument_parser(__doc__).parse_args().root
    findings = Findings("check_pairs")
    sources = [Source(root, path) for path in files_below(root, FOLDERS, (".c", ".h"))]
    types = Types(sources)
    accesses = []
    for source in sources:
        found = read_accesses(source, findings)
        check_comments(source, found, findings)
        for line, name in atomic_operands(source, types):
            findings.add(
                source.path,
                line,
                f"'{name}' is _Atomic and used by an operator, whose order "
                "nobody sees: use an atomic_..._explicit call",
            )
        accesses += found
    names_count = check_names(accesses, read_rows(root, findings), findings)
    return findings.finish(f"{len(accesses)} accesses, {names_count} pairs")


if __name__ == "__main__":
    sys.exit(main())
