"""The expected cost of a recipe, as `r1rl pipeline` shows it: optimizer steps, completions and tokens at
most.
"""

from __future__ import annotations

from dataclasses import dataclass

UNITS = ((10**9, "B"), (10**6, "M"), (10**3, "k"))


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one run of a recipe. A number is None where it is not known before the data is read."""

    steps: int | None = None
    """Optimizer steps, or rollouts where a step is one."""
    completions: int | None = None
    """Completions that are sampled."""
    tokens: int | None = None
    """Tokens that are sampled or trained on, at most."""

    def __str__(self) -> str:
        parts = [f"{self.steps:,} steps"] if self.steps is not None else []
        parts += [f"{short(self.completions)} completions"] if self.completions is not None else []
        parts += [f"at most {short(self.tokens)} tokens"] if self.tokens is not None else []
        return ", ".join(parts) or "depends on the data"


def short(number: int) -> str:
    """Return a number with few digits: 15,360 becomes "15k"."""
    for size, unit in UNITS:
        if number >= 10 * size:
            return f"{number / size:.0f}{unit}"
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
