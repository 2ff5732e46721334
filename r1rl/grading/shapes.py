"""The shapes of answers: a scalar, words, a list, tuple, set or interval, a union, a matrix, a chain of
relations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from r1rl.grading.atoms import Node
from r1rl.grading.normalize import text_key, words_key


@dataclass(frozen=True)
class Answer:
    """The base of all shapes: the normal form that they were read from."""

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
    """One expression, with the unit or sign behind it."""

    node: Node
    decimals: int | None = None
    """The number of digits behind the point of a decimal number, or None for every other expression."""
    digits: int = 0
    """The number of significant digits of such a decimal number."""
    unit: str | None = None
    percent: bool = False
    degree: bool = False


@dataclass(frozen=True)
class Group(Answer):
    """Several answers.

    `brackets` is "" for a bare list, "{}" for a set, else the two delimiters: "()", "[]", "(]", "[)".
    """

    items: tuple[Answer, ...]
    brackets: str

    @property
    def ordered(self) -> bool:
        """Return whether the order counts: it does in tuples, intervals and vectors, but not in lists and
        sets.
        """
        return self.brackets not in ("", "{}")


@dataclass(frozen=True)
class Union(Answer):
    """A union of intervals and sets."""

    parts: tuple[Answer, ...]


@dataclass(frozen=True)
class Matrix(Answer):
    """A matrix as rows of entries; `determinant` is true if vertical bars enclose it."""

    rows: tuple[tuple[Answer, ...], ...]
    determinant: bool


@dataclass(frozen=True)
class Relation(Answer):
    """A chain `sides[0] operators[0] sides[1] ...`.

    Its operators are "=", "<", "<=", "!=" and "~" (approximately); ">" is turned round.
    """

    sides: tuple[Answer, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Based(Answer):
    """A numeral with its base: `204_5`."""

    numeral: str
    base: int


@dataclass(frozen=True)
class Ratio(Answer):
    """A ratio `a : b`, or a time of day."""

    terms: tuple[Answer, ...]
