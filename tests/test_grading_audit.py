"""The audit of gold answers, and the functions that every caller uses."""

from __future__ import annotations

import pytest

from r1rl.grading import Outcome, audit_answers, grade, grade_many, is_correct

GOOD = [
    "18",
    "\\frac{1}{2}",
    "2\\sqrt{3}",
    "(1,2)",
    "[0,1)",
    "x>5",
    "\\text{Monday}",
    "B",
    "50\\%",
    "\\$5",
    "3\\frac12",
    "1,2,3",
    "y=2x+1",
    "204_5",
    "4:30 \\text{ p.m.}",
]


def test_good_answers_have_no_problem():
    assert audit_answers(GOOD) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "missing"),
        ("", "empty"),
        ("  ", "empty"),
        ("nan", "empty"),
        ("$\\quad$", "layout"),
        ("\\frac{1}{2", "braces"),
        ("5}", "braces"),
    ],
)
def test_answers_that_cannot_be_graded_are_fatal(answer, reason):
    (problem,) = audit_answers(["7", answer])
    assert (problem.index, problem.fatal, problem.outcome) == (1, True, Outcome.UNPARSEABLE_GOLD)
    assert reason in problem.reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("x" * 2000, "1500 characters"), ("9^{9^{9^{9}}}", "too large"), ("\\int_0^1 f(x) dx", "no rule")],
)
def test_answers_that_only_text_matches_are_reported(answer, reason):
    (problem,) = audit_answers([answer])
    assert not problem.fatal
    assert problem.outcome is Outcome.CORRECT
    assert reason in problem.reason


def test_grade_many_keeps_the_order_and_grades_like_grade():
    completions = ["\\boxed{1}", "none", "\\boxed{3", "\\boxed{4}", "\\boxed{0.5}"]
    answers = ["1", "2", "3", "5", "\\frac12"]
    many = grade_many(completions, answers)
    assert [g.outcome for g in many] == [
        Outcome.CORRECT,
        Outcome.NO_ANSWER,
        Outcome.MALFORMED,
        Outcome.WRONG,
        Outcome.CORRECT,
    ]
    assert [(g.outcome, g.extracted, g.stage) for g in many] == [
        (g.outcome, g.extracted, g.stage)
        for g in (grade(c, a) for c, a in zip(completions, answers, strict=True))
    ]


def test_grade_many_wants_one_answer_per_completion():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        grade_many(["\\boxed{1}"], ["1", "2"])


def test_is_correct_is_none_only_for_unreadable_gold():
    assert is_correct("\\boxed{5}", "5") is True
    assert is_correct("\\boxed{6}", "5") is False
    assert is_correct("\\boxed{9^{9^{9^9}}}", "5") is False
    assert is_correct("\\boxed{5}", "") is None


def test_grades_carry_time_and_extracted_text():
    result = grade("\\boxed{\\frac{1}{2}}", "0.5")
    assert result.extracted == "\\frac{1}{2}"
    assert 0 <= result.seconds < 1
    assert grade("nothing", "5").extracted is None
