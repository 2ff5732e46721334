"""Is the final answer right? Graded by r1rl.grading against the `answer` column."""

from __future__ import annotations

from collections import Counter

from r1rl.grading import grade

_VALUES = {"correct": 1.0, "wrong": 0.0, "no_answer": 0.0, "malformed": 0.0}
"""Outcomes of the policy's own making. Every other outcome (timeout, crash, unreadable gold) says nothing about it."""


def accuracy(completions: list[str], answer: list[str | None], prefill: str = "", *, events: Counter[str] | None = None) -> list[float | None]:
    """1 if the answer equals the gold answer, 0 if it does not or if there is none, None if the grader could not tell.

    Each outcome is counted as `grading/<outcome>`: correct, wrong, no_answer, malformed, unparseable_gold, timeout, crashed.
    """
    events = Counter() if events is None else events
    rewards: list[float | None] = []
    for completion, gold in zip(completions, answer, strict=True):
        outcome = "unparseable_gold" if gold is None else str(grade(prefill + completion, gold).outcome.value)
        events[f"grading/{outcome}"] += 1
        rewards.append(_VALUES.get(outcome))
    return rewards
