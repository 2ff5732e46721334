"""The answers of tests/data/grading: rewritten ones are correct, and wrong ones never are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r1rl.grading import grade_many

FILE = Path(__file__).parent / "data" / "grading" / "answers.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def graded_otherwise(rows: list[dict[str, Any]], timeout: float) -> list[tuple[str, str, str]]:
    """Return the gold answer, the answer and the outcome of every row that is not graded as it says."""
    completions = [f"The final answer is $\\boxed{{{row['answer']}}}$." for row in rows]
    grades = grade_many(completions, [row["gold"] for row in rows], timeout=timeout)
    return [
        (row["gold"], row["answer"], grade.outcome.value)
        for row, grade in zip(rows, grades, strict=True)
        if grade.correct != row["correct"]
    ]


def test_the_readme_has_the_numbers_of_rows() -> None:
    text = FILE.with_name("README.md").read_text(encoding="utf-8")
    right = [row for row in ROWS if row["correct"]]
    shuffled = [row for row in ROWS if row["change"] == "shuffled"]
    for count in (len(ROWS), len(right), len(shuffled), len(ROWS) - len(right) - len(shuffled)):
        assert f" {count:,} " in text


def test_rewritten_answers_are_correct() -> None:
    """The limit is long, so that a busy machine does not turn one into a timeout."""
    assert graded_otherwise([row for row in ROWS if row["correct"]], timeout=60.0) == []


def test_wrong_answers_are_never_correct() -> None:
    assert graded_otherwise([row for row in ROWS if not row["correct"]], timeout=1.0) == []
