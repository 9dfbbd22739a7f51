#!/usr/bin/env python3
"""Checks that no file knows more than ARCHITECTURE.md lets its folder know.

The input is the dependency block of ARCHITECTURE.md, the fenced block of lines like

    base      -> (libc, xxhash)
    shm       -> base             any words on what it is for
    tests     -> everything

so the drawing that people read is the rule that is enforced. After the arrow come folders, as long
as the words are folders; the rest, and names in parentheses, is for people.

  * "folder/x.h" must exist and belong to the file's own folder or to one that its line names.
  * <vex/x.h> belongs to the folder that holds include/vex/x.h, and counts the same.
  * A public header (in include/vex/) includes only <vex/...> and the C library.
  * x_priv.h is for its own folder (and for tests).
  * libclient/vexctl proves that the public library is enough: it includes only its own headers,
    <vex/...>, the C library and jansson; the rest of libclient does not include vexctl's headers.
  * Other libraries are known only where HOMES says.
  * Link lines in the CMake files follow the same arrows, and no targets link in a circle.
"""

import itertools
import re
import sys

from csource import Findings, Source, argument_parser, files_below

# Which folder or file may include which foreign header. Tests may include them all.
HOMES = {
    "jansson.h": ("libclient/vexctl/",),
    "jemalloc/": ("daemon/",),
    "liburing.h": ("ioengine/io_uring.c",),
    "numa.h": ("daemon/",),
    "numaif.h": ("daemon/",),
    "xxhash.h": ("base/",),
    "cmocka.h": (),
}

# What every folder may include: C17, POSIX, Linux, glibc, and what the compiler itself brings.
C_LIBRARY = set(
    """
    assert ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg
    stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar
    wctype
    aio dirent dlfcn fcntl fnmatch ftw glob grp langinfo libgen mqueue netdb poll pthread pwd regex
    sched search semaphore spawn strings syslog termios unistd utime wordexp
    alloca byteswap elf endian err error execinfo features getopt link malloc mntent obstack paths
    pty sysexits ucontext
    cpuid immintrin x86intrin arm_neon
    """.split()
)
C_LIBRARY_FOLDERS = ("arpa/", "asm/", "linux/", "net/", "netinet/", "sanitizer/", "sys/")

BLOCK_LINE = re.compile(r"^(?P<folder>\w+)\s*->\s*(?P<rest>\S.*)$")
CMAKE_COMMAND = re.compile(r"\b(\w+)\s*\(([^()]*)\)")
VEXCTL = "libclient/vexctl/"


class Rules:
    """The block: allowed[folder] is a set of folders, or None for everything."""

    def __init__(self, allowed, lines):
        self.allowed = allowed
        self.lines = lines

    def may_know(self, folder, other):
        known = self.allowed[folder]
        return folder == other or known is None or other in known

    def described(self, folder):
        known = self.allowed[folder]
        return "everything" if known is None else " ".join(sorted(known)) or "nothing of ours"


def read_rules(root, findings):
    """Finds the block and reads it; None when there is none to go by."""
    path = "ARCHITECTURE.md"
    if not (root / path).is_file():
        findings.add(path, 1, "missing: its dependency block says which folder may know which")
        return None
    block = []
    fenced = False
    for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            if fenced and block and all(BLOCK_LINE.match(text) for _, text in block):
                break
            fenced = not fenced
            block = []
        elif fenced and line.strip():
            block.append((number, line.strip()))
    else:
        findings.add(path, 1, "no fenced block of lines like 'shm -> base' found")
        return None

    allowed, lines = {}, {}
    folders = {BLOCK_LINE.match(line)["folder"] for _, line in block}
    for number, line in block:
        match = BLOCK_LINE.match(line)
        folder = match["folder"]
        if folder in allowed:
            findings.add(path, number, f"'{folder}' has two lines")
        words = re.split(r"\s{2,}", re.sub(r"\([^)]*\)", "", match["rest"]).strip())[0].split()
        names = set(itertools.takewhile(folders.__contains__, words))
        allowed[folder] = None if words[:1] == ["everything"] else names
        lines[folder] = number
    graph = {folder: names or set() for folder, names in allowed.items()}
    for circle in circles(graph):
        findings.add(path, lines[circle[0]], "the block goes in a circle: " + " -> ".join(circle))
    return Rules(allowed, lines)


def circles(graph):
    """The circles of a graph {node: nodes}, each once, as [a, b, ..., a]."""
    found, done = [], set()

    def visit(node, trail):
        if node in trail:
            found.append(trail[trail.index(node) :] + [node])
            return
        if node in done:
            return
        for target in sorted(graph.get(node, ())):
            visit(target, trail + [node])
        done.add(node)

    for node in sorted(graph):
        visit(node, [])
    return found


def is_c_library(header):
    return header.startswith(C_LIBRARY_FOLDERS) or header.removesuffix(".h") in C_LIBRARY


def check_foreign(source, line, header, findings):
    """A header that is neither ours nor the C library's."""
    if source.path.startswith("tests/"):
        return
    home = next(
        (
            name
            for name in HOMES
            if header == name or name.endswith("/") and header.startswith(name)
        ),
        None,
    )
    if home is None:
        findings.add(
            source.path,
            line,
            f"<{header}> is unknown: a new dependency needs an entry in "
            "scripts/check_layers.py and a package in scripts/install-deps",
        )
    elif not source.path.startswith(HOMES[home]) or not HOMES[home]:
        where = " and ".join(HOMES[home]) or "tests"
        findings.add(source.path, line, f"<{header}> is for {where} alone")


def check_own(root, rules, source, line, header, findings):
    """An include in quotes: always a path from the root."""
    folder = source.path.split("/")[0]
    other, _, rest = header.partition("/")
    if not rest or ".." in header.split("/"):
        findings.add(source.path, line, f'"{header}": write the path from the root of the tree')
        return
    if other not in rules.allowed or not (root / header).is_file():
        findings.add(source.path, line, f'"{header}" does not exist')
        return
    if "/include/" in header:
        public = header.partition("/include/")[2]
        findings.add(source.path, line, f'"{header}" is public: include it as <{public}>')
    if not rules.may_know(folder, other):
        findings.add(
            source.path,
            line,
            f'"{header}": {folder} must not know {other}, only '
            f"{rules.described(folder)} (ARCHITECTURE.md:{rules.lines[folder]})",
        )
    own_folder = source.path.rpartition("/")[0]
    if folder != "tests" and header.endswith("_priv.h") and header.rpartition("/")[0] != own_folder:
        findings.add(source.path, line, f'"{header}" is private to {header.rpartition("/")[0]}')
    if "/include/vex/" in source.path:
        findings.add(
            source.path, line, f'"{header}": a public header cannot use what is not installed'
        )
    if source.path.startswith(VEXCTL) != header.startswith(VEXCTL) and folder == "libclient":
        findings.add(
            source.path,
            line,
            f'"{header}": vexctl and the rest of libclient share only ' "<vex/...>",
        )


def check_includes(root, rules, source, public_owner, findings):
    folder = source.path.split("/")[0]
    for line, header, is_system in source.includes():
        if not is_system:
            check_own(root, rules, source, line, header, findings)
        elif header.startswith("vex/"):
            owner = public_owner.get(header)
            if owner is None:
                findings.add(source.path, line, f"<{header}> does not exist")
            elif not rules.may_know(folder, owner):
                findings.add(
                    source.path,
                    line,
                    f"<{header}>: {folder} must not know {owner}, only "
                    f"{rules.described(folder)} (ARCHITECTURE.md:{rules.lines[folder]})",
                )
        elif not is_c_library(header) and not source.path.endswith((".cc", ".cpp")):
            check_foreign(source, line, header, findings)


class Target:
    def __init__(self, name, path, line, folder):
        self.name, self.path, self.line, self.folder = name, path, line, folder
        self.links = []  # (name, path, line)


def read_targets(root, folders):
    """Every CMake target with the folder it lives in and what it links."""
    targets, links = {}, []
    paths = ["CMakeLists.txt"] if (root / "CMakeLists.txt").is_file() else []
    paths += [path for path in files_below(root, folders, "CMakeLists.txt")]
    for path in paths:
        text = (root / path).read_text(encoding="utf-8")
        text = re.sub(r"#[^\n]*", lambda match: " " * len(match.group()), text)
        for match in CMAKE_COMMAND.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            words = match[2].split()
            if match[1] in ("add_library", "add_executable") and words and "ALIAS" not in words:
                folder = path.rpartition("/")[0]
                # vexctl may be declared one level up: its sources say where it lives.
                for word in words[1:]:
                    if word.startswith("vexctl/"):
                        folder += "/vexctl"
                        break
                targets[words[0]] = Target(words[0], path, line, folder)
            elif match[1] == "target_link_libraries" and words:
                links += [(words[0], word, path, line) for word in words[1:]]
    for name, linked, path, line in links:
        if name in targets and linked in targets:
            targets[name].links.append((linked, path, line))
    return targets


def check_targets(root, rules, findings):
    targets = read_targets(root, sorted(rules.allowed))
    for target in targets.values():
        folder = target.folder.split("/")[0]
        for linked, path, line in target.links:
            other = targets[linked].folder.split("/")[0]
            if folder not in rules.allowed or other not in rules.allowed:
                continue  # declared at the top for everyone, as vex_options
            if not rules.may_know(folder, other):
                findings.add(
                    path,
                    line,
                    f"{target.name} links {linked}: {folder} must not know "
                    f"{other}, only {rules.described(folder)} "
                    f"(ARCHITECTURE.md:{rules.lines[folder]})",
                )
            if (
                (target.folder + "/").startswith(VEXCTL)
                and linked != "vex"
                and not (targets[linked].folder + "/").startswith(VEXCTL)
            ):
                findings.add(path, line, f"{target.name} links {linked}: vexctl links only vex")
    for circle in circles({name: [link[0] for link in t.links] for name, t in targets.items()}):
        first = targets[circle[0]]
        findings.add(first.path, first.line, "targets link in a circle: " + " -> ".join(circle))
    return len(targets)


def main():
    root = argument_parser(__doc__).parse_args().root
    findings = Findings("check_layers")
    rules = read_rules(root, findings)
    if rules is None:
        return findings.finish("")
    suffixes = (".c", ".h", ".cc", ".cpp")
    tops = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    public_owner = {}
    for top in tops:
        for path in files_below(root, [f"{top}/include/vex"], ".h"):
            public_owner["vex/" + path.partition("/include/vex/")[2]] = top
    paths = files_below(root, [top for top in tops if top != "build"], suffixes)
    for path in paths:
        if path.split("/")[0] not in rules.allowed:
            findings.add(path, 1, "its folder has no line in the block of ARCHITECTURE.md")
        else:
            check_includes(root, rules, Source(root, path), public_owner, findings)
    targets_count = check_targets(root, rules, findings)
    return findings.finish(f"{len(paths)} files and {targets_count} targets")


if __name__ == "__main__":
    sys.exit(main())
