#!/usr/bin/env python3
"""Checks that libvex offers what vex.h promises, and nothing else.

Three lists must be the same: the functions declared VEX_API in libclient/include/vex/vex.h, the
global names in libclient/libvex.map, and, with --library, the symbols that the built library
exports. The library must also need nothing but the C library, because it is loaded into other
people's programs.
"""

import fnmatch
import pathlib
import re
import subprocess
import sys

from csource import Findings, Source, argument_parser, blank

HEADER = "libclient/include/vex/vex.h"
MAP = "libclient/libvex.map"
NEEDED = ("libc.so.6", "ld-linux*.so.*")


def read_header(root, findings):
    """{name: line} of the declarations marked VEX_API."""
    source = Source(root, HEADER)
    code = re.sub(
        r"^[ \t]*#[^\n]*(?:\\\n[^\n]*)*", lambda match: blank(match[0]), source.code, flags=re.M
    )
    names = {}
    for match in re.finditer(r"\bVEX_API\b([^;]*);", code):
        declared = re.search(r"(\w+)\s*\(", match[1]) or re.search(
            r"(\w+)\s*(?:\[[^\]]*\])*\s*$", match[1]
        )
        line = source.line_of(match.start())
        if not declared[1].startswith("vex_"):
            findings.add(HEADER, line, f"{declared[1]} is public but does not begin with vex_")
        names[declared[1]] = line
    if not names:
        findings.add(HEADER, 1, "no declaration is marked VEX_API")
    return names


def read_map(root, findings):
    """{name: line} of the global names of the version script."""
    text = (root / MAP).read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/|#[^\n]*", lambda match: blank(match[0]), text, flags=re.S)
    names, section = {}, "global"
    for match in re.finditer(r"\b(global|local)\s*:|([\w*?\[\]]+)\s*;|([{}])", text):
        line = text.count("\n", 0, match.start()) + 1
        if match[1]:
            section = match[1]
        elif match[3]:
            section = "global"
        elif section == "global" and re.search(r"\}\s*\w*\s*$", text[: match.start()]) is None:
            if not re.fullmatch(r"\w+", match[2]):
                findings.add(MAP, line, f"'{match[2]}': write every exported name out")
            elif match[2] in names:
                findings.add(
                    MAP, line, f"{match[2]} is listed twice, first at line {names[match[2]]}"
                )
            names.setdefault(match[2], line)
    if not re.search(r"\blocal\s*:\s*\*\s*;", text):
        findings.add(MAP, 1, "'local: *;' is missing: without it everything else is exported too")
    return names


def tool_output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit(f"check_exports: '{command[0]}' is missing: install the package binutils")
    if done.returncode != 0:
        sys.exit(f"check_exports: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def read_library(library):
    """(exported names, needed libraries) of a shared object."""
    names = set()
    for line in tool_output("nm", "-D", "--defined-only", str(library)).splitlines():
        kind, name = line.split()[-2:]
        if kind != "A":  # the name of a version, not a symbol
            names.add(name.partition("@")[0])
    dynamic = tool_output("readelf", "-d", str(library))
    return names, re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)


def main():
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--library", dest="built", type=pathlib.Path, help="the built libvex.so"
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a library that may be needed besides libc, as the runtime of a sanitizer",
    )
    options = parser.parse_args()
    findings = Findings("check_exports")
    for path in (HEADER, MAP):
        if not (options.root / path).is_file():
            findings.add(path, 1, "missing")
    if findings.found:
        return findings.finish("")
    declared = read_header(options.root, findings)
    mapped = read_map(options.root, findings)
    for name in sorted(declared.keys() - mapped.keys()):
        findings.add(HEADER, declared[name], f"{name} is declared VEX_API but is not in {MAP}")
    for name in sorted(mapped.keys() - declared.keys()):
        findings.add(MAP, mapped[name], f"{name} is not declared VEX_API in {HEADER}")
    checked = f"{len(declared)} functions"
    if options.built:
        exported, needed = read_library(options.built)
        for name in sorted(mapped.keys() - exported):
            findings.add(
                MAP,
                mapped[name],
                f"{name} is not exported by {options.built.name}: "
                "is it defined, and defined with VEX_API?",
            )
        for name in sorted(exported - mapped.keys()):
            line = declared.get(name, 1)
            findings.add(
                HEADER if name in declared else MAP,
                line,
                f"{name} is exported by {options.built.name} but is not in {MAP}",
            )
        for name in needed:
            if not any(fnmatch.fnmatch(name, pattern) for pattern in [*NEEDED, *options.allow]):
                findings.add(
                    "libclient/CMakeLists.txt",
                    1,
                    f"{options.built.name} needs {name}; it may need only the C library",
                )
        checked += f", {options.built.name} needs {' '.join(needed) or 'nothing'}"
    return findings.finish(checked)


if __name__ == "__main__":
    sys.exit(main())
