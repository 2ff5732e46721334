"""Advantages: golden numbers with their arithmetic, the oracle, and properties."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
import torch

from r1rl.errors import RecipeError
from r1rl.objective.advantages import group_advantages, zero_variance_groups
from r1rl.objective.config import AlgorithmConfig
from tests.reference import grpo as reference

NAN = math.nan
BASELINES = ["group", "leave_one_out", "reinforce_plus_plus", "none"]
SCALES = ["group", "batch", "none"]
REFUSED = [("reinforce_plus_plus", "group"), ("reinforce_plus_plus", "none")]


def advantages(rewards: list[list[float]], **choices: object) -> list[list[float]]:
    return group_advantages(torch.tensor(rewards, dtype=torch.float64), AlgorithmConfig(**choices)).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        # mean 1/4, centred [3/4, -1/4, -1/4, -1/4], sum of squares 3/4; sample deviation sqrt(3/4 / 3) = 1/2
        ({"std_correction": "sample"}, [0.75 / 0.5001, -0.25 / 0.5001]),  # 1.49970, -0.49990
        # population deviation sqrt(3/4 / 4) = sqrt(3) / 4, which gives 1.73165
        (
            {"std_correction": "population"},
            [0.75 / (math.sqrt(3) / 4 + 1e-4), -0.25 / (math.sqrt(3) / 4 + 1e-4)],
        ),
        ({"scale": "none"}, [0.75, -0.25]),
        # 1 - mean(0, 0, 0) = 1 and 0 - mean(1, 0, 0) = -1/3
        ({"baseline": "leave_one_out", "scale": "none"}, [1.0, -1 / 3]),
        ({"baseline": "none", "scale": "none"}, [1.0, 0.0]),
        ({"baseline": "none", "scale": "group"}, [1 / 0.5001, 0.0]),
        ({"advantage_epsilon": 1e-6}, [0.75 / 0.500001, -0.25 / 0.500001]),
    ],
)
def test_one_right_answer_among_four(choices, expected):
    first, *others = advantages([[1.0, 0.0, 0.0, 0.0]], **choices)[0]
    assert first == pytest.approx(expected[0], rel=1e-12)
    assert others == pytest.approx([expected[1]] * 3, rel=1e-12)


def test_published_figures_for_one_right_answer_among_four():
    assert advantages([[1.0, 0.0, 0.0, 0.0]], std_correction="sample")[0][0] == pytest.approx(
        1.49970, abs=5e-6
    )
    assert advantages([[1.0, 0.0, 0.0, 0.0]], std_correction="population")[0][0] == pytest.approx(
        1.73165, abs=5e-6
    )


def test_batch_scale_divides_by_the_deviation_of_all_rewards():
    # rewards 1, 0, 1, 1: mean 3/4, sum of squares 1/16 * 3 + 9/16 = 3/4, population deviation sqrt(3/16) =
    # 0.4330127
    found = advantages([[1.0, 0.0], [1.0, 1.0]], scale="batch", std_correction="population")
    scale = math.sqrt(3) / 4 + 1e-4
    assert found[0] == pytest.approx([0.5 / scale, -0.5 / scale], rel=1e-12)
    assert found[1] == [0.0, 0.0]


def test_reinforce_plus_plus_divides_by_the_deviation_of_the_centred_rewards():
    # centred 1/2, -1/2, 0, 0: mean 0, sum of squares 1/2, population deviation sqrt(1/8) = 0.3535534
    found = advantages(
        [[1.0, 0.0], [1.0, 1.0]], baseline="reinforce_plus_plus", scale="batch", std_correction="population"
    )
    scale = math.sqrt(1 / 8) + 1e-4
    assert found[0] == pytest.approx([0.5 / scale, -0.5 / scale], rel=1e-12)
    assert found[1] == [0.0, 0.0]


@pytest.mark.parametrize(("baseline", "scale"), REFUSED)
def test_reinforce_plus_plus_refuses_other_scales(baseline, scale):
    with pytest.raises(RecipeError, match=r"algorithm.scale: batch"):
        advantages([[1.0, 0.0]], baseline=baseline, scale=scale)


def test_completions_without_reward_are_left_out():
    # known 1, 0: mean 1/2, sample deviation sqrt(1/2) = 0.7071068
    found = advantages([[1.0, NAN, 0.0, NAN]])[0]
    assert found == pytest.approx(
        [0.5 / (math.sqrt(0.5) + 1e-4), 0.0, -0.5 / (math.sqrt(0.5) + 1e-4), 0.0], rel=1e-12
    )
    assert advantages([[NAN, NAN], [NAN, 3.0]], scale="none") == [[0.0, 0.0], [0.0, 0.0]]
    # the mean of the others of 1, 0, 0.5: 1 - 1/4, 0 - 3/4, 1/2 - 1/2
    assert advantages([[1.0, NAN, 0.0, 0.5]], baseline="leave_one_out", scale="none")[0] == pytest.approx(
        [0.75, 0.0, -0.75, 0.0]
    )


@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
@pytest.mark.parametrize("scale", SCALES)
def test_a_group_without_spread_gets_exactly_zero(baseline, scale):
    # 0.1 + 0.2 differs from 0.3 by 5.6e-17; divided by epsilon alone that would be 5.6e-13, not 0
    found = advantages([[0.1 + 0.2, 0.3, 0.3], [1.0, 0.0, 0.0]], baseline=baseline, scale=scale)
    assert found[0] == [0.0, 0.0, 0.0]
    assert found[1][0] > 0


def test_without_baseline_a_group_without_spread_keeps_its_reward():
    assert advantages([[1.0, 1.0], [0.0, 0.0]], baseline="none", scale="none") == [[1.0, 1.0], [0.0, 0.0]]
    # rewards 1, 1, 0, 0: sample deviation sqrt(1 / 3)
    found = advantages([[1.0, 1.0], [0.0, 0.0]], baseline="none", scale="batch")
    assert found[0] == pytest.approx([1 / (math.sqrt(1 / 3) + 1e-4)] * 2, rel=1e-12)
    assert advantages([[1.0, 1.0], [0.0, 0.0]], baseline="none", scale="group") == [[0.0, 0.0], [0.0, 0.0]]


def test_zero_variance_groups():
    outcomes = torch.tensor(
        [[1, 1, 1], [1, 0, 1], [NAN, 1, 1], [NAN, 1, 0], [NAN] * 3, [NAN, NAN, 1], [0.5, 0.5 + 1e-7, 0.5]]
    )
    assert zero_variance_groups(outcomes.double(), 1e-6).tolist() == [
        True,
        False,
        True,
        False,
        True,
        True,
        True,
    ]
    assert zero_variance_groups(outcomes.double(), 0.0).tolist() == [
        True,
        False,
        True,
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("baseline", "scale"), [pair for pair in product(BASELINES, SCALES) if pair not in REFUSED]
)
@pytest.mark.parametrize("std_correction", ["population", "sample"])
def test_oracle(baseline, scale, std_correction):
    generator = random.Random(f"{baseline} {scale} {std_correction}")
    for _ in range(40):
        num_prompts, num_generations = generator.randint(1, 5), generator.randint(1, 6)
        values = generator.choice(
            [[0.0, 1.0], [0.0, 0.1, 0.2, 0.3, 1.1], [0.7], [generator.gauss(0, 1) for _ in range(20)]]
        )
        rewards = [
            [NAN if generator.random() < 0.15 else generator.choice(values) for _ in range(num_generations)]
            for _ in range(num_prompts)
        ]
        correction = 1 if std_correction == "sample" else 0
        expected = reference.advantages(rewards, baseline, scale, correction, 1e-4, 1e-6)
        found = advantages(rewards, baseline=baseline, scale=scale, std_correction=std_correction)
        torch.testing.assert_close(
            torch.tensor(found).double(), torch.tensor(expected).double(), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_are_not_changed_and_the_dtype_is_kept(dtype):
    rewards = torch.tensor([[1.0, NAN, 0.0], [0.25, 0.5, 1.0]], dtype=dtype)
    before = rewards.clone()
    for baseline in BASELINES:
        found = group_advantages(rewards, AlgorithmConfig(baseline=baseline, scale="batch"))
        assert found.dtype == dtype
        torch.testing.assert_close(rewards, before, rtol=0, atol=0, equal_nan=True)
        found.add_(1.0)  # the result never shares memory with the rewards
        torch.testing.assert_close(rewards, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scale", SCALES)
def test_shifting_all_rewards_of_a_prompt_changes_nothing_and_groups_sum_to_zero(scale):
    generator = torch.Generator().manual_seed(3)
    rewards = torch.rand(6, 8, generator=generator, dtype=torch.float64)
    shift = rewards if scale == "batch" else rewards + torch.arange(6.0, dtype=torch.float64)[:, None]
    config = AlgorithmConfig(scale=scale)
    torch.testing.assert_close(
        group_advantages(shift, config), group_advantages(rewards, config), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(
        group_advantages(rewards, config).sum(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12
    )
