"""The shapes of answers: a scalar, words, a list, tuple, set or interval, a union, a matrix, a chain of relations.

`read` turns the normal form of an answer into one of these. It never fails: what no rule reads is `Opaque`, which equals
another answer only as text or by the symbolic stage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from r1rl.grading.expression import Node, parse_tokens
from r1rl.grading.normalize import text_key, words_key
from r1rl.grading.tokens import Token, UnreadableError, depths, split_top, tokenize
from r1rl.grading.units import split_degree, split_percent, split_unit, strip_lead

MAX_ITEMS = 200


@dataclass(frozen=True)
class Answer:
    """What all shapes share: the normal form that they were read from."""

    text: str

    @cached_property
    def key(self) -> str:
        """The key for comparison as text."""
        return text_key(self.text)


@dataclass(frozen=True)
class Opaque(Answer):
    """Mathematics that no other shape describes: an integral, a set-builder, a system of equations."""


@dataclass(frozen=True)
class Words(Answer):
    """Words, names and choice letters: anything without mathematics."""

    @cached_property
    def words(self) -> str:
        """The key for comparison as words."""
        return words_key(self.text.replace("\\text", ""))


@dataclass(frozen=True)
class Scalar(Answer):
    """One expression, with what stands behind it."""

    node: Node
    decimals: int | None = None
    """Digits behind the point when it was written as a decimal number; None for every other expression."""
    digits: int = 0
    """Significant digits of such a decimal number."""
    unit: str | None = None
    percent: bool = False
    degree: bool = False


@dataclass(frozen=True)
class Group(Answer):
    """Several answers. `brackets` is "" for a bare list, "{}" for a set, else the two delimiters: "()", "[]", "(]", "[)"."""

    items: tuple[Answer, ...]
    brackets: str

    @property
    def ordered(self) -> bool:
        """Lists and sets have no order, tuples, intervals and vectors do."""
        return self.brackets not in ("", "{}")


@dataclass(frozen=True)
class Union(Answer):
    """A union of intervals and sets."""

    parts: tuple[Answer, ...]


@dataclass(frozen=True)
class Matrix(Answer):
    """Rows of entries; `determinant` for vertical bars."""

    rows: tuple[tuple[Answer, ...], ...]
    determinant: bool


@dataclass(frozen=True)
class Relation(Answer):
    """A chain `sides[0] operators[0] sides[1] ...` of "=", "<", "<=", "!=", "~" (approximately); ">" is turned round."""

    sides: tuple[Answer, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Based(Answer):
    """A numeral with its base: `204_5`."""

    numeral: str
    base: int


@dataclass(frozen=True)
class Ratio(Answer):
    """`a : b`, also a time of day."""

    terms: tuple[Answer, ...]


_WORDS = re.compile(r"[A-Za-z][A-Za-z'\-\s.,!?\"()&]*")
_ONLY_TEXT = re.compile(r"\\text ?\{((?:[^{}\\]|\\.)*)\}")
_AND_OR = re.compile(r"(?:,\s*)?(?:\\text ?\{\s*(?:and|or|or else|,|;)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\lor |\\land |\\text ?\{\s*\})\s*,?")
_COMMA = re.compile(",")
_THOUSANDS_COMMA = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_SEMICOLON = re.compile(r";|\\\\")
_CUP = re.compile(r"\\cup ?|(?<=[)\]}])\s*U\s*(?=[(\[{\\])")
_RELATION = re.compile(r"<=|>=|!=|==|\\leq ?|\\geq ?|\\neq ?|\\approx ?|\\equiv ?|[=<>]")
_OPERATORS = {
    "<=": "<=", "\\leq": "<=", ">=": ">=", "\\geq": ">=", "!=": "!=", "\\neq": "!=", "==": "=", "=": "=", "<": "<", ">": ">",
    "\\approx": "~", "\\equiv": "=",
}  # fmt: skip
_FLIPPED = {">": "<", ">=": "<="}
_MEMBER = re.compile(r"^[A-Za-z](?:_\{?\w+\}?)? ?(?:\\in |\\in$)\s*")
_MATRIX = re.compile(r"^\\begin ?\{([pbvBV]?matrix|array|smallmatrix)\}(?: ?\{[lcr| ]*\})?(.*)\\end ?\{\1\}$", re.DOTALL)
_BASED = re.compile(r"^(?:\\text ?\{)?([0-9A-Fa-f.]+)\}? ?_ ?(?:(\d)|\{ ?(?:\\text ?\{)?(\d{1,2})\}?\}?)(?:\\text ?\{[a-z]+\})?$")
_DECIMAL = re.compile(r"^[-+]?(\d[\d,]*)?\.(\d+)$")
_SCIENTIFIC = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:\s*(?:\\times|\\cdot)\s*10\s*\^\s*(?:\{\s*-?\d+\s*\}|\d)|[eE][-+]?\d+)$")
_NUMBER_LIKE = re.compile(r"^[-+]?[\d.,]+$")
_THOUSANDS = re.compile(r"^[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?$")
_REALS = re.compile(r"^(?:\\mathbb ?\{?R\}?|\\text ?\{R\}|\\text ?\{all real numbers\}|all real numbers|all reals)$", re.IGNORECASE)
_SETTING = re.compile(r"^(?:\\text ?\{\s*)?(?:[a-z]+ ){0,2}solutions?(?:\s*\})? (?:is|are):?(?:\s*\})?\s*", re.IGNORECASE)
_CHOICE = re.compile(r"^(?:\\text ?\{)?\(?([A-Z])[).:](?:\})?(?:\s+|$)(.*)$")

EMPTY_SET_NAMES = frozenset(["\\emptyset", "\\{\\}", "\\{ \\}", "emptyset", "\\text{empty set}", "empty set", "the empty set"])


def read(text: str) -> Answer:
    """The shape of an answer in normal form."""
    try:
        return _read(text, 0)
    except RecursionError:  # pragma: no cover - the depth of brackets is bounded before
        return Opaque(text)


def _read(text: str, depth: int) -> Answer:
    text = text.strip()
    if depth > 12 or not text:
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
    """Plain numbers, the common case, without looking for anything else."""
    return _scalar(text) if _NUMBER_LIKE.match(text) and (text.count(",") == 0 or _THOUSANDS.match(text)) else None


def _read_words(text: str, depth: int) -> Answer | None:
    if _REALS.match(text):
        return Group(text, (_scalar_or_opaque("-\\infty"), _scalar_or_opaque("\\infty")), "()")
    if not _WORDS.fullmatch(text):
        return None
    letters = text.replace(" ", "")
    if depth and len(letters) == 1:
        return None  # a variable
    if "," in text or " and " in text or " or " in text:
        return None
    if letters.isalpha() and len(letters) > 1 and _scalar(text) is not None:
        return None
    if "(" in text and not any(len(word) > 2 for word in re.findall("[A-Za-z]+", text)):
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
    """The answers of a list, with lists inside (from "or" beside commas, from plus-minus) made part of it."""
    items: list[Answer] = []
    for part in parts:
        item = _read(part, depth + 1)
        if isinstance(item, Group) and item.brackets == "":
            items.extend(item.items)
        else:
            items.append(item)
    return tuple(items)


def _read_list(text: str, depth: int) -> Answer | None:
    """Answers with commas, semicolons, "and" or "or" between them."""
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
        if joined_by_or and all(isinstance(item, Relation) and "=" not in item.operators for item in items):
            return Union(text, items)
        return Group(text, items, "")
    return None


def _without_thousands(text: str) -> str:
    """The text with the commas inside numbers such as 1,024 taken out, as far as these stand outside of brackets."""
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
    return Union(text, tuple(items))


def _read_brackets(text: str, depth: int) -> Answer | None:
    """A tuple, set or interval when one pair of brackets holds the whole text; plain grouping brackets are taken off."""
    for opening, closing in (("(", ")"), ("(", "]"), ("[", ")"), ("[", "]"), ("\\{", "\\}"), ("{", "}"), ("]", "["), ("]", "]"), ("[", "[")):
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
    parts = split_top(inner, _SEMICOLON) or split_top(inner, re.compile(",")) or [inner.strip()]
    if len(parts) == 1 and brackets in ("()", "[]") or (brackets == "{}" and opening == "{" and len(parts) == 1):
        return _read(inner, depth + 1) if inner.strip() else None
    if len(parts) > MAX_ITEMS or not all(parts):
        return Opaque(text)
    return Group(text, _items(parts, depth) if brackets == "{}" else tuple(_read(part, depth + 1) for part in parts), brackets)


def _read_based(text: str, depth: int) -> Answer | None:
    match = _BASED.match(text)
    if match is None:
        return None
    base = int(match.group(2) or match.group(3))
    if not 2 <= base <= 36 or not any(char.isdigit() for char in match.group(1)):
        return None
    return Based(text, match.group(1).lower().lstrip("0") or "0", base)


def _read_ratio(text: str, depth: int) -> Answer | None:
    parts = split_top(text, re.compile(":"))
    if parts is None or not all(parts) or len(parts) > 6:
        return None
    terms = tuple(_read(part, depth + 1) for part in parts)
    return Ratio(text, terms) if all(isinstance(term, Scalar) for term in terms) else None


def _read_scalar(text: str, depth: int) -> Answer | None:
    return _scalar(text)


def _read_text_inside(text: str, depth: int) -> Answer | None:
    """Words wrapped in text commands between plain ones; no mathematics at all."""
    if "\\text" not in text:
        return Words(text) if text.replace(" ", "").isalpha() else None
    plain = text.replace("\\text", "").replace("{", "").replace("}", "")
    if re.fullmatch(r"[A-Za-z0-9\s.,:;'!?\-]*", plain) and re.search("[A-Za-z]", plain):
        return Words(text)
    return None


_READERS = (
    _read_number, _read_words, _read_matrix, _read_list, _read_relation, _read_union, _read_brackets, _read_based, _read_ratio,
    _read_scalar, _read_text_inside,
)  # fmt: skip


def _scalar_or_opaque(text: str) -> Answer:
    return _scalar(text) or Opaque(text)


def _scalar(text: str) -> Answer | None:
    """One expression with its unit, or the list of the two that a plus-minus sign stands for; None when it can't be read."""
    body = strip_lead(text)
    body, unit = split_unit(body)
    body, percent = split_percent(body)
    if not percent and unit == "percent":
        percent, unit = True, None
    body, degree = split_degree(body)
    if not degree and unit == "degree":
        degree, unit = True, None
    try:
        tokens = tokenize(body)
        variants = [parse_tokens(variant) for variant in _plus_minus(tokens)]
    except UnreadableError:
        return None
    if len(variants) == 2:
        return Group(text, tuple(Scalar(text, node, None, 0, unit, percent, degree) for node in variants), "")
    decimals, digits = _precision(body.strip())
    return Scalar(text, variants[0], decimals, digits, unit, percent, degree)


def _precision(body: str) -> tuple[int | None, int]:
    """Decimals and significant digits of a decimal number; (None, 0) for anything else."""
    match = _DECIMAL.match(body)
    if match:
        whole = (match.group(1) or "").replace(",", "")
        return len(match.group(2)), len((whole + match.group(2)).lstrip("0"))
    if _SCIENTIFIC.match(body):
        mantissa = re.split(r"[eE\\]", body.lstrip("+-"))[0].strip()
        return len(mantissa.partition(".")[2]), len(mantissa.replace(".", "").lstrip("0"))
    return None, 0


def _plus_minus(tokens: list[Token]) -> list[list[Token]]:
    """The token lists that a plus-minus sign stands for; all signs of one expression are taken together."""
    if not any(token.kind == "command" and token.value in ("pm", "mp") for token in tokens):
        return [tokens]
    upper, lower = {"pm": "+", "mp": "-"}, {"pm": "-", "mp": "+"}
    return [
        [Token("symbol", signs[t.value], t.spaced) if t.kind == "command" and t.value in signs else t for t in tokens]
        for signs in (upper, lower)
    ]


def choice_letter(text: str) -> str | None:
    """The letter of "B. 5", "(B) 5" or "B: 5"; None when the text does not begin like a choice."""
    match = _CHOICE.match(text)
    return match.group(1) if match else None
