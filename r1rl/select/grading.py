"""The grading of completions with a reward of the recipe, each with its typed outcome, and the resulting pass
rates.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1rl.config.schema import RewardConfig
from r1rl.grading import Outcome
from r1rl.rewards import RewardSet
from r1rl.select.recipe import GradeConfig
from r1rl.select.rows import CompletionRow
from r1rl.types import Completion, FinishReason, Problem, Prompt

BATCH = 256
UNDECIDED = "undecided"
"""The outcome of a row for which the reward gave neither a value nor a reason."""


class RowGrader:
    """The recipe's outcome reward on rows.

    Making one checks the reward; `close` ends its worker processes.
    """

    def __init__(self, config: GradeConfig, base_dir: Path, columns: set[str]) -> None:
        """Load the reward.

        Raise `RewardError` for a reward that can't be found or needs a column that no row has.
        """
        reward = RewardConfig(
            function=config.function, name="grade", arguments=config.arguments, timeout=config.timeout
        )
        self._rewards = RewardSet([reward], "grade", base_dir, columns)
        self._right = config.right

    def grade(self, rows: Sequence[CompletionRow], advance: Callable[[int], None]) -> None:
        """Fill in `outcome` and `is_decided` of every row.

        `advance` gets the number of rows after each batch.
        """
        by_prefill: dict[str, list[CompletionRow]] = defaultdict(list)
        for row in rows:
            by_prefill[row.prefill].append(row)
        for prefill, alike in by_prefill.items():
            for start in range(0, len(alike), BATCH):
                batch = alike[start : start + BATCH]
                self._grade_batch(batch, prefill)
                advance(len(batch))

    def close(self) -> None:
        """Release the resources of the reward."""
        self._rewards.close()

    def _grade_batch(self, rows: Sequence[CompletionRow], prefill: str) -> None:
        values, kinds = self._score(rows, prefill)
        failed = []
        for row, value in zip(rows, values, strict=True):
            row.is_decided = value is not None
            row.outcome = Outcome.CORRECT.value
            if value is None or value < self._right:
                failed.append(row)
        # A reward counts outcomes by batch. If they differ, one row at a time tells which is whose; the
        # grader remembers its verdicts.
        if len(kinds) > 1:
            for row in failed:
                row.outcome = _kind(self._score([row], prefill)[1], row)
        else:
            for row in failed:
                row.outcome = _kind(kinds, row)

    def _score(self, rows: Sequence[CompletionRow], prefill: str) -> tuple[list[float | None], Counter[str]]:
        """Return the reward's values, and the number of each outcome other than correct."""
        prompts = [Prompt(_problem(row), str(row.values.get("prompt") or ""), [], prefill) for row in rows]
        completions = [_completion(row) for row in rows]
        longest = max(len(completion.token_ids) for completion in completions)
        result = self._rewards.score(prompts, completions, max(1, longest), prefill)
        kinds = Counter({name.rpartition("/")[2]: count for name, count in result.events.items() if count})
        del kinds[Outcome.CORRECT.value]
        return result.by_name["grade"], kinds


def _kind(kinds: Counter[str], row: CompletionRow) -> str:
    return next(iter(kinds)) if len(kinds) == 1 else Outcome.WRONG.value if row.is_decided else UNDECIDED


def _problem(row: CompletionRow) -> Problem:
    columns = {name: value for name, value in row.values.items() if name not in ("problem", "answer")}
    return Problem(str(row.values.get("id", "")), row.problem, row.values.get("answer"), columns, row.place)


def _completion(row: CompletionRow) -> Completion:
    """Return the completion as rewards see it. Its token ids are gone; zeros in their place keep the
    length.
    """
    reason = row.values.get("finish_reason")
    known = FinishReason(reason) if reason in list(FinishReason) else FinishReason.EOS
    return Completion([0] * (row.tokens or 0), [], row.completion, known)


@dataclass(frozen=True, slots=True)
class PassRate:
    """The number of a problem's completions that are right, decided and graded."""

    num_right: int
    num_decided: int
    num_graded: int

    @property
    def value(self) -> float | None:
        """The share of right completions among the decided ones, or None without any."""
        return self.num_right / self.num_decided if self.num_decided else None


def pass_rates(rows: Sequence[CompletionRow]) -> dict[str, PassRate]:
    """Return the pass rates over all graded rows, by the problem's key."""
    right: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    graded: Counter[str] = Counter()
    for row in rows:
        if row.outcome is not None:
            graded[row.problem_key] += 1
            decided[row.problem_key] += row.is_decided
            right[row.problem_key] += row.outcome == Outcome.CORRECT
    return {key: PassRate(right[key], decided[key], count) for key, count in graded.items()}
