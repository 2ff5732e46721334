"""The names that the rewards of a recipe have in metrics, gates and `outcome`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from r1rl.config.schema import RewardConfig

OUTCOME_REWARDS = ("accuracy", "countdown", "code_execution")
"""The rewards that say whether an answer is right.

If `outcome` is null, the first of them in the recipe is its outcome.
"""


def reward_names(rewards: Sequence[RewardConfig]) -> list[str]:
    """Return the names that rewards have in metrics, gates and `outcome`.

    A name is the recipe's or the function's; the second `length` is `length_2`.
    """
    names: list[str] = []
    counts: Counter[str] = Counter()
    for reward in rewards:
        name = reward.name or reward.function.rpartition(":")[2]
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name}_{counts[name]}")
    return names
