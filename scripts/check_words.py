#!/usr/bin/env python3
"""Checks that the tree speaks of itself alone.

Whoever reads a file has this tree and nothing else: not the machine it was written on, not the
tracker where it was discussed. So a comment gives the reason itself and not the number of a ticket,
and a path is one that exists for the reader. The list is short on purpose; it names what has been
seen to slip in, not what could.
"""

import re
import sys

from csource import Findings, argument_parser, files_below

WORDS = (
    (
        re.compile(r"(?<![\w.})])/(?:work|root)(?=[/\s\"'`).,;:]|$)|(?<![\w.})])/home/\w"),
        "a path of one machine",
    ),
    (re.compile(r"(?<!\w)\.lib(?:rary)\b"), "a folder that is not in this tree"),
    (re.compile(r"\bsub-?agents?\b", re.I), "how the file came to be, not what it is"),
    (
        re.compile(r"\b(?:issue|ticket|bug|PR|pull request|merge request)\s*#\s*\d", re.I),
        "a number that means nothing here: give the reason itself",
    ),
    (
        re.compile(r"\b(?:TO(?:DO)|FIX(?:ME)|X{3})\b"),
        "a promise: do it, or write down what is not supported",
    ),
)


def main():
    root = argument_parser(__doc__).parse_args().root
    findings = Findings("check_words")
    checked_count = 0
    for path in files_below(root, ["."], ""):
        content = (root / path).read_bytes()
        if b"\0" in content[:4096]:
            continue  # not text
        checked_count += 1
        for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), 1):
            for pattern, why in WORDS:
                if found := pattern.search(line):
                    findings.add(path, number, f"'{found[0]}': {why}")
    return findings.finish(f"{checked_count} files")


if __name__ == "__main__":
    sys.exit(main())
