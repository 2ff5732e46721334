"""The accuracy reward: 1, 0 or not applicable, with every outcome counted."""

from __future__ import annotations

from collections import Counter

import pytest

from r1rl.config.schema import RewardConfig
from tests.reward_helpers import load_built_in, make_completion, make_prompt, reward_set


def test_right_wrong_and_missing_answers():
    events = Counter()
    texts = [
        r"<think>a</think> \boxed{4}",
        r"<think>a</think> <answer>5</answer>",
        "no answer",
        r"\boxed{4",
        r"<think>\boxed{4}</think>",
    ]
    assert load_built_in("accuracy")(texts, ["4"] * 5, events=events) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert events["grading/correct"] == 1 and events["grading/wrong"] == 1 and sum(events.values()) == 5


def test_prefill_counts_as_written():
    reward = load_built_in("accuracy")
    assert reward([r"a</think> \boxed{4}", r"still thinking \boxed{4}"], ["4", "4"], prefill="<think>") == [
        1.0,
        0.0,
    ]


def test_missing_gold_answer_is_not_applicable():
    events = Counter()
    assert load_built_in("accuracy")([r"\boxed{4}"], [None], events=events) == [None]
    assert events == {"grading/unparseable_gold": 1}


@pytest.mark.parametrize("outcome", ["timeout", "crashed", "unparseable_gold"])
def test_the_graders_own_failures_are_not_wrong_answers(monkeypatch, outcome):
    reward = load_built_in("accuracy")
    from r1rl.grading.types import Grade, Outcome, Stage

    failed = Grade(outcome=Outcome(outcome), extracted=None, stage=Stage.GATE, seconds=0.0)
    monkeypatch.setitem(
        reward.__globals__, "grade_many", lambda completions, *rest, **settings: [failed] * len(completions)
    )
    events = Counter()
    assert reward(["x"], ["4"], events=events) == [None]
    assert events == {f"grading/{outcome}": 1}


def test_in_a_recipe_the_outcomes_become_events():
    rewards = reward_set(RewardConfig(function="accuracy"))
    result = rewards.score(
        [make_prompt("4")] * 2, [make_completion(r"\boxed{4}"), make_completion(r"\boxed{5}")], 10, ""
    )
    assert result.total == [1.0, 0.0] and result.outcome == [1.0, 0.0]
    assert result.events == {"grading/correct": 1, "grading/wrong": 1}
    rewards.close()
