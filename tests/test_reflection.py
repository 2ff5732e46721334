"""Texts that count as reflection, and texts that do not."""

# ruff: noqa: RUF001 (other scripts and typography are the matter of this file)

from __future__ import annotations

import time

import pytest

from r1rl.text.reflection import count_reflections, reflects


@pytest.mark.parametrize(
    "text",
    [
        "check: no. wait, try 3*4",
        "3*4=12, 12+5=17. check: yes",
        "17*3 = 51. check: 51/3 = 17",
        "so 7. wait, 3+5 is 8",
        "Wait, that can't be right.",
        "But wait, n must be even.",
        "Let me verify this: 6 * 7 = 42.",
        "Let's check the case n = 1.",
        "We should check whether 91 is prime.",
        "I'll double-check the sum.",
        "Recheck: 4 + 4 = 8.",
        "On second thought, the order matters.",
        "No, that's wrong, it should be -2.",
        "Hmm, 17 is prime.",
        "Actually, there are six cases.",
        "I made a mistake in step 2.",
        "Let me reconsider the problem.",
        "We re-evaluate the integral.",
        "Alternatively, use symmetry.",
        "等等，这里不对。",
        "让我们验证一下这个结果。",
        "重新计算：3 + 4 = 7。",
    ],
)
def test_reflection(text):
    assert reflects(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "try 3*4, so 12",
        "so 7",
        "3 + 4 = 7. Then 7 * 5 = 35. The answer is 35.",
        "She waits for 3 hours at the station.",
        "They had to wait 20 minutes.",
        "He wrote a check for $50 and checked two bags.",
        "The waiter brought a paycheck.",
        "There is no remainder.",
        "Is 91 prime? No. It is 7 * 13.",
        "However, the second train is faster.",
        "The area is not 12 but 24.",
        "We note that n is even, so n = 2k.",
        "<think> 12 * 3 = 36 </think> <answer> 36 </answer>",
        "小明有 12 支铅笔，给了小红 5 支。",
    ],
)
def test_plain_work_is_no_reflection(text):
    assert not reflects(text)


def test_each_occurrence_counts():
    assert count_reflections("check: no. wait, try 4. check: yes") == 3


@pytest.mark.parametrize("unit", ["wait ", "no ", "\n", "let me ", " ", "m", "check ", "-    "])
def test_time_is_linear_in_degenerate_text(unit):
    start = time.process_time()
    reflects(unit * (60_000 // len(unit)))
    assert time.process_time() - start < 2.0
