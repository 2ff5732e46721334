"""The table of a model's habits."""

from __future__ import annotations

import pytest

from r1rl.pretrain.habit_table import habit_of, summarize


@pytest.mark.parametrize(
    ("text", "habit"),
    [
        (" easy. </think> <answer>7*3+25</answer>", "direct"),
        (" 7*3+25=21+25=46 </think> <answer>7*3+25</answer>", "worked"),
        (" 7*3+25=21+25=46 check: yes. </think> <answer>7*3+25</answer>", "checked"),
        ("", "direct"),
    ],
)
def test_habit_of(text: str, habit: str) -> None:
    assert habit_of(text) == habit


def test_summarize() -> None:
    answers = [("direct", 10), ("checked", 40), ("direct", 12), ("direct", 14)]
    table = summarize("countdown", answers, [False, True, False, True], num_samples=2)
    # Two problems with two answers each: one of two right, twice.
    assert (table.num_problems, table.pass_at) == (2, {1: 0.5, 2: 1.0})
    assert table.mean_length == 19  # (10 + 40 + 12 + 14) / 4
    assert table.shares == {"direct": 0.75, "worked": 0.0, "checked": 0.25}
    assert table.accuracies == {"direct": pytest.approx(1 / 3), "worked": None, "checked": 1.0}
    assert table.lengths == {"direct": 12, "worked": None, "checked": 40}
    assert table.rows()[1] == ("worked", "0.0%", "-", "-")
    assert table.rows()[-1] == ("all", "100%", "50.0%", "19.0")
    assert table.as_json()["pass_at_2"] == 1.0
