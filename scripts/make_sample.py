#!/usr/bin/env python3
"""Cuts the shipped sample out of a data set of Debian packages.

    scripts/make_sample.py DATA_DIRECTORY [OUTPUT_DIRECTORY]

The data set is a directory with base.fvecs (one vector a package), names.txt (name, section and
short description, separated by tabs, line i for row i), text_query.fvecs and text_query.txt
(queries and their words) and text_groundtruth.ivecs (the rows nearest to each query, nearest
first).

The sample keeps the nearest rows of every query, so that a search in it finds what a search in the
whole set would find, and fills up with rows drawn at random, in the order of the data set. Names
and sections are kept, descriptions are not: they are other people's sentences. The same input gives
the same bytes.
"""

import json
import pathlib
import random
import struct
import sys

ROWS = 4000
NEAREST = 20
SEED = 12
BYTES_MAX = 4_900_000
QUERIES = (
    "play chess against the computer",
    "monitor network traffic",
    "password manager for the command line",
    "news reader for rss feeds",
    "spell checker dictionary for german",
    "puzzle game for children",
    "terminal emulator",
    "full text search engine",
)


def read_vecs(path):
    """The rows of an fvecs or ivecs file, each with its dimension in front."""
    content = path.read_bytes()
    (dim,) = struct.unpack_from("<i", content)
    row_bytes = 4 + 4 * dim
    if dim <= 0 or len(content) % row_bytes:
        sys.exit(f"{path}: not a whole number of rows of dimension {dim}")
    return [content[at : at + row_bytes] for at in range(0, len(content), row_bytes)]


def choose(nearest, rows_count):
    """Row numbers of the sample, ascending."""
    chosen = set()
    for row in nearest:
        chosen.update(struct.unpack_from(f"<{NEAREST}i", row, 4))
    others = [row for row in range(rows_count) if row not in chosen]
    chosen.update(random.Random(SEED).sample(others, ROWS - len(chosen)))
    return sorted(chosen)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    source = pathlib.Path(sys.argv[1])
    target = (
        pathlib.Path(sys.argv[2])
        if len(sys.argv) == 3
        else pathlib.Path(__file__).parent / "sample"
    )
    base = read_vecs(source / "base.fvecs")
    names = (source / "names.txt").read_text(encoding="utf-8").splitlines()
    queries = read_vecs(source / "text_query.fvecs")
    words = (source / "text_query.txt").read_text(encoding="utf-8").splitlines()
    nearest = read_vecs(source / "text_groundtruth.ivecs")
    if len(names) != len(base) or not len(words) == len(queries) == len(nearest):
        sys.exit(f"{source}: the files do not have the same number of rows")

    rows = choose(nearest, len(base))
    vectors = b"".join(base[row] for row in rows)
    if len(vectors) > BYTES_MAX:
        sys.exit(f"{len(vectors)} bytes of vectors, more than {BYTES_MAX}")
    target.mkdir(parents=True, exist_ok=True)
    (target / "packages.fvecs").write_bytes(vectors)
    with open(target / "packages.jsonl", "w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            name, section, _ = names[row].split("\t", 2)
            out.write(json.dumps({"name": name, "section": section}, ensure_ascii=False) + "\n")
    (target / "queries.txt").write_text(
        "".join(f"{query}\n" for query in QUERIES), encoding="utf-8"
    )
    (target / "queries.fvecs").write_bytes(
        b"".join(queries[words.index(query)] for query in QUERIES)
    )
    print(
        f"{len(rows)} of {len(base)} packages, {len(QUERIES)} queries, {len(vectors)} bytes of vectors"
    )


if __name__ == "__main__":
    main()
