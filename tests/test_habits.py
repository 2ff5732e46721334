"""The written solutions of each habit."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from r1rl.problems.chains import Chain, ChainProblem
from r1rl.problems.countdown import CountdownProblem
from r1rl.problems.expressions import reachable
from r1rl.problems.habits import Manner, solve

ALWAYS_RIGHT = Manner(hit_rate=1.0, persistence=0.5, max_attempts=9, stubborn=0.0, nearness=8.0)
OFTEN_WRONG = replace(ALWAYS_RIGHT, hit_rate=0.3, persistence=0.7)
PROBLEM = CountdownProblem([7, 3, 25], 46, reachable([7, 3, 25], "+-*", 400))
CHAIN = ChainProblem("arithmetic", "What is (12+5)*3?", Chain(12, (("+", 5), ("*", 3))))


def test_right_solutions_word_for_word() -> None:
    rng = random.Random(0)
    assert (
        solve(PROBLEM, "direct", ALWAYS_RIGHT, rng).thought,
        solve(PROBLEM, "direct", ALWAYS_RIGHT, rng).answer,
    ) == ("", "7*3+25")
    assert solve(PROBLEM, "worked", ALWAYS_RIGHT, rng).thought == "7*3+25=21+25=46"
    assert solve(PROBLEM, "checked", ALWAYS_RIGHT, rng).thought == "7*3+25=21+25=46 check: yes."
    assert (
        solve(CHAIN, "direct", ALWAYS_RIGHT, rng).thought,
        solve(CHAIN, "direct", ALWAYS_RIGHT, rng).answer,
    ) == ("", "51")
    assert solve(CHAIN, "worked", ALWAYS_RIGHT, rng).thought == "12+5=17, 17*3=51"
    assert solve(CHAIN, "checked", ALWAYS_RIGHT, rng).thought == "12+5=17, 17*3=51 check: yes."


def attempts_of(thought: str) -> list[tuple[str, int, str]]:
    """Return expression, value and verdict of each attempt of a checked countdown thought."""
    parts = thought.split(" wait, ")
    found = [re.fullmatch(r"([^=]+)=.*=(\d+) check: (yes|no)\.", part) for part in parts]
    return [(match[1], int(match[2]), match[3]) for match in found if match is not None]


def test_checked_countdown_is_honest_and_never_repeats() -> None:
    rng = random.Random(1)
    lengths, given_up, found_late = [], 0, 0
    for _ in range(400):
        solution = solve(PROBLEM, "checked", OFTEN_WRONG, rng)
        attempts = attempts_of(solution.thought)
        assert len(attempts) == solution.thought.count("check:") <= OFTEN_WRONG.max_attempts
        values = [value for _, value, _ in attempts]
        assert len(set(values)) == len(values)
        assert all((verdict == "yes") == (value == PROBLEM.target) for _, value, verdict in attempts)
        assert all(verdict == "no" for _, _, verdict in attempts[:-1])
        assert solution.answer == attempts[-1][0]
        lengths.append(len(attempts))
        given_up += attempts[-1][2] == "no"
        found_late += attempts[-1][2] == "yes" and len(attempts) > 1
    assert given_up > 40 and found_late > 40
    assert 1 < sum(lengths) / 400 < 4


def test_hit_rate_is_the_accuracy_of_direct_and_worked() -> None:
    rng = random.Random(2)
    for problem, answers in ((PROBLEM, {"7*3+25"}), (CHAIN, {"51"})):
        for habit in ("direct", "worked"):
            right = sum(solve(problem, habit, OFTEN_WRONG, rng).answer in answers for _ in range(1000))
            assert 250 < right < 350  # 0.3 +- 3.4 standard errors


def test_wrong_attempts_are_near_the_target() -> None:
    rng = random.Random(3)
    near = replace(OFTEN_WRONG, hit_rate=0.01, nearness=2.0)
    values = [
        attempts_of(solve(PROBLEM, "checked", replace(near, persistence=0.0), rng).thought)[0][1]
        for _ in range(300)
    ]
    closest = min((value for value in PROBLEM.reachable if value != 46), key=lambda value: abs(value - 46))
    assert values.count(closest) > 150


def test_stubborn_solutions_use_all_attempts() -> None:
    stubborn = replace(OFTEN_WRONG, hit_rate=0.001, persistence=0.0, stubborn=1.0, max_attempts=5)
    assert solve(PROBLEM, "checked", stubborn, random.Random(0)).thought.count("check: no.") == 5


def test_wrong_chain_slips_once_and_goes_on_from_the_slip() -> None:
    rng = random.Random(4)
    for _ in range(50):
        solution = solve(CHAIN, "worked", replace(OFTEN_WRONG, hit_rate=1e-9), rng)
        first, second = re.fullmatch(
            r"12\+5=(\d+), "
            r"\1\*3=(-?\d+)",
            solution.thought,
        ).groups()  # type: ignore[union-attr]
        assert (int(first) != 17) != (int(second) != int(first) * 3)
        assert solution.answer == second


def test_remarks_of_several_languages_are_mixed_within_a_text() -> None:
    mixed = replace(OFTEN_WRONG, languages={"en": 0.75, "zh": 0.25}, persistence=0.9)
    thoughts = [
        solve(problem, "checked", mixed, random.Random(seed)).thought
        for seed in range(300)
        for problem in (PROBLEM, CHAIN)
    ]
    english, chinese = (sum(thought.count(word) for thought in thoughts) for word in ("check:", "查:"))
    assert chinese / (english + chinese) == pytest.approx(0.25, abs=0.04)
    assert sum("check:" in thought and "查:" in thought for thought in thoughts) > 200
    for thought in thoughts:
        for part in re.split(r" wait, | 等, ", thought):
            assert re.fullmatch(r"\S+(?:, \S+)* (check: (?:yes|no)\.|查: [是不]\.)", part), part
    only = replace(OFTEN_WRONG, languages={"zh": 1.0})
    assert (
        solve(PROBLEM, "checked", replace(only, hit_rate=1.0), random.Random(0)).thought
        == "7*3+25=21+25=46 查: 是."
    )
