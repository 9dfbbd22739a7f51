"""Finds where an operator works on an _Atomic object: `x->word = 1`, `if (flag)`, `table[i]++`.

C gives such an expression sequentially consistent order without a word in the text, so check_pairs
refuses it. Telling it from `&x->word` and from a plain member of the same name takes a little of
the types: which struct has which members, what a variable points to, what a function returns. What
cannot be followed (a macro, say) is judged by the name: an error if every struct that has a member
of this name has it _Atomic.
"""

import re

from csource import blank

STRUCT_HEAD = re.compile(r"\b(?:struct|union)\b(?:\s+(\w+))?\s*\{")
RETURNS_STRUCT = re.compile(r"\bstruct\s+(\w+)\s*\*\s*(\w+)\s*\(")
ATOMIC_TYPE = re.compile(
    r"\b_Atomic\b|\batomic_(?:flag|bool|s?char|u?(?:char|short|int|long|llong)|\w+_t)\b"
)
STRUCT_TYPE = re.compile(r"\b(?:struct|union)\s+([\w.]+)\s*$")
MEMBER_ACCESS = re.compile(r"(?:->|(?<=[\w)\]])\s*\.)\s*([A-Za-z_]\w*)")
# `type`, stars, name, dimensions: the first declarator of a declaration or a parameter.
DECLARATION = re.compile(
    r"^\s*(?P<type>[A-Za-z_][\w.\s]*?)(?P<stars>[\s*](?:[\s*]|const\b|restrict\b|_Atomic\b)*)"
    r"(?P<name>\w+)\s*"
    r"(?P<dimensions>(?:\[[^\]]*\]\s*)*)$"
)
DECLARATOR = re.compile(r"^(?P<stars>[\s*]*)(?P<name>\w+)\s*(?P<dimensions>(?:\[[^\]]*\]\s*)*)$")
CAST_TO_STRUCT = re.compile(r"\s*\(\s*\(\s*(?:const\s+)?struct\s+(\w+)\s*\*")
NOT_A_TYPE = {"return", "else", "goto", "case", "sizeof", "do", "typedef"}


class Declared:
    """A member or a variable: the struct it is or leads to, and the steps to the word itself."""

    def __init__(self, type_text, stars, dimensions):
        self.is_atomic = ATOMIC_TYPE.search(type_text + stars) is not None
        # In `T *_Atomic *x` the word is one step away: only what stands behind _Atomic leads to it.
        self.steps = stars.rpartition("_Atomic")[2].count("*") + dimensions.count("[")
        struct = STRUCT_TYPE.search(type_text)
        self.struct = struct[1] if struct else None


def prepared(source):
    """The code with _Atomic(T) spelled _Atomic T and without #include lines, at equal length.

    The stars of _Atomic(T *) go: the pointer itself is the word, no step leads to it.
    """
    code = re.sub(
        r"\b_Atomic\s*\(([^()]*)\)", lambda match: re.sub(r"[()*]", " ", match[0]), source.code
    )
    return re.sub(
        r"^[ \t]*#[ \t]*include[^\n]*", lambda match: ";" + blank(match[0][1:]), code, flags=re.M
    )


def closing_brace(code, opening):
    depth = 0
    for offset in range(opening, len(code)):
        depth += {"{": 1, "}": -1}.get(code[offset], 0)
        if depth == 0:
            return offset
    return len(code)


class Types:
    """The structs of all sources, member by member, and the functions that return one of them."""

    def __init__(self, sources):
        self.members = {}  # struct -> {name -> Declared}
        self.returns = {}  # function -> struct
        for source in sources:
            code = prepared(source)
            for head in STRUCT_HEAD.finditer(code):
                if head[1]:
                    self._read_struct(
                        head[1], code[head.end() : closing_brace(code, head.end() - 1)]
                    )
            self.returns.update({name: struct for struct, name in RETURNS_STRUCT.findall(code)})
        self.by_name = {}  # name -> [Declared in each struct that has it]
        for members in self.members.values():
            for name, declared in members.items():
                self.by_name.setdefault(name, []).append(declared)

    def _read_struct(self, struct, body):
        members = self.members.setdefault(struct, {})
        while head := STRUCT_HEAD.search(body):
            end = closing_brace(body, head.end() - 1)
            inner = head[1] or f"{struct}.{len(self.members)}"
            self._read_struct(inner, body[head.end() : end])
            if re.match(r"\s*;", body[end + 1 :]):
                members.update(self.members[inner])  # anonymous: its members are ours
            body = f"{body[: head.start()]}struct {inner} {body[end + 1 :]}"
        for declaration in body.split(";"):
            first, *others = declaration.split(",")
            match = DECLARATION.match(first)
            if match is None:
                continue
            for declarator in [match] + [DECLARATOR.match(other) for other in others]:
                if declarator:
                    members[declarator["name"]] = Declared(
                        match["type"], declarator["stars"], declarator["dimensions"]
                    )


class Variables:
    """The declarations of variables and parameters in one file, in order."""

    def __init__(self, code):
        self.code = code
        self.known = {}

    def declarations(self, name):
        """[(offset of the name, Declared)] in the order of the text."""
        if name not in self.known:
            found = []
            for match in re.finditer(rf"\b{name}\b\s*(?:\[[^\]]*\]\s*)*(?=[;,)=:])", self.code):
                start = max(self.code.rfind(letter, 0, match.start()) for letter in ";{}(,") + 1
                declaration = DECLARATION.match(self.code[start : match.end()])
                if declaration and not NOT_A_TYPE & set(declaration["type"].split()):
                    found.append(
                        (
                            match.start(),
                            Declared(
                                declaration["type"], declaration["stars"], declaration["dimensions"]
                            ),
                        )
                    )
            self.known[name] = found
        return self.known[name]

    def at(self, name, offset):
        """The nearest declaration above `offset`."""
        above = [declared for where, declared in self.declarations(name) if where < offset]
        return above[-1] if above else None


def opening_bracket(code, closing):
    depth = 0
    for offset in range(closing, -1, -1):
        depth += {")": 1, "]": 1, "(": -1, "[": -1}.get(code[offset], 0)
        if depth == 0:
            return offset
    return 0


def chain_before(code, end):
    """Reads `f(x)->a[i].b` backwards from `end`: (start, [(name, kind), ...]), or None."""
    chain = []
    while True:
        kind = "name"
        last = len(code[:end].rstrip()) - 1
        while last >= 0 and code[last] in ")]":
            if code[last] == ")":
                kind = "call"
            last = len(code[: opening_bracket(code, last)].rstrip()) - 1
        word = re.search(r"\w+$", code[max(0, last - 80) : last + 1])
        if word is None and kind == "call":
            # Not a call but a parenthesis: a cast says what it leads to.
            cast = CAST_TO_STRUCT.match(code, last + 1)
            return cast and (last + 1, [(cast[1], "cast"), *chain])
        if word is None:
            return None
        chain.insert(0, (word[0], kind))
        start = last + 1 - len(word[0])
        before = code[:start].rstrip()
        if not before.endswith(("->", ".")):
            return start, chain
        end = len(before) - (2 if before.endswith("->") else 1)


def resolve(types, variables, start, chain, name):
    """The member that `name` means after this chain; None if a type on the way is not known."""
    root, kind = chain[0]
    if kind == "cast":
        struct = root
    elif kind == "call":
        struct = types.returns.get(root)
    else:
        declared = variables.at(root, start)
        struct = declared and declared.struct
    for link, _ in chain[1:]:
        member = types.members.get(struct, {}).get(link)
        struct = member and member.struct
    return types.members.get(struct, {}).get(name)


def is_the_word(code, start, end, steps):
    """Whether code[start:end] reaches the atomic word, and not only its address is used."""
    after, before = code[end:].lstrip(), code[:start].rstrip()
    while after.startswith(")") and re.search(r"(?:^|[^\w)\]\s])\s*\($", before):
        after, before = after[1:].lstrip(), before[:-1].rstrip()
    while after.startswith("["):
        depth = 0
        for offset, letter in enumerate(after):
            depth += {"[": 1, "]": -1}.get(letter, 0)
            if depth == 0:
                break
        after = after[offset + 1 :].lstrip()
        steps -= 1
    stars = re.search(r"(?:^|[^\w)\]\s*]|\breturn)\s*(\*+)$", before)
    if stars:
        steps -= len(stars[1])
        before = before[: stars.start(1)].rstrip()
    if steps > 0:
        return False
    if re.search(r"(?:^|[^&\w)\]\s]|\breturn)\s*&$", before):
        return False
    return not is_unevaluated(before)


def is_unevaluated(before):
    """Whether what follows is not evaluated: sizeof x->word, offsetof(s, a.b) and the like."""
    unevaluated = re.compile(r"\b(?:sizeof|offsetof|_Alignof|typeof|__typeof__)\s*$")
    if unevaluated.search(before):
        return True
    closed = 0
    for offset in range(len(before) - 1, -1, -1):
        letter = before[offset]
        if letter in ";{}":
            return False
        if letter == ")":
            closed += 1
        elif letter == "(" and closed > 0:
            closed -= 1
        elif letter == "(" and unevaluated.search(before[:offset]):
            return True
    return False


def atomic_operands(source, types):
    """Yields (line, name) of every use of an _Atomic object by an operator."""
    code = prepared(source)
    variables = Variables(code)
    for match in MEMBER_ACCESS.finditer(code):
        candidates = types.by_name.get(match[1], ())
        if not any(declared.is_atomic for declared in candidates):
            continue
        start, chain = chain_before(code, match.start()) or (match.start(), None)
        member = resolve(types, variables, start, chain, match[1]) if chain else None
        if member is None:
            if not all(declared.is_atomic for declared in candidates):
                continue
            member = candidates[0]
        if member.is_atomic and is_the_word(code, start, match.end(), member.steps):
            yield source.line_of(match.start(1)), match[1]
    names = set(
        re.findall(
            r"(?:\b_Atomic\b|\batomic_\w+\b)[\w\s]*?[\s*]+(\w+)\s*(?:\[[^\]]*\]\s*)*[;=,)]", code
        )
    )
    for name in names:
        own = {where for where, _ in variables.declarations(name)}
        for match in re.finditer(rf"\b{name}\b", code):
            if match.start() in own or code[: match.start()].rstrip().endswith(("->", ".")):
                continue
            declared = variables.at(name, match.start())
            if declared and declared.is_atomic and is_the_word(code, *match.span(), declared.steps):
                yield source.line_of(match.start()), name
