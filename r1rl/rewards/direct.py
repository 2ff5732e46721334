"""Built-in rewards for a caller in Python. Within a run the recipe's check sees to the arguments; here each
call does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1rl.errors import RewardError
from r1rl.rewards.contract import BATCH_KEYWORDS, RewardFunction
from r1rl.rewards.loader import load_reward, nearest


def built_in_reward(name: str) -> RewardFunction:
    """Return the built-in reward of this name, which raises a RewardError for arguments that can't be scored.

    As long as its file stays the same, so does the function. Raises RewardError if there is no such reward.
    """
    return _with_checks(load_reward(name, Path.cwd()).function)


@functools.lru_cache
def _with_checks(function: RewardFunction) -> RewardFunction:
    """Return the function with a look at its arguments before each call."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise RewardError(_unfitting(function.__name__, signature, kwargs, error)) from None
        _check_rows(signature, given, function.__name__)
        return function(*args, **kwargs)

    return checked


def _check_rows(signature: inspect.Signature, given: Mapping[str, Any], reward: str) -> None:
    """Raise RewardError where a parameter with one value per completion got no list, and for lists of
    different lengths.

    By the rewards' contract these parameters stand before `*` and are not the same for the whole batch. One
    with a default may also be a single value for all rows.
    """
    lengths: dict[str, int] = {}
    for name, values in given.items():
        parameter = signature.parameters[name]
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or name in BATCH_KEYWORDS:
            continue
        if isinstance(values, (list, tuple)):
            lengths[name] = len(values)
        elif parameter.default is parameter.empty:
            raise RewardError(
                f"rewards: {reward}: {name} must be a list with one value per completion, not a "
                f"{type(values).__name__}: write {name}=[...]."
            )
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise RewardError(f"rewards: {reward}: one value per completion is needed, but there are {found}.")


def _unfitting(reward: str, signature: inspect.Signature, given: Mapping[str, Any], error: TypeError) -> str:
    """Return the sentence for arguments that the function does not take, or that it lacks."""
    parameters = signature.parameters
    needed = [name for name, one in parameters.items() if one.default is one.empty]
    further = [name for name in parameters if name not in needed]
    unknown = next((name for name in given if name not in parameters), None)
    fault = str(error) if unknown is None else f"it takes no {unknown!r}"
    hint = "" if unknown is None else nearest(unknown, parameters)
    may_be_given = f", and it takes {', '.join(further)}" if further else ""
    return f"rewards: {reward}: {fault}.{hint} It needs {', '.join(needed)}{may_be_given}."
