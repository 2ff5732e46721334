"""The public cases of the grading benchmark, when they lie beside the checkout: figures that must not get
worse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1rl.grading import Outcome, grade_many

CASES = Path(__file__).resolve().parents[2] / "shared" / "grading" / "cases" / "public"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason="the public grading cases are not here"),
]


def load(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def disagreements(cases: list[dict[str, Any]], mode: str = "strict") -> list[tuple[str, str, bool]]:
    """Return (gold, extracted answer, expected verdict) of every case that is graded otherwise than
    expected.
    """
    grades = grade_many([case["pred_text"] for case in cases], [case["gold"] for case in cases], mode)
    return [
        (c["gold"], str(g.extracted), c["expected"])
        for c, g in zip(cases, grades, strict=True)
        if g.correct != c["expected"]
    ]


@pytest.mark.parametrize("name", ["gold_pairs", "gold_r1"])
def test_gold_answers_of_benchmarks_grade_themselves_correct(name):
    assert disagreements(load(name)) == []


def test_rewritten_answers():
    cases = load("variants")
    assert len(disagreements(cases)) <= 0.003 * len(cases)


def test_wrong_answers_are_never_correct():
    assert disagreements(load("negatives")) == []


def test_other_projects_cases():
    cases = load("peer_cases")
    core = [case for case in cases if case["group"] == "core"]
    lenient = [case for case in cases if case["group"] == "lenient"]
    assert len(disagreements(core)) <= 0.03 * len(core)
    assert len(disagreements(lenient, "lenient")) <= 0.15 * len(lenient)


def test_adversarial_cases():
    cases = [case for case in load("adversarial") if not case["policy_dependent"]]
    assert len(disagreements(cases)) <= 0.01 * len(cases)


def test_outputs_of_models():
    cases = load("outputs")
    assert len(disagreements(cases)) <= 0.003 * len(cases)


def test_no_answer_crashes_the_grader():
    cases = [case for name in ("adversarial", "peer_cases", "outputs") for case in load(name)]
    grades = grade_many([case["pred_text"] for case in cases], [case["gold"] for case in cases])
    assert [grade for grade in grades if grade.outcome is Outcome.CRASHED] == []
