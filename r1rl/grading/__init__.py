r"""The grading of mathematical answers: `grade` compares a completion with a gold answer, and returns a typed
outcome in bounded time.

    >>> from r1rl.grading import grade
    >>> grade("So the area is \\boxed{\\frac{1}{2}}.", "0.5").outcome
    <Outcome.CORRECT: 'correct'>

docs/grading.md describes the policy and the stages.
"""

from __future__ import annotations

from collections.abc import Sequence

from r1rl.grading.audit import audit_answers
from r1rl.grading.grade import Gold, Grader, default_grader, extract_answer
from r1rl.grading.types import AnswerProblem, Grade, Mode, Outcome, Stage
from r1rl.grading.workers import WorkersUnavailableError

__all__ = [
    "AnswerProblem", "Grade", "Grader", "Mode", "Outcome", "Stage", "WorkersUnavailableError",
    "audit_answers", "default_grader", "extract_answer", "grade", "grade_many", "is_correct",
    "is_correct_lenient",
]  # fmt: skip


def grade(
    completion: str,
    answer: Gold,
    mode: Mode | str = Mode.STRICT,
    prefill: str = "",
    timeout: float | None = None,
) -> Grade:
    """Return the grade of one completion against its gold answer.

    `prefill` is the end of the prompt that stands for the model's own first words ("<think>"). `timeout`
    limits the symbolic stage, in seconds (2 by default). A gold answer may be a number; None stands for a
    missing one. No text that a model or a data set may hold makes this function raise.
    """
    return default_grader().grade(completion, answer, mode, prefill, timeout)


def grade_many(
    completions: Sequence[str],
    answers: Sequence[Gold],
    mode: Mode | str = Mode.STRICT,
    prefill: str = "",
    timeout: float | None = None,
) -> list[Grade]:
    """Return the grades of many completions, as `grade` does, with the symbolic stage spread over all
    workers.
    """
    return default_grader().grade_many(completions, answers, mode, prefill, timeout)


def is_correct(completion: str, answer: Gold) -> bool | None:
    """Return whether a completion is graded correct in strict mode, or None if nothing can be graded against
    the gold answer.

    An answer that could not be decided (timeout, crash) gives False, because it earns nothing. `grade` tells
    such an answer from a wrong one.
    """
    return _verdict(grade(completion, answer))


def is_correct_lenient(completion: str, answer: Gold) -> bool | None:
    """Return what `is_correct` does, but in lenient mode, for benchmarks whose answers are not boxed."""
    return _verdict(grade(completion, answer, Mode.LENIENT))


def _verdict(grade: Grade) -> bool | None:
    return None if grade.outcome is Outcome.UNPARSEABLE_GOLD else grade.correct
