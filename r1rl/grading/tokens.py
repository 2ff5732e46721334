"""The tokens of an answer in normal form, each with the brackets around it, for the structure and the
expression parsers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from r1rl.grading.extract import closing_brace

_TOKEN = re.compile(
    r"(?P<number>(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+(?![A-Za-z\d]))?)"
    r"|(?P<command>\\(?:[A-Za-z]+|.))"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<space>\s+)"
    r"|(?P<symbol>.)",
    re.DOTALL,
)


class UnreadableError(ValueError):
    """The text is not an expression that the parser knows; another stage may still know what to do with
    it.
    """


class Token(NamedTuple):
    """One token: `kind` is number, command, word, symbol or text, and `value` is its text (a command without
    its backslash).
    """

    kind: str
    value: str
    spaced: bool
    """A flag, true if a space stood before the token."""


def tokenize(text: str) -> list[Token]:
    r"""Return the tokens of `text`; `\text{...}` is one token of kind "text".

    Raise `UnreadableError` if a text group is not closed.
    """
    tokens: list[Token] = []
    position, end, spaced = 0, len(text), False
    while position < end:
        match = _TOKEN.match(text, position)
        assert match is not None  # the last alternative matches any character
        kind, value = str(match.lastgroup), match.group()
        position = match.end()
        if kind == "space":
            spaced = True
            continue
        if kind == "command":
            value = value[1:]
            if value == "text":
                value, position = _group(text, position)
                kind = "text"
        tokens.append(Token(kind, value, spaced))
        spaced = False
    return tokens


def _group(text: str, start: int) -> tuple[str, int]:
    """Return the content of the brace group that begins at `start` or behind spaces there, and the index
    behind it.
    """
    while start < len(text) and text[start] == " ":
        start += 1
    close = closing_brace(text, start) if text[start : start + 1] == "{" else -1
    if close < 0:
        raise UnreadableError("a text command without its group")
    return text[start + 1 : close].strip(), close + 1


_OPENING = {"{": "}", "(": ")", "[": "]", "\\{": "\\}", "begin": "end"}
_BRACKET = re.compile(r"\\[{}]|\\(?:begin|end) ?\{[A-Za-z*]+\}|\\[A-Za-z]+|[(){}\[\]]")


def depths(text: str) -> list[int] | None:
    """Return for each character the number of brackets around it, or None if the brackets don't match.

    An environment counts as a bracket. A half-open interval closes "(" with "]" and "[" with ")", so round
    and square brackets may close each other.
    """
    result = [0] * len(text)
    stack: list[str] = []
    last = 0
    for match in _BRACKET.finditer(text):
        bracket = match.group()
        if len(bracket) > 1 and bracket[1].isalpha():
            if bracket[-1] != "}":
                continue
            bracket = "begin" if bracket[1] == "b" else "end"
        start, end = match.span()
        depth = len(stack)
        for i in range(last, start):
            result[i] = depth
        if bracket in _OPENING:
            stack.append(bracket)
        else:
            if not stack:
                return None
            opened = stack.pop()
            if _OPENING[opened] != bracket and not (opened in "([" and bracket in ")]"):
                return None
        for i in range(start, end):
            result[i] = depth + 1 if bracket in _OPENING else depth
        last = end
    if stack:
        return None
    for i in range(last, len(text)):
        result[i] = 0
    return result


def split_top(text: str, separator: re.Pattern[str]) -> list[str] | None:
    """Return `text` split at the matches of `separator` outside all brackets, or None if there is no such
    match.
    """
    if separator.search(text) is None:
        return None
    depth = depths(text)
    if depth is None:
        return None
    parts: list[str] = []
    start = 0
    for match in separator.finditer(text):
        if depth[match.start()] == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    if not parts:
        return None
    parts.append(text[start:].strip())
    return parts
