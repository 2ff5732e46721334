"""The rewards of a recipe on a batch: they run beside each other, and are gated, weighted and added up."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from r1rl.config.plugins import nearest
from r1rl.config.reward_names import OUTCOME_REWARDS, reward_names
from r1rl.config.schema import RewardConfig
from r1rl.data.columns import keeps
from r1rl.errors import RewardError
from r1rl.rewards.call import Report, RewardCaller
from r1rl.rewards.contract import PROBLEM_COLUMNS, RewardBatch, RewardFunction, RewardResult
from r1rl.rewards.gates import Condition, open_rows, order_by_dependency, parse_gate
from r1rl.rewards.given import given_reward
from r1rl.rewards.loader import LoadedReward, load_reward
from r1rl.rewards.signature import match_signature
from r1rl.types import Completion, Problem, Prompt


class RewardSet:
    """All rewards of a recipe.

    Making one finds every function and checks it, without loading a model or touching data.
    """

    def __init__(
        self,
        configs: Sequence[RewardConfig],
        outcome: str | None,
        base_dir: Path,
        columns: set[str],
        functions: Mapping[str, RewardFunction] | None = None,
    ) -> None:
        """Find and check the rewards of a recipe.

        `base_dir` is the recipe's folder, and `columns` are the data's columns. `functions` are objects that
        stand for some of the names in `configs`. Raise `RewardError`, which says what to change.
        """
        given = functions or {}
        loaded = [
            given_reward(given[config.function])
            if config.function in given
            else load_reward(config.function, base_dir)
            for config in configs
        ]
        self.names = reward_names(configs)
        self.outcome_name = _outcome_name(outcome, self.names)
        self.weights = {
            name: _checked_weight(name, config.weight)
            for name, config in zip(self.names, configs, strict=True)
        }
        if not any(self.weights.values()):
            raise RewardError(
                "rewards: no reward has a weight other than 0, so there is nothing to learn from."
            )
        self._modules = [reward.module for reward in loaded if reward.module is not None]
        self._where = {name: config.where for name, config in zip(self.names, configs, strict=True)}
        self._check_where(columns)
        self.where_columns = sorted({column for where in self._where.values() for column in where})
        """The columns that decide which rewards a row gets, such as `domain`; metrics are split by their
        values.
        """
        self._gates: dict[str, list[Condition]] = {}
        self._callers: dict[str, RewardCaller] = {}
        for name, config, reward in zip(self.names, configs, loaded, strict=True):
            self._gates[name] = parse_gate(name, config.when, self.names)
            self._callers[name] = self._make_caller(name, config, reward, columns)
        self._layers = order_by_dependency({name: self._needs(name) for name in self.names})

    def submit(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        max_completion_length: int,
        prefill: str,
    ) -> Future[RewardResult]:
        """Start scoring B completions, `prompts[b]` being the prompt of `completions[b]`, and return at once.

        Batches may be submitted while others are being scored, so grading overlaps the rollout. The future
        raises `RewardError` if a function broke the contract; exceptions and timeouts of a function are in
        the result's events.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions")
        batch = RewardBatch(list(prompts), list(completions), max_completion_length, prefill)
        future: Future[RewardResult] = Future()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                future.set_result(self._score(batch))
            except BaseException as error:
                future.set_exception(error)

        # A daemon thread, not a pool: the interpreter must be able to exit while a reward hangs.
        threading.Thread(target=work, name="rewards", daemon=True).start()
        return future

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        max_completion_length: int,
        prefill: str,
    ) -> RewardResult:
        """Score B completions and wait for the result; see `submit`."""
        return self.submit(prompts, completions, max_completion_length, prefill).result()

    def close(self) -> None:
        """Release the resources of the reward modules (worker processes, models) by each module's own
        `close()`, if it has one.
        """
        for module in dict.fromkeys(self._modules):
            close = getattr(module, "close", None)
            if callable(close) and getattr(close, "__module__", None) == module.__name__:
                close()

    def apply_to(self, problem: Problem) -> list[str]:
        """Return the rewards whose `where` includes the problem."""
        return [name for name in self.names if keeps(problem.columns, self._where[name])]

    def has_outcome(self, problem: Problem) -> bool:
        """Return whether answers to the problem can be right or wrong, because an outcome reward applies to
        it.
        """
        return self.outcome_name is not None and keeps(problem.columns, self._where[self.outcome_name])

    def _check_where(self, columns: set[str]) -> None:
        for name, where in self._where.items():
            for column in where:
                if column not in columns or column in PROBLEM_COLUMNS:
                    own = sorted(columns - set(PROBLEM_COLUMNS))
                    raise RewardError(
                        f"rewards: {name}: where.{column}: the data has no such "
                        f"column.{nearest(column, own)} "
                        f"It has: {', '.join(own) or 'none besides problem and answer'}. data.constants can "
                        f"add one."
                    )

    def _make_caller(
        self, name: str, config: RewardConfig, reward: LoadedReward, columns: set[str]
    ) -> RewardCaller:
        if not config.timeout > 0:
            raise RewardError(f"rewards: {name}: timeout must be more than 0 seconds, not {config.timeout}.")
        inputs = match_signature(reward, config.arguments, columns)
        if inputs.wants_outcome and self.outcome_name is None:
            raise RewardError(
                f"rewards: {name} needs the outcome, but no reward of this recipe is one. Set outcome: to "
                f"one of them."
            )
        caller = RewardCaller(name, reward, inputs, config.timeout)
        if reward.built_in:
            caller.check_arguments()
        return caller

    def _needs(self, name: str) -> set[str]:
        gated_on = {condition.reward for condition in self._gates[name]}
        return (
            gated_on | {self.outcome_name}
            if self._callers[name].inputs.wants_outcome and self.outcome_name
            else gated_on
        )

    def _score(self, batch: RewardBatch) -> RewardResult:
        values: dict[str, list[float | None]] = {name: [None] * len(batch) for name in self.names}
        events: Counter[str] = Counter()
        seconds = dict.fromkeys(self.names, 0.0)
        tracebacks: dict[str, str] = {}
        for layer in self._layers:
            rows = {name: self._rows(name, values, batch) for name in layer}
            for name, report in self._score_layer(batch, rows, self._outcome(values, batch)).items():
                for row, value in zip(rows[name], report.values, strict=True):
                    values[name][row] = value
                events.update(report.events)
                seconds[name] = report.seconds
                if report.traceback is not None:
                    tracebacks[name] = report.traceback
        total = [self._total(values, row) for row in range(len(batch))]
        return RewardResult(total, values, self._outcome(values, batch), dict(events), seconds, tracebacks)

    def _score_layer(
        self, batch: RewardBatch, rows: dict[str, list[int]], outcome: list[float | None]
    ) -> dict[str, Report]:
        """Run every reward of a layer in a thread of its own, except for the last, which this thread runs."""
        reports: dict[str, Report] = {}
        errors: list[BaseException] = []

        def run(name: str) -> None:
            try:
                reports[name] = self._callers[name].score(batch, rows[name], outcome)
            except BaseException as error:
                errors.append(error)

        *others, last = rows
        threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in others]
        for thread in threads:
            thread.start()
        run(last)
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return reports

    def _rows(self, name: str, values: dict[str, list[float | None]], batch: RewardBatch) -> list[int]:
        """Return the rows that a reward scores: its `where` includes them, and its gates are open."""
        opened = open_rows(self._gates[name], values, len(batch))
        return [row for row in opened if keeps(batch.prompts[row].problem.columns, self._where[name])]

    def _outcome(self, values: dict[str, list[float | None]], batch: RewardBatch) -> list[float | None]:
        return list(values[self.outcome_name]) if self.outcome_name else [None] * len(batch)

    def _total(self, values: dict[str, list[float | None]], row: int) -> float:
        parts = [
            weight * value
            for name, weight in self.weights.items()
            if weight and (value := values[name][row]) is not None
        ]
        return math.fsum(parts) if parts else math.nan


def _outcome_name(outcome: str | None, names: list[str]) -> str | None:
    if outcome is None:
        return next((name for name in OUTCOME_REWARDS if name in names), None)
    if outcome not in names:
        raise RewardError(
            f"outcome: this recipe has no reward {outcome!r}.{nearest(outcome, names)} It has: "
            f"{', '.join(names)}."
        )
    return outcome


def _checked_weight(name: str, weight: float) -> float:
    if not math.isfinite(weight):
        raise RewardError(f"rewards: {name}: weight must be a finite number, not {weight}.")
    return float(weight)
