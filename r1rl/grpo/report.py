"""The report of a step: its metrics, its completions on disk, the completions that are shown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from r1rl.grpo.collect import Rollout, ScoredGroup
from r1rl.grpo.recipe import GRPORecipe
from r1rl.monitor import metric_names as names
from r1rl.monitor.metric_names import by_value, reward_mean
from r1rl.monitor.metrics import MetricAccumulator
from r1rl.monitor.progress import ShownCompletion
from r1rl.text.language import consistency
from r1rl.text.reflection import reflects


def step_metrics(
    recipe: GRPORecipe, rollout: Rollout, seconds: dict[str, float], accelerator: Accelerator
) -> dict[str, float]:
    """Return the metrics of the rollout and the rewards, over all processes. `seconds` are those of the
    slowest process.

    Some are also told by the values of the columns that the rewards' `where` names:
    domain/helpfulness/reward.
    """
    accumulator = MetricAccumulator()
    columns = sorted({column for reward in recipe.rewards for column in reward.where})
    for group in rollout.groups:
        _add_group(accumulator, group, recipe.algorithm.variance_tolerance)
        for column in columns:
            _add_by_value(accumulator, group, column)
    accumulator.count_all(rollout.counts.events)
    for name, spent in rollout.counts.reward_seconds.items():
        accumulator.maximum(f"rewards/{name}/seconds", spent)
    accumulator.count("tokens", rollout.counts.sampled_tokens)
    several = accelerator.num_processes > 1
    values = accumulator.collect(gather_object if several else None)
    values[names.TOKENS_PER_SECOND] = values.pop("tokens") / seconds["step"]
    if recipe.rollout.one_step_off:
        values[names.LAG] = float(rollout.lag)
    if recipe.algorithm.dynamic_sampling:
        values[names.REFILLED_GROUPS] = float(rollout.refilled)
    values.update({f"time/{phase}": spent for phase, spent in seconds.items()})
    return values


def _add_group(accumulator: MetricAccumulator, group: ScoredGroup, tolerance: float) -> None:
    """Add a group's figures."""
    totals = [total for total in group.rewards.total if total == total]
    accumulator.add_values(names.REWARD, totals)
    accumulator.add(names.REWARD_STD, statistics.stdev(totals) if len(totals) > 1 else 0.0)
    accumulator.add(names.FRAC_REWARD_ZERO_STD, float(not totals or max(totals) - min(totals) <= tolerance))
    accumulator.add_values(names.ACCURACY, group.rewards.outcome)
    for name, values in group.rewards.by_name.items():
        accumulator.add_values(reward_mean(name), values)
    accumulator.add_values(names.MEAN_LENGTH, [len(completion.token_ids) for completion in group.completions])
    accumulator.add_values(
        names.CLIPPED_RATIO, [float(completion.is_truncated) for completion in group.completions]
    )
    accumulator.add_values(
        names.REFLECTION_RATE, [float(reflects(completion.text)) for completion in group.completions]
    )
    accumulator.add_values(
        names.LANGUAGE_CONSISTENCY, [consistency(completion.text) for completion in group.completions]
    )


def _add_by_value(accumulator: MetricAccumulator, group: ScoredGroup, column: str) -> None:
    """Add the group's figures to those of the rows that have the same value in a column."""
    value = group.prompt.problem.columns.get(column)

    def add(name: str, values: Iterable[float | None]) -> None:
        accumulator.add_values(by_value(column, value, name), values)

    totals = [total for total in group.rewards.total if total == total]
    add(names.REWARD, totals)
    add(names.REWARD_STD, [statistics.stdev(totals) if len(totals) > 1 else 0.0])
    add(names.ACCURACY, group.rewards.outcome)
    add(names.MEAN_LENGTH, [len(completion.token_ids) for completion in group.completions])
    add(names.CLIPPED_RATIO, [float(completion.is_truncated) for completion in group.completions])
    add(names.LANGUAGE_CONSISTENCY, [consistency(completion.text) for completion in group.completions])
    accumulator.count(by_value(column, value, names.NUM_COMPLETIONS), len(group.completions))


def completion_rows(groups: Iterable[ScoredGroup], advantages_PG: Tensor) -> list[dict[str, Any]]:
    """Return one record per completion, for completions/step-*.jsonl."""
    return [
        {
            "slot": group.slot,
            "problem_id": group.prompt.problem.id,
            "prompt": group.prompt.text,
            "answer": group.prompt.problem.answer,
            "completion": completion.text,
            "rewards": {name: values[place] for name, values in group.rewards.by_name.items()},
            "reward": group.rewards.total[place],
            "outcome": group.rewards.outcome[place],
            "advantage": advantage,
            "finish_reason": completion.finish_reason.value,
            "num_tokens": len(completion.token_ids),
        }
        for group, advantages in zip(groups, advantages_PG.tolist(), strict=True)
        for place, (completion, advantage) in enumerate(zip(group.completions, advantages, strict=True))
    ]


def shown_completions(groups: Iterable[ScoredGroup], count: int) -> list[ShownCompletion]:
    """Return the first completion of the first groups, to be read by people."""
    return [
        ShownCompletion(
            problem=group.prompt.problem.problem,
            answer=group.prompt.problem.answer,
            text=group.prompt.prefill + group.completions[0].text,
            verdict=_verdict(group.rewards.total[0], group.rewards.outcome[0]),
            finish_reason=group.completions[0].finish_reason.value,
        )
        for group in list(groups)[:count]
    ]


def _verdict(reward: float, outcome: float | None) -> str:
    return f"reward {reward:.3f}" if outcome is None else f"reward {reward:.3f}, outcome {outcome:g}"
