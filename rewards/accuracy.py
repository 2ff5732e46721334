"""The reward for a right final answer, graded by r1rl.grading against the `answer` column."""

from __future__ import annotations

from collections import Counter

from r1rl.grading import Outcome, default_grader, grade_many

_VALUES = {Outcome.CORRECT: 1.0, Outcome.WRONG: 0.0, Outcome.NO_ANSWER: 0.0, Outcome.MALFORMED: 0.0}
"""The outcomes of the policy's own making. Every other outcome (timeout, crash, unreadable gold) says nothing
about it.
"""


def accuracy(
    completions: list[str], answer: list[str | None], prefill: str = "", *, events: Counter[str] | None = None
) -> list[float | None]:
    """Return 1 if the answer equals the gold answer, 0 if it does not or if there is none, None if the grader
    could not tell.

    Each outcome is counted as `grading/<outcome>`: correct, wrong, no_answer, malformed, unparseable_gold,
    timeout, crashed.
    """
    known = [row for row, gold in enumerate(answer) if gold is not None]
    grades = grade_many(
        [completions[row] for row in known], [str(answer[row]) for row in known], prefill=prefill
    )
    outcomes = [Outcome.UNPARSEABLE_GOLD] * len(completions)
    for row, grade in zip(known, grades, strict=True):
        outcomes[row] = grade.outcome
    if events is not None:
        events.update(f"grading/{outcome.value}" for outcome in outcomes)
    return [_VALUES.get(outcome) for outcome in outcomes]


def close() -> None:
    """End the grader's worker processes; they start again when they are needed."""
    default_grader().close()
