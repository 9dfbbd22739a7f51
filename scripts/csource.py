"""What the gates share: C files with their comments set apart, and findings with a place.

The gates read text, not a syntax tree, so that they need nothing but Python and run in a second. To
make that sound, comments and the insides of literals are blanked in `code`, at equal length: an
offset found there holds in `text` too, and no pattern can match inside a comment or a string.
"""

import argparse
import bisect
import os
import pathlib
import re
import sys

LEXEME = re.compile(
    r"""(?P<comment>//(?:[^\n\\]|\\.)*|/\*.*?(?:\*/|\Z))"""
    r"""|(?P<literal>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""",
    re.DOTALL,
)
INCLUDE = re.compile(
    r'^[ \t]*#[ \t]*include[ \t]*(?:<(?P<system>[^>\n]+)>|"(?P<own>[^"\n]+)")', re.M
)


def blank(text):
    return re.sub(r"[^\n]", " ", text)


class Comment:
    def __init__(self, text, first_line, last_line, trailing):
        self.text = text
        self.first_line = first_line
        self.last_line = last_line
        self.trailing = trailing  # there is code before it on its line


class Source:
    """One C file: `path` from the root, `text`, `code` (blanked), and `comments`."""

    def __init__(self, root, path):
        self.path = path
        self.text = (root / path).read_text(encoding="utf-8")
        self.line_starts = [0] + [match.end() for match in re.finditer("\n", self.text)]
        self.comments = []
        self.code = LEXEME.sub(self._blank_lexeme, self.text)

    def _blank_lexeme(self, match):
        found = match.group()
        if match["literal"]:
            return found[0] + blank(found[1:-1]) + found[-1]
        first = self.line_of(match.start())
        before = self.text[self.line_starts[first - 1] : match.start()]
        trailing = before.strip() != ""
        last = self.line_of(match.end() - 1)
        self.comments.append(Comment(found, first, last, trailing))
        return blank(found)

    def line_of(self, offset):
        return bisect.bisect_right(self.line_starts, offset)

    def includes(self):
        """Yields (line, header, is_system) for each #include that is not commented out."""
        for match in INCLUDE.finditer(self.text):
            hash_at = self.text.index("#", match.start())
            if self.code[hash_at] == "#":
                header = match["system"] or match["own"]
                yield self.line_of(hash_at), header, match["system"] is not None


def matching_paren(code, opening):
    """Offset of the parenthesis that closes the one at `opening`, or of the end of the code."""
    depth = 0
    for offset in range(opening, len(code)):
        if code[offset] == "(":
            depth += 1
        elif code[offset] == ")":
            depth -= 1
            if depth == 0:
                return offset
    return len(code) - 1


def files_below(root, folders, suffixes):
    """Paths from the root of the files with these suffixes, sorted, build trees left out."""
    found = []
    for folder in folders:
        for where, names, files in os.walk(root / folder):
            names[:] = [
                name
                for name in names
                if name not in (".git", "build", "__pycache__")
                and not os.path.exists(os.path.join(where, name, "CMakeCache.txt"))
            ]
            for name in files:
                if name.endswith(suffixes):
                    found.append(pathlib.Path(where, name).relative_to(root).as_posix())
    return sorted(found)


class Findings:
    """Collects what is wrong; finish() prints it, sorted by place, and gives the exit status."""

    def __init__(self, gate):
        self.gate = gate
        self.found = set()

    def add(self, path, line, message):
        self.found.add((str(path), line, message))

    def finish(self, checked):
        for path, line, message in sorted(self.found):
            print(f"{path}:{line}: {message}")
        if self.found:
            print(f"{self.gate}: {len(self.found)} findings", file=sys.stderr)
            return 1
        print(f"{self.gate}: {checked}: nothing wrong")
        return 0


def argument_parser(documentation):
    parser = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root",
        type=pathlib.Path,
        default=pathlib.Path(__file__).resolve().parent.parent,
        help="top of the tree to check (this one)",
    )
    return parser
