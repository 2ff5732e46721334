"""Reward functions that a caller in Python gives as objects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from r1rl.rewards.contract import RewardFunction
from r1rl.rewards.loader import LoadedReward


def function_name(function: Callable[..., Any]) -> str:
    """Return the name by which a recipe and the metrics know the function."""
    return getattr(function, "__name__", type(function).__name__)


def given_reward(function: RewardFunction) -> LoadedReward:
    """Return the function as one that a recipe's name would have been resolved to.

    Its module's own `close` is called at the end of a run, as with every reward, unless the module is the
    script or notebook that is being run.
    """
    module = sys.modules.get(getattr(function, "__module__", ""))
    own = None if module is None or module.__name__ == "__main__" else module
    return LoadedReward(function_name(function), function, None, own, built_in=False)
