"""The names that the rewards of a recipe have in metrics, gates and `outcome`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from r1rl.config.schema import RewardConfig

OUTCOME_REWARDS = ("accuracy", "countdown", "code_execution")
"""Rewards that say whether an answer is right; the first of the recipe's is its outcome when `outcome` is
null.
"""


def reward_names(rewards: Sequence[RewardConfig]) -> list[str]:
    """Return the names that rewards have in metrics, gates and `outcome`: the recipe's or the function's; the
    second `length` is `length_2`.
    """
    names: list[str] = []
    counts: Counter[str] = Counter()
    for reward in rewards:
        name = reward.name or reward.function.rpartition(":")[2]
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name}_{counts[name]}")
    return names
