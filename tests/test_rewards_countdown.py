"""Countdown: exact arithmetic, every number once, and nothing that a program could exploit."""

# ruff: noqa: RUF001 (other scripts and typography are the matter of this file)

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.reward_helpers import load_built_in

CASES = Path(__file__).parents[2] / "shared" / "grading" / "cases" / "countdown.jsonl"


def grade(answer, numbers, target):
    return load_built_in("countdown")([f"<think>a</think> <answer>{answer}</answer>"], [numbers], [target])[0]


@pytest.mark.parametrize(
    ("answer", "numbers", "target"),
    [
        ("3 * 5 + 7", [3, 5, 7], 22),
        ("(7 + 5*3)", [3, 5, 7], 22),
        ("3 × 5 + 7 = 22", [3, 5, 7], 22),
        ("22 = 3*5+7", [3, 5, 7], 22),
        (r"\boxed{3 \times 5 + 7}", [3, 5, 7], 22),
        (r"$3 \cdot 5 + 7$", [3, 5, 7], 22),
        ("8/(3-8/3)", [8, 3, 8, 3], 24),  # 8 / (1/3) = 24, exact only in fractions
        (r"\frac{8}{3-\frac{8}{3}}", [8, 3, 8, 3], 24),
        ("-3+5", [5, 3], 2),
        ("5 − 3", [5, 3], 2),
        ("１＋２＋３", [1, 2, 3], 6),
        ("((((1))+((2))))", [1, 2], 3),
        ("1+2-3", [1, 2, 3], 0),
        ("5-5-5", [5, 5, 5], -5),
    ],
)
def test_scores(answer, numbers, target):
    assert grade(answer, numbers, target) == 1.0


@pytest.mark.parametrize(
    ("answer", "numbers", "target"),
    [
        ("22", [3, 5, 7], 22),
        ("3*5+7", [3, 5, 7], 23),
        ("3*5+7+0", [3, 5, 7], 22),
        ("3*5", [3, 5, 7], 15),
        ("3*5+8", [3, 5, 7], 23),
        ("3+3", [3], 6),
        ("3*5+7 or 7+15", [3, 5, 7], 22),
        ("3*5+7, 7+5*3", [3, 5, 7], 22),
        ("3*5+7 = 23", [3, 5, 7], 22),
        ("3*5 = 15 + 7 = 22", [3, 5, 7], 22),
        ("22 = 22", [3, 5, 7], 22),
        ("7//2*1", [7, 2, 1], 3),
        ("2**3", [2, 3], 8),
        ("2^3", [2, 3], 8),
        ("3²", [32], 32),
        ("1e1+2", [1, 1, 2], 12),
        ("1_0", [10], 10),
        ("10.0", [10], 10),
        ("1,000", [1000], 1000),
        ("2(3)", [2, 3], 6),
        ("2 3", [23], 23),
        ("1/(2-2)", [1, 2, 2], 0),
        ("1+2+3#", [1, 2, 3], 6),
        ("1+2+3;", [1, 2, 3], 6),
        ("__import__('os').getpid()*0+1+2+3", [1, 2, 3], 6),
        ("(lambda: 6)()", [1, 2, 3], 6),
        ("", [1], 1),
        ("(1+2", [1, 2], 3),
        ("1+", [1], 1),
        ("9**9**9**9", [9, 9, 9, 9], 5),
    ],
)
def test_does_not_score(answer, numbers, target):
    assert grade(answer, numbers, target) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "(" * 100_000,
        "-" * 400 + "1",
        "(" * 200 + "1" + ")" * 200,
        "1+" * 100_000 + "1",
        r"\frac{1}" * 60,
        "9" * 490,
    ],
)
def test_degenerate_answers_are_wrong_at_once(answer):
    start = time.process_time()
    assert grade(answer, [1], 1) == 0.0
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("text", "value", "outcome"),
    [
        ("<think>3*5+7</think>", 0.0, "no_answer"),
        ("<think>x</think> 3*5+7", 0.0, "no_answer"),
        ("<think>x <answer>3*5+7</answer>", 0.0, "no_answer"),
        ("<think>x</think> <answer>3*5+7", 0.0, "malformed"),
        ("<answer>3*5+7</answer>", 1.0, "correct"),
        ("<think><answer>3*5+8</answer></think> <answer>3*5+7</answer>", 1.0, "correct"),
        ("<think>x</think> <answer>3*5+6</answer>", 0.0, "wrong"),
        ("<think>x</think> <answer>fifteen plus seven</answer>", 0.0, "malformed"),
    ],
)
def test_where_the_answer_is_read(text, value, outcome):
    events = Counter()
    assert load_built_in("countdown")([text], [[3, 5, 7]], [22], events=events) == [value]
    assert events == {f"grading/{outcome}": 1}


def test_row_without_a_puzzle_is_not_applicable():
    assert load_built_in("countdown")(["x"], [None], [None]) == [None]


def test_inputs_are_not_changed():
    numbers = [[3, 5, 7]]
    load_built_in("countdown")(["<answer>3*5+7</answer>"], numbers, [22])
    assert numbers == [[3, 5, 7]]


@pytest.mark.skipif(not CASES.exists(), reason="the labelled cases are not here")
def test_labelled_cases():
    reward = load_built_in("countdown")
    cases = [json.loads(line) for line in CASES.read_text("utf-8").splitlines()]
    public = [case for case in cases if case["split"] == "public"]
    assert len(public) >= 20
    wrong = [
        case["reason"]
        for case in public
        if (reward([case["text"]], [case["nums"]], [case["target"]]) == [1.0]) != case["expected"]
    ]
    assert wrong == []
