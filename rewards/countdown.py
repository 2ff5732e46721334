"""The reward of Countdown: the equation in the answer block uses the given numbers, each exactly once, and
reaches the target.
"""

# ruff: noqa: RUF001 (other scripts and typography are the matter of this file)

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

from r1rl.grading.extract import answer_region, answer_tag

_MAX_CHARACTERS = 500
_TOKEN = re.compile(r"\s*(?:(\d{1,12})(?![\d.,_])|([-+*/()=]))")
_SPELLINGS = {
    "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "∕": "/", "−": "-", "–": "-",
    r"\times": "*", r"\cdot": "*", r"\div": "/", r"\left": "", r"\right": "", r"\,": " ", r"\(": "",
    r"\)": "", "$": "",
    **{chr(0xFF01 + offset): chr(0x21 + offset) for offset in range(94)},
}  # fmt: skip
"""Other spellings of the same symbols; the last line is the full-width forms of ASCII."""
_SPELLING = re.compile("|".join(map(re.escape, sorted(_SPELLINGS, key=len, reverse=True))))
_FRACTION = re.compile(r"\\d?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_BOX = re.compile(r"\s*\\boxed\s*\{(.*)\}\s*\Z", re.DOTALL)


class _Unreadable(Exception):
    """The text is no arithmetic expression of whole numbers, + - * / and parentheses."""


def countdown(
    completions: list[str],
    numbers: list[list[int]],
    target: list[int],
    prefill: str = "",
    *,
    events: Counter[str] | None = None,
) -> list[float | None]:
    """Return 1 if the last `<answer>` block after the thoughts uses exactly `numbers` and equals `target`,
    else 0.

    The rule is TinyZero's: every number once, no other number, + - * / and parentheses. Arithmetic is exact
    (8/(3-8/3) is 24). "= target" may stand on either side; LaTeX and Unicode spellings of the operators are
    read. Nothing is evaluated as Python. Rows are counted as `grading/correct`, `wrong`, `malformed` or
    `no_answer`.
    """
    events = Counter() if events is None else events
    rewards: list[float | None] = []
    for completion, given, wanted in zip(completions, numbers, target, strict=True):
        if given is None or wanted is None:
            events["grading/unparseable_gold"] += 1
            rewards.append(None)
            continue
        outcome = _grade(completion, prefill, Counter(map(int, given)), Fraction(wanted))
        events[f"grading/{outcome}"] += 1
        rewards.append(float(outcome == "correct"))
    return rewards


def _grade(completion: str, prefill: str, given: Counter[int], target: Fraction) -> str:
    region = answer_region(completion, prefill) or ""
    answer = answer_tag(region, prefill)
    if answer is None:
        return "malformed" if "<answer>" in region else "no_answer"
    try:
        tokens = _tokens(_plain(answer))
        sides = _sides(tokens, target)
        used = Counter(int(token) for token in sides if token.isdigit())
        return "correct" if used == given and _Parser(sides).value() == target else "wrong"
    except (_Unreadable, ZeroDivisionError):
        return "malformed"


def _plain(answer: str) -> str:
    """Return ASCII arithmetic from LaTeX or Unicode."""
    if len(answer) > _MAX_CHARACTERS:
        raise _Unreadable
    boxed = _BOX.match(answer)
    text = _SPELLING.sub(lambda match: _SPELLINGS[match[0]], boxed[1] if boxed else answer)
    while (expanded := _FRACTION.sub(r"((\1)/(\2))", text)) != text:
        text = expanded
    return text


def _tokens(text: str) -> list[str]:
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position, end)
        if match is None:
            raise _Unreadable
        tokens.append(match[1] or match[2])
        position = match.end()
    return tokens


def _sides(tokens: list[str], target: Fraction) -> list[str]:
    """Return the expression, without "= target" or "target ="."""
    if "=" not in tokens:
        return tokens
    at = tokens.index("=")
    left, right = tokens[:at], tokens[at + 1 :]
    for expression, result in ((left, right), (right, left)):
        if "".join(result) == str(target) and "=" not in expression:
            return expression
    raise _Unreadable


class _Parser:
    """A recursive-descent parser of three rules.

    sum     = product (+|- product)*
    product = factor (*|/ factor)*
    factor  = number | (sum) | -factor
    """

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0

    def value(self) -> Fraction:
        """Return the value of all tokens. Raise `_Unreadable` or `ZeroDivisionError`."""
        result = self._sum(depth=0)
        if self.position != len(self.tokens):
            raise _Unreadable
        return result

    def _next(self, *wanted: str) -> str | None:
        if self.position < len(self.tokens) and self.tokens[self.position] in wanted:
            self.position += 1
            return self.tokens[self.position - 1]
        return None

    def _sum(self, depth: int) -> Fraction:
        result = self._product(depth)
        while operator := self._next("+", "-"):
            right = self._product(depth)
            result = result + right if operator == "+" else result - right
        return result

    def _product(self, depth: int) -> Fraction:
        result = self._factor(depth)
        while operator := self._next("*", "/"):
            right = self._factor(depth)
            result = result * right if operator == "*" else result / right
        return result

    def _factor(self, depth: int) -> Fraction:
        if depth > 50 or self.position >= len(self.tokens):
            raise _Unreadable
        if operator := self._next("-", "+"):
            inner = self._factor(depth + 1)
            return -inner if operator == "-" else inner
        if self._next("("):
            inner = self._sum(depth + 1)
            if not self._next(")"):
                raise _Unreadable
            return inner
        token = self.tokens[self.position]
        if not token.isdigit():
            raise _Unreadable
        self.position += 1
        return Fraction(int(token))
