"""Gates: a reward that applies only where other rewards of the recipe lie in a range.

    rewards:
      - {function: accuracy}
      - {function: format, weight: 0.2}
      # punish length only if wrong
      - {function: soft_overlong, when: {accuracy: 0}}
      # counts only with some structure
      - {function: language_consistency, weight: 0.1, when: {format: {min: 0.5}}}

A number asks for that value, a mapping for a range (`min`, `max`, both inclusive); all conditions must hold.
A gate looks at the other reward's own value, before its weight. A value of None closes the gate. A gated
reward is not computed for rows whose gate is closed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1rl.config.plugins import nearest
from r1rl.errors import RewardError

TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition that another reward's value lies in [low, high]."""

    reward: str
    low: float
    high: float

    def holds(self, value: float | None) -> bool:
        """Return False if the value is outside the range or unknown (None)."""
        return value is not None and self.low - TOLERANCE <= value <= self.high + TOLERANCE


def parse_gate(owner: str, when: Mapping[str, Any], names: Sequence[str]) -> list[Condition]:
    """Return the conditions of one reward's `when`; `names` are the rewards of the recipe.

    Raise `RewardError` for a bad one.
    """
    conditions = []
    for reward, wanted in when.items():
        if reward not in names:
            raise RewardError(
                f"rewards: {owner}: when.{reward}: this recipe has no such "
                f"reward.{nearest(str(reward), names)} "
                f"It has: {', '.join(names)}."
            )
        conditions.append(Condition(reward, *_range(f"rewards: {owner}: when.{reward}", wanted)))
    return conditions


def order_by_dependency(needs: Mapping[str, set[str]]) -> list[list[str]]:
    """Return layers of rewards, each of which needs only rewards of earlier layers.

    Raise `RewardError` for a circle.
    """
    layers: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(needs):
        layer = [name for name, others in needs.items() if name not in placed and others <= placed]
        if not layer:
            circle = [name for name in needs if name not in placed]
            raise RewardError(
                f"rewards: these rewards wait for each other: {', '.join(circle)}. Remove a `when` or an "
                f"`outcome`."
            )
        layers.append(layer)
        placed.update(layer)
    return layers


def open_rows(
    conditions: Sequence[Condition], values: Mapping[str, Sequence[float | None]], num_rows: int
) -> list[int]:
    """Return the rows in which every condition holds."""
    return [row for row in range(num_rows) if all(c.holds(values[c.reward][row]) for c in conditions)]


def _range(where: str, wanted: object) -> tuple[float, float]:
    if _is_number(wanted):
        return float(wanted), float(wanted)  # type: ignore[arg-type]
    if (
        isinstance(wanted, Mapping)
        and wanted
        and set(wanted) <= {"min", "max"}
        and all(map(_is_number, wanted.values()))
    ):
        low, high = float(wanted.get("min", -math.inf)), float(wanted.get("max", math.inf))
        if low <= high:
            return low, high
        raise RewardError(f"{where}: min {low:g} is above max {high:g}, so the gate would never open.")
    raise RewardError(f"{where} must be a number or {{min: ..., max: ...}}, not {wanted!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)
