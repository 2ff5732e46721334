"""The audit of a column of gold answers: each must be graded correct against itself, and be more than a text
to compare with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from r1rl.grading.atoms import ZERO
from r1rl.grading.evaluate import Evaluator, TooLargeError
from r1rl.grading.extract import braces_match
from r1rl.grading.gate import MAX_LENGTH, too_costly, too_long
from r1rl.grading.grade import Gold, Grader, default_grader, gold_string, gold_text, unreadable_reason
from r1rl.grading.identity import same_value
from r1rl.grading.normalize import clean
from r1rl.grading.read import read
from r1rl.grading.shapes import Opaque, Scalar
from r1rl.grading.types import AnswerProblem, Outcome


def audit_answers(answers: Iterable[Gold], grader: Grader | None = None) -> list[AnswerProblem]:
    """Return the gold answers that can't be used (`fatal`) or that only the same text will match, with the
    reason for each.

    The index of a problem is the place of the answer in `answers`, from 0. Each distinct answer is graded
    once.
    """
    grader, evaluator = grader or default_grader(), Evaluator()
    known: dict[str | None, list[AnswerProblem]] = {}
    found = []
    for index, answer in enumerate(answers):
        text = None if answer is None else gold_string(answer)
        if text not in known:
            known[text] = list(_audit(grader, evaluator, text))
        found += [replace(problem, index=index) for problem in known[text]]
    return found


def _audit(grader: Grader, evaluator: Evaluator, answer: str | None) -> Iterator[AnswerProblem]:
    """Yield the defect of one answer, if it has one, at the place 0."""
    if answer is None:
        yield AnswerProblem(0, "", Outcome.UNPARSEABLE_GOLD, "it is missing", fatal=True)
        return
    reason = unreadable_reason(answer)
    if reason is None and not braces_match(gold_text(answer)):
        reason = "its braces don't match, so it can't stand in a box"
    if reason is not None:
        yield AnswerProblem(0, answer, Outcome.UNPARSEABLE_GOLD, reason, fatal=True)
        return
    grade = grader.grade("\\boxed{" + gold_text(answer) + "}", answer)
    if not grade.correct:
        yield AnswerProblem(
            0, answer, grade.outcome, f"it does not grade itself correct: {grade.outcome}", fatal=True
        )
        return
    text = clean(gold_text(answer))
    if too_long(text):
        reason = f"it is longer than {MAX_LENGTH} characters: only the same text will match"
    elif too_costly(text) or _too_large(evaluator, text):
        reason = "it is too large to be computed: only the same text will match"
    elif isinstance(read(text), Opaque):
        reason = "it is read by no rule: the same text will match, and what computer algebra may find equal"
    if reason is not None:
        yield AnswerProblem(0, answer, grade.outcome, reason, fatal=False)


def _too_large(evaluator: Evaluator, text: str) -> bool:
    shape = read(text)
    try:
        if isinstance(shape, Scalar):
            same_value(evaluator, shape.node, ZERO)
    except TooLargeError:
        return True
    return False
