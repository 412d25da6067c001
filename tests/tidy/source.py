"""Reads C++ just well enough to measure it: no comments, no strings, braces that match."""

import re
from dataclasses import dataclass

_RAW_STRING = re.compile(r'(?:u8|[uUL])?R"([^()\\\s]{0,16})\(')
_CONTAINER = re.compile(
    r"^(inline\s+)?namespace\b|^extern$|^(typedef\s+)?(class|struct|union|enum)\b")


@dataclass
class Function:
    name: str
    first_line: int  # Of the signature, counted from 1.
    last_line: int

    @property
    def lines(self):
        return self.last_line - self.first_line + 1


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


def _quoted_end(text, start):
    """The position after the string or character literal that opens at `start`."""
    quote, i = text[start], start + 1
    while i < len(text) and text[i] != quote and text[i] != "\n":
        i += 2 if text[i] == "\\" else 1
    return min(i + 1, len(text))


def _is_digit_separator(text, i):
    return i > 0 and (text[i - 1].isalnum()) and i + 1 < len(text) and text[i + 1].isalnum() \
        and re.search(r"(?<![\w])[0-9][\w']*$", text[max(0, i - 32):i]) is not None


def strip(text):
    """`text` with comments and the contents of literals blanked; every line keeps its place."""
    out, i = [], 0
    while i < len(text):
        raw = _RAW_STRING.match(text, i) if text[i] in 'uULR' else None
        if raw and (i == 0 or not (text[i - 1].isalnum() or text[i - 1] == "_")):
            end = text.find(")" + raw.group(1) + '"', raw.end())
            end = len(text) if end < 0 else end + len(raw.group(1)) + 2
            out.append('""' + _blank(text[i + 2:end]))
        elif text.startswith("//", i):
            end = text.find("\n", i)
            end = len(text) if end < 0 else end
            out.append(_blank(text[i:end]))
        elif text.startswith("/*", i):
            end = text.find("*/", i + 2)
            end = len(text) if end < 0 else end + 2
            out.append(_blank(text[i:end]))
        elif text[i] == '"' or (text[i] == "'" and not _is_digit_separator(text, i)):
            end = _quoted_end(text, i)
            out.append(text[i] + _blank(text[i + 1:end - 1]) + text[end - 1:end])
        else:
            end = i + 1
            out.append(text[i])
        i = end
    return "".join(out)


def includes(text):
    """(line number, path) of every #include; commented ones are not includes."""
    found = []
    code = strip_comments_only(text)
    for number, line in enumerate(code.split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
        if match:
            found.append((number, match.group(1)))
    return found


def strip_comments_only(text):
    """Like strip, but strings stay: an include's path is one."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
    return pattern.sub(lambda m: m.group(0) if m.group(0)[0] == '"' else _blank(m.group(0)), text)


def _without_preprocessor(code):
    return re.sub(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", lambda m: _blank(m.group(0)), code, flags=re.M)


def _without_template_head(header):
    while header.startswith("template"):
        depth, i = 0, header.find("<")
        if i < 0:
            return header
        while i < len(header):
            depth += {"<": 1, ">": -1}.get(header[i], 0)
            i += 1
            if depth == 0:
                break
        header = header[i:].strip()
    return header


def _without_groups(header):
    """The header without what stands in parentheses and brackets: no default arguments."""
    while True:
        shorter = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", header)
        if shorter == header:
            return header
        header = shorter


def _kind(header):
    """'container' (namespace, class), 'value' (a braced initialiser) or 'function'."""
    header = _without_template_head(" ".join(header.split()))
    header = re.sub(r"\boperator\s*[^\s\w(]+", "operator_", header)
    is_lambda = re.search(r"=\s*\[[^\]]*\]\s*[({]?", header) is not None
    bare = _without_groups(header).strip().replace('"', "").strip()
    if _CONTAINER.match(bare) and not re.search(r"\)\s*(const|noexcept|override)?$", header):
        return "container"
    if "=" in bare and not is_lambda:
        return "value"
    return "function"


def _name(header):
    header = _without_template_head(" ".join(header.split()))
    match = re.search(r"((?:\w+::)*~?\w+|operator\s*\S+?)\s*\(", header)
    return match.group(1) if match else "(unnamed)"


def functions(text):
    """Every function with a body, lambdas and local classes counted inside their function."""
    code = _without_preprocessor(strip(text))
    found, stack = [], []  # stack of (kind, header, header's position)
    start = 0  # Where the text before the next brace begins.
    inside = 0  # How many open braces are functions or lie within one.
    parens = 0
    for i, c in enumerate(code):
        if c in "()":
            parens += 1 if c == "(" else -1
        elif c == "{":
            header = code[start:i]
            kind = "argument" if parens > 0 else "nested" if inside else _kind(header)
            stack.append((kind, header, start + len(header) - len(header.lstrip()), parens))
            parens = 0
            inside += kind != "container"
            start = i + 1
        elif c == "}" and stack:
            kind, header, position, parens = stack.pop()
            inside -= kind != "container"
            if kind == "function":
                first = code.count("\n", 0, position) + 1
                found.append(Function(_name(header), first, code.count("\n", 0, i) + 1))
            # A braced default argument is part of the signature that it stands in.
            start = position if kind == "argument" else i + 1
        elif c == ";" and parens == 0:
            start = i + 1
        elif c == ":" and re.search(r"\b(public|private|protected)\s*$", code[max(0, i - 16):i]):
            start = i + 1
    return found
