"""Rewards: find the functions that a recipe names, check their signatures, run them, weigh and gate their
results.

The built-in rewards, which are the files of the folder rewards/, can be imported from here:

    from r1rl.rewards import accuracy, format
    accuracy(completions=["<answer> 4 </answer>"], answer=["4"])    # [1.0]
"""

from __future__ import annotations

from r1rl.rewards.contract import RewardFunction, RewardResult
from r1rl.rewards.direct import built_in_reward
from r1rl.rewards.loader import built_in_names, nearest
from r1rl.rewards.runner import RewardSet

# Without the built-in rewards: `import *` must not replace Python's own `format`.
__all__ = ["RewardFunction", "RewardResult", "RewardSet"]


def __getattr__(name: str) -> RewardFunction:
    """Return the built-in reward of this name. Raises AttributeError, with the nearest name, for others."""
    fault = f"module {__name__!r} has no attribute {name!r}."
    if name.startswith("_"):
        raise AttributeError(fault, name=name)
    known = built_in_names()
    if name not in known:
        raise AttributeError(f"{fault}{nearest(name, known)} Built in: {', '.join(known)}.", name=name)
    return built_in_reward(name)


def __dir__() -> list[str]:
    """Return what dir() shows: the names of this module and the built-in rewards."""
    return sorted({*globals(), *built_in_names()})
