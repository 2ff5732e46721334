"""The learning-rate schedule against hand-worked values, and which parameters decay."""

from __future__ import annotations

import pytest
import torch

from r1rl.compute.optimization import learning_rate_factor, make_optimizer, make_schedule
from r1rl.config.schema import OptimizerConfig


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("constant", 0, 0.25),  # warm-up of 4: (0 + 1) / 4
        ("constant", 3, 1.0),  # (3 + 1) / 4
        ("constant", 11, 1.0),
        ("linear", 4, 1.0),  # 0 of the 8 steps after the warm-up
        ("linear", 6, 0.75),  # 2 of 8
        ("linear", 12, 0.0),
        ("linear", 20, 0.0),  # never negative
        ("cosine", 8, 0.5),  # half way: (1 + cos(pi / 2)) / 2
        ("cosine", 6, 0.8535533905932737),  # a quarter: (1 + cos(pi / 4)) / 2
    ],
)
def test_learning_rate_factor(schedule: str, step: int, factor: float) -> None:
    config = OptimizerConfig(schedule=schedule, warmup_steps=4)  # type: ignore[arg-type]
    assert learning_rate_factor(step, 12, config) == pytest.approx(factor, abs=1e-12)


def test_schedule_starts_with_the_first_step_of_the_warm_up() -> None:
    model = torch.nn.Linear(2, 2)
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=2)
    optimizer = make_optimizer(model, config)
    schedule = make_schedule(optimizer, 10, config)
    rates = []
    for _ in range(3):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.05, 0.1, 0.1])


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("constant", 0, 1 / 6),  # a warm-up of 2 steps with 3 optimizer steps each: (0 + 1) / 6
        ("constant", 5, 1.0),  # (5 + 1) / 6
        ("linear", 6, 1.0),  # 0 of the 24 optimizer steps after the warm-up: 10 steps are 30, less 6
        ("linear", 12, 0.75),  # 6 of 24
        ("linear", 29, 1 / 24),  # 23 of 24: the last optimizer step
        ("cosine", 18, 0.5),  # 12 of 24: (1 + cos(pi / 2)) / 2
    ],
)
def test_warm_up_and_decay_count_the_steps_of_max_steps(schedule: str, step: int, factor: float) -> None:
    """A step may make several optimizer steps; all keys that end in _steps count the same steps."""
    config = OptimizerConfig(schedule=schedule, warmup_steps=2)  # type: ignore[arg-type]
    assert learning_rate_factor(step, 10, config, 3) == pytest.approx(factor, abs=1e-12)


def test_only_matrices_decay() -> None:
    model = torch.nn.Linear(3, 2)
    model.weight.data.fill_(1.0)
    model.bias.data.fill_(1.0)
    optimizer = make_optimizer(model, OptimizerConfig(learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # Decoupled decay with a zero gradient: 1 - 0.1 * 0.5.
    torch.testing.assert_close(model.weight.data, torch.full((2, 3), 0.95))
    torch.testing.assert_close(model.bias.data, torch.ones(2))
