"""The check of a reward function's parameters against the recipe and the data, before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from r1rl.config.plugins import nearest
from r1rl.errors import RewardError
from r1rl.rewards.contract import (
    BATCH_KEYWORDS,
    EVENTS_KEYWORD,
    KEYWORDS,
    OUTCOME_KEYWORD,
    PROBLEM_COLUMNS,
    ROW_KEYWORDS,
)
from r1rl.rewards.loader import LoadedReward


@dataclass(frozen=True, slots=True)
class Inputs:
    """The source of each parameter's value."""

    from_batch: tuple[str, ...]
    """The parameters that are keywords and data columns."""
    arguments: dict[str, Any]
    """The arguments from the recipe."""
    wants_outcome: bool
    wants_events: bool


def match_signature(reward: LoadedReward, arguments: Mapping[str, Any], columns: Set[str]) -> Inputs:
    """Find a source for every parameter of the function (contract.py lists them).

    Raise `RewardError` for a parameter without a source, an argument that the function does not take, and an
    argument that would replace one of r1rl's own keywords.
    """
    parameters = _parameters(reward)
    every_column = {*columns, *PROBLEM_COLUMNS}
    takes_rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    _refuse_unknown_arguments(reward, arguments, [p.name for p in named], takes_rest)
    from_batch: list[str] = []
    for parameter in named:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise RewardError(
                f"rewards: {reward.place}: {parameter.name} stands before '/', but rewards are called by "
                f"keyword. Remove the '/'."
            )
        if parameter.name in (OUTCOME_KEYWORD, EVENTS_KEYWORD) or parameter.name in arguments:
            continue
        has_default = parameter.default is not parameter.empty
        is_setting = (
            has_default and parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in KEYWORDS
        )
        if not is_setting and (parameter.name in KEYWORDS or parameter.name in every_column):
            from_batch.append(parameter.name)
        elif not has_default:
            raise RewardError(_no_source(reward, parameter.name, every_column))
    if takes_rest:
        settings = {p.name for p in named}
        rest = (*ROW_KEYWORDS, *BATCH_KEYWORDS, *sorted(every_column - set(KEYWORDS)))
        from_batch += [name for name in rest if name not in settings and name not in arguments]
    names = {p.name for p in named}
    if not from_batch and OUTCOME_KEYWORD not in names:
        raise RewardError(
            f"rewards: {reward.place} takes nothing of the batch, so it can't tell completions apart. "
            f"Give it a parameter completions; r1rl also fills "
            f"{', '.join(name for name in KEYWORDS if name != 'completions')} and columns."
        )
    return Inputs(tuple(from_batch), dict(arguments), OUTCOME_KEYWORD in names, EVENTS_KEYWORD in names)


def _parameters(reward: LoadedReward) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(reward.function).parameters.values())
    except (TypeError, ValueError) as error:
        raise RewardError(
            f"rewards: {reward.place} has no signature that Python can read; wrap it in a def."
        ) from error


def _refuse_unknown_arguments(
    reward: LoadedReward, arguments: Mapping[str, Any], named: list[str], takes_rest: bool
) -> None:
    for name in arguments:
        if name in KEYWORDS:
            raise RewardError(
                f"rewards: {reward.name}: arguments.{name} can't be set: r1rl fills {name} with the batch's "
                f"own value."
            )
        if name not in named and not takes_rest:
            settings = [parameter for parameter in named if parameter not in KEYWORDS]
            takes = f"It takes: {', '.join(settings)}." if settings else "It takes no arguments."
            raise RewardError(
                f"rewards: {reward.place} has no parameter {name!r} for "
                f"arguments.{name}.{nearest(name, settings)} {takes}"
            )


def _no_source(reward: LoadedReward, parameter: str, columns: Set[str]) -> str:
    return (
        f"rewards: {reward.place} needs {parameter!r}, which is not a column of the data "
        f"({', '.join(sorted(columns))}), "
        f"not one of r1rl's keywords ({', '.join(KEYWORDS)}) and not set in the reward's arguments."
        f"{nearest(parameter, {*columns, *KEYWORDS})} Map a column with data.columns, set "
        f"arguments.{parameter}, or give it a default."
    )
