"""The reading of an answer, from its normal form to its shape (see `shapes`).

`read` never fails: a text that no rule reads becomes `Opaque`, which equals another answer only as text or by
the symbolic stage. The rules are tried in a fixed order, from the least to the most binding separator: words,
matrices, lists, relations, unions, brackets, numerals with a base, ratios, and at last one expression.
"""

from __future__ import annotations

import re

from r1rl.grading.scalars import read_scalar
from r1rl.grading.shapes import Answer, Based, Group, Matrix, Opaque, Ratio, Relation, Scalar, Union, Words
from r1rl.grading.tokens import depths, split_top

MAX_ITEMS = 200
MAX_DEPTH = 12
"""The deepest nesting of brackets, lists and relations that is read."""

_WORDS = re.compile(r"[A-Za-z][A-Za-z'\-\s.,!?\"()&]*")
_ONLY_TEXT = re.compile(r"\\text ?\{((?:[^{}\\]|\\.)*)\}")
_AND_OR = re.compile(
    r"(?:,\s*)?"
    r"(?:\\text ?\{\s*(?:and|or|or else|,|;)?\s*,?\s*\}"
    r"|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
    r"|\\l(?:or|and)(?![A-Za-z]))\s*,?"
)
_COMMA = re.compile(",")
_COLON = re.compile(":")
_THOUSANDS_COMMA = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_SEMICOLON = re.compile(r";|\\\\")
_CUP = re.compile(r"\\cup ?|(?<=[)\]}])\s*U\s*(?=[(\[{\\])")
_RELATION = re.compile(r"<=|>=|!=|==|\\leq ?|\\geq ?|\\neq ?|\\approx ?|\\equiv ?|[=<>]")
_OPERATORS = {
    "<=": "<=", "\\leq": "<=", ">=": ">=", "\\geq": ">=", "!=": "!=", "\\neq": "!=", "==": "=", "=": "=",
    "<": "<", ">": ">", "\\approx": "~", "\\equiv": "=",
}  # fmt: skip
_FLIPPED = {">": "<", ">=": "<="}
_MEMBER = re.compile(r"^[A-Za-z](?:_\{?\w+\}?)? ?\\in(?![A-Za-z])\s*")
_MATRIX = re.compile(
    r"^\\begin ?\{([pbvBV]?matrix|array|smallmatrix)\}(?: ?\{[lcr| ]*\})?(.*)\\end ?\{\1\}$", re.DOTALL
)
_BASED = re.compile(
    r"^(?:\\text ?\{)?([0-9A-Fa-f.]+)\}? ?_ ?(?:(\d)|\{ ?(?:\\text ?\{)?(\d{1,2})\}?\}?)(?:\\text "
    r"?\{[a-z]+\})?$"
)
_NUMBER_LIKE = re.compile(r"^[-+]?[\d.,]+$")
_THOUSANDS = re.compile(r"^[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?$")
_REALS = re.compile(
    r"^(?:\\mathbb ?\{?R\}?|\\text ?\{R\}|\\text ?\{all real numbers\}|all real numbers|all reals)$",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"^(?:\\text ?\{)?\(?([A-Z])[).:](?:\})?(?:\s+|$)(.*)$")

_BRACKETS = (
    ("(", ")"),
    ("(", "]"),
    ("[", ")"),
    ("[", "]"),
    ("\\{", "\\}"),
    ("{", "}"),
    ("]", "["),
    ("]", "]"),
    ("[", "["),
)
_OTHER_CHOICE = re.compile(r"\b(?:or|and|not)\b|(?<![A-Za-z\\])[A-Z](?![A-Za-z])")

EMPTY_SET_NAMES = frozenset(
    ["\\emptyset", "\\{\\}", "\\{ \\}", "emptyset", "\\text{empty set}", "empty set", "the empty set"]
)


def read(text: str) -> Answer:
    """Return the shape of an answer in normal form."""
    return _read(text, 0)


def _read(text: str, depth: int) -> Answer:
    text = text.strip()
    if depth > MAX_DEPTH or not text:
        return Opaque(text)
    if text in EMPTY_SET_NAMES:
        return Group(text, (), "{}")
    only = _ONLY_TEXT.fullmatch(text)
    if only:
        text = only.group(1).strip()
        if not text:
            return Opaque(text)
    for reader in _READERS:
        answer = reader(text, depth)
        if answer is not None:
            return answer
    return Opaque(text)


def _read_number(text: str, depth: int) -> Answer | None:
    """Read a plain number, the common case, without looking for anything else."""
    return (
        read_scalar(text)
        if _NUMBER_LIKE.match(text) and (text.count(",") == 0 or _THOUSANDS.match(text))
        else None
    )


def _read_words(text: str, depth: int) -> Answer | None:
    if _REALS.match(text):
        return Group(text, (_read("-\\infty", depth + 1), _read("\\infty", depth + 1)), "()")
    if not _WORDS.fullmatch(text):
        return None
    letters = text.replace(" ", "")
    words = re.findall("[A-Za-z]+", text)
    if (depth and len(letters) == 1) or (len(words) > 1 and max(map(len, words)) == 1):
        return None  # a variable, a difference of two
    if "," in text or " and " in text or " or " in text:
        return None
    if letters.isalpha() and len(letters) > 1 and read_scalar(text) is not None:
        return None
    if "(" in text and max(map(len, words)) < 3:
        return None
    return Words(text)


def _read_matrix(text: str, depth: int) -> Answer | None:
    wrapped = text
    if wrapped[:1] in "([" and wrapped[-1:] in ")]" and wrapped[1:].lstrip().startswith("\\begin"):
        wrapped = wrapped[1:-1].strip()
    match = _MATRIX.match(wrapped)
    if match is None or "\\begin" in match.group(2):
        return None
    rows = [row for row in re.split(r"\\\\|\\cr", match.group(2)) if row.strip() and row.strip() != "\\hline"]
    entries = tuple(tuple(_read(entry, depth + 1) for entry in row.split("&")) for row in rows)
    return Matrix(text, entries, match.group(1) in ("vmatrix", "Vmatrix"))


def _items(parts: list[str], depth: int) -> tuple[Answer, ...]:
    """Return the answers of a list, in which inner lists (from "or" beside commas, from plus-minus) are
    flattened.
    """
    items: list[Answer] = []
    for part in parts:
        item = _read(part, depth + 1)
        if isinstance(item, Group) and item.brackets == "":
            items.extend(item.items)
        else:
            items.append(item)
    return tuple(items)


def _read_list(text: str, depth: int) -> Answer | None:
    """Read answers with commas, semicolons, "and" or "or" between them."""
    for separator in (_SEMICOLON, _AND_OR, _COMMA):
        parts = split_top(_without_thousands(text) if separator is _COMMA else text, separator)
        if parts is None:
            continue
        parts = [part for part in parts if part]
        if len(parts) < 2:
            return _read(parts[0], depth + 1) if parts and parts[0] != text else None
        if len(parts) > MAX_ITEMS:
            return Opaque(text)
        joined_by_or = separator is _AND_OR
        items = _items(parts, depth)
        # "p = 5, q = 2; p = 7, q = 2" are two answers of two entries.
        if separator is _SEMICOLON and len(items) > len(parts):
            entries = [_read(part, depth + 1) for part in parts]
            if all(isinstance(entry, Group) for entry in entries):
                items = tuple(
                    Group(entry.text, entry.items, entry.brackets or "()")
                    for entry in entries
                    if isinstance(entry, Group)
                )
        if joined_by_or and all(isinstance(item, Relation) and "=" not in item.operators for item in items):
            return Union(text, items)
        return Group(text, items, "")
    return None


def _without_thousands(text: str) -> str:
    """Return the text without the commas inside numbers such as 1,024, as far as these stand outside of
    brackets.
    """
    level = depths(text) if _THOUSANDS_COMMA.search(text) else None
    if level is None:
        return text
    return _THOUSANDS_COMMA.sub(lambda m: m.group() if level[m.start()] else m.group().replace(",", ""), text)


def _read_relation(text: str, depth: int) -> Answer | None:
    member = _MEMBER.match(text)
    if member and member.end() < len(text):
        return _read(text[member.end() :], depth + 1)
    if _RELATION.search(text) is None:
        return None
    level = depths(text)
    if level is None:
        return None
    sides: list[str] = []
    operators: list[str] = []
    start = 0
    for match in _RELATION.finditer(text):
        if level[match.start()] == 0:
            sides.append(text[start : match.start()].strip())
            operators.append(_OPERATORS[match.group().strip()])
            start = match.end()
    sides.append(text[start:].strip())
    if not operators:
        return None
    if not sides[0] or not sides[-1]:
        if len(operators) == 1 and operators[0] in "=~" and (sides[0] or sides[1]):
            return _read(sides[0] or sides[1], depth + 1)
        return Opaque(text)
    if operators[0] in _FLIPPED:
        sides.reverse()
        operators = [_FLIPPED.get(operator, operator) for operator in reversed(operators)]
    if any(operator in _FLIPPED for operator in operators):
        return Opaque(text)
    return Relation(text, tuple(_read(side, depth + 1) for side in sides), tuple(operators))


def _read_union(text: str, depth: int) -> Answer | None:
    parts = split_top(text, _CUP)
    if parts is None:
        return None
    items: list[Answer] = []
    for part in parts:
        item = _read(part, depth + 1)
        items.extend(item.parts if isinstance(item, Union) else (item,))
    if all(isinstance(item, Group) and item.brackets == "{}" for item in items):
        entries = {entry.key: entry for item in items if isinstance(item, Group) for entry in item.items}
        return Group(text, tuple(entries.values()), "{}")
    return Union(text, tuple(items))


def _read_brackets(text: str, depth: int) -> Answer | None:
    """Read a tuple, set or interval if one pair of brackets holds the whole text.

    Plain grouping brackets are removed.
    """
    for opening, closing in _BRACKETS:
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            break
    else:
        return None
    inner = text[len(opening) : -len(closing)]
    level = depths(inner)
    if level is None:
        return None
    brackets = (opening + closing).replace("\\", "")
    if brackets[0] == "]" or brackets[1] == "[":  # the French way to write open ends
        if not split_top(inner, _COMMA) and not split_top(inner, _SEMICOLON):
            return None
        brackets = {"]": "(", "[": "["}[brackets[0]] + {"[": ")", "]": "]"}[brackets[1]]
    parts = split_top(inner, _SEMICOLON) or split_top(inner, _COMMA) or [inner.strip()]
    if (len(parts) == 1 and brackets in ("()", "[]")) or (
        brackets == "{}" and opening == "{" and len(parts) == 1
    ):
        inner = inner.strip()
        if depth == 0 and len(inner) == 1 and inner.isalpha():
            return Words(inner)  # (B), a choice
        return _read(inner, depth + 1) if inner else None
    if len(parts) > MAX_ITEMS or not all(parts):
        return Opaque(text)
    return Group(
        text,
        _items(parts, depth) if brackets == "{}" else tuple(_read(part, depth + 1) for part in parts),
        brackets,
    )


def _read_based(text: str, depth: int) -> Answer | None:
    match = _BASED.match(text)
    if match is None:
        return None
    base = int(match.group(2) or match.group(3))
    if not 2 <= base <= 36 or not any(char.isdigit() for char in match.group(1)):
        return None
    return Based(text, match.group(1).lower().lstrip("0") or "0", base)


def _read_ratio(text: str, depth: int) -> Answer | None:
    parts = split_top(text, _COLON)
    if parts is None or not all(parts) or len(parts) > 6:
        return None
    terms = tuple(_read(part, depth + 1) for part in parts)
    return Ratio(text, terms) if all(isinstance(term, Scalar) for term in terms) else None


def _read_scalar(text: str, depth: int) -> Answer | None:
    return read_scalar(text)


def _read_text_inside(text: str, depth: int) -> Answer | None:
    """Read words in text commands between plain words, without any mathematics."""
    if "\\text" not in text:
        return Words(text) if text.replace(" ", "").isalpha() else None
    plain = text.replace("\\text", "").replace("{", "").replace("}", "")
    if re.fullmatch(r"[A-Za-z0-9\s.,:;'!?\-]*", plain) and re.search("[A-Za-z]", plain):
        return Words(text)
    return None


_READERS = (
    _read_number, _read_words, _read_matrix, _read_list, _read_relation, _read_union, _read_brackets,
    _read_based, _read_ratio, _read_scalar, _read_text_inside,
)  # fmt: skip


def choice_letter(text: str) -> str | None:
    """Return the letter of "B. 5", "(B) 5" or "B: 5".

    Return None if the text does not begin like a choice, or if it also names another one.
    """
    match = _CHOICE.match(text)
    return match.group(1) if match and not _OTHER_CHOICE.search(match.group(2)) else None
