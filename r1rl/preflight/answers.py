"""The audit of gold answers: no run starts that could only learn from answers which nothing can match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1rl.config.schema import ProblemsConfig
from r1rl.errors import DataError
from r1rl.grading import AnswerProblem, audit_answers
from r1rl.types import Problem

GRADED_OUTCOME = "accuracy"
"""The reward that compares with gold answers by `r1rl.grading`. Other outcomes have rules of their own."""
SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class GoldDefect:
    """A gold answer that the grader can't use or can only compare as text, and the problem that it is of."""

    problem: Problem
    found: AnswerProblem

    def __str__(self) -> str:
        place = f" ({self.problem.place})" if self.problem.place else ""
        return f"{self.found.answer[:SHOWN_CHARACTERS]!r}{place}: {self.found.reason}"


def audit_gold(
    data: ProblemsConfig, problems: Sequence[Problem], held_out: Sequence[Problem], outcome_name: str | None
) -> list[GoldDefect]:
    """Return the defects of all gold answers, those of the training problems first; none where the outcome is
    another reward than `accuracy`.

    Each distinct answer is graded once, in about a third of a millisecond. Raises DataError if no gold answer
    of the training problems can be graded.
    """
    if outcome_name != GRADED_OUTCOME:
        return []
    answered = [problem for problem in problems if problem.answer is not None]
    defects = _defects(answered)
    fatal = [defect for defect in defects if defect.found.fatal]
    if answered and len(fatal) == len(answered):
        column = data.columns.get("answer", "answer")
        raise DataError(
            f"data: no gold answer can be graded, so that no completion would ever be correct; the first is "
            f"{fatal[0]}. Check data.columns (answers are read from the column {column}) and "
            f"data.answer_format."
        )
    return defects + _defects([problem for problem in held_out if problem.answer is not None])


def gold_warnings(defects: Sequence[GoldDefect]) -> list[str]:
    """Return one sentence about the defects, with the first example, or none if there are no defects."""
    if not defects:
        return []
    fatal = sum(defect.found.fatal for defect in defects)
    first = min(defects, key=lambda defect: not defect.found.fatal)
    return [
        f"{fatal} gold answers can't be graded and {len(defects) - fatal} only by their text; the first is "
        f"{first}. Remove or mend them."
    ]


def _defects(problems: Sequence[Problem]) -> list[GoldDefect]:
    found = audit_answers([problem.answer for problem in problems])
    return [GoldDefect(problems[defect.index], defect) for defect in found]
