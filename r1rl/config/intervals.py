"""The ranges of numbers that settings accept."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A range of numbers; `above` and `below` leave the bound itself out."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def contains(self, value: float) -> bool:
        """Return whether the value is allowed."""
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        bounds = [
            ("at least", self.least),
            ("above", self.above),
            ("at most", self.most),
            ("below", self.below),
        ]
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))


COUNT = Interval(least=1)
COUNT_OR_OFF = Interval(least=0)
POSITIVE = Interval(above=0)
NOT_NEGATIVE = Interval(least=0)
SHARE = Interval(least=0, most=1)
