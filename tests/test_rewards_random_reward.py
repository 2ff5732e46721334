"""The random reward: its rate, that it repeats itself, and that nothing of the answer gets into it."""

from __future__ import annotations

import dataclasses

import pytest

from r1rl.config.bundled import bundled_path
from r1rl.config.load import load_recipe
from r1rl.errors import RewardError
from tests.reward_helpers import load_built_in

RECIPES = bundled_path("recipes")
TEXTS = [f"<answer>{number}</answer>" for number in range(4000)]


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_rate(probability: float) -> None:
    found = load_built_in("random_reward")(TEXTS, ["a"] * 4000, probability=probability)
    assert set(found) <= {0.0, 1.0}
    # Four standard deviations of a share of 4,000 draws at 1/2: 0.032.
    assert sum(found) / 4000 == pytest.approx(probability, abs=0.032)


def test_a_draw_follows_from_seed_problem_and_text() -> None:
    reward = load_built_in("random_reward")
    found = reward(TEXTS, ["a"] * 4000)
    assert reward(TEXTS, ["a"] * 4000) == found
    turned = reward(TEXTS[::-1], ["a"] * 4000)
    assert turned[::-1] == found  # not from the place in the batch
    for other in (reward(TEXTS, ["b"] * 4000), reward(TEXTS, ["a"] * 4000, seed=1)):
        agreeing = sum(one == two for one, two in zip(found, other, strict=True)) / 4000
        assert agreeing == pytest.approx(0.5, abs=0.032)


def test_the_same_text_is_drawn_again() -> None:
    found = load_built_in("random_reward")(["same"] * 4000, ["a"] * 4000)
    assert sum(found) / 4000 == pytest.approx(0.5, abs=0.032)


def test_an_impossible_probability_stops_the_run() -> None:
    with pytest.raises(RewardError, match=r"between 0 and 1, not 1\.5"):
        load_built_in("random_reward")([], [], probability=1.5)


def test_the_control_differs_from_the_real_run_in_its_rewards_alone() -> None:
    real, control = (
        load_recipe("grpo", RECIPES / "zero_rl" / f"{name}.yaml") for name in ("tiny", "tiny_random_reward")
    )
    same = dataclasses.replace(control, run_name=real.run_name, rewards=real.rewards)
    assert same == real
    assert [(reward.function, reward.weight) for reward in control.rewards] == [
        ("random_reward", 1.0),
        ("countdown", 0.0),
    ]
    evaluation = load_recipe("evaluate", RECIPES / "evaluate" / "random_reward.yaml")
    runs = [f"{recipe.output_dir}/{recipe.run_name}" for recipe in (real, control)]
    assert [model.path for model in evaluation.models] == ["embedded", *runs]
    assert (
        evaluation.prompt == real.prompt
        and evaluation.max_completion_length == real.rollout.max_completion_length
    )
