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
    """Several answers. `brackets` is "" for a bare list, "{}" for a set, else the two delimiters: "()", "[]",
    "(]", "[)".
    """

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
    """A chain `sides[0] operators[0] sides[1] ...` of "=", "<", "<=", "!=", "~" (approximately); ">" is
    turned round.
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
    """`a : b`, also a time of day."""

    terms: tuple[Answer, ...]
