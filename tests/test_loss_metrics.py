"""Metrics of the loss: only trained tokens count, and parts add up over micro-batches and processes."""

from __future__ import annotations

import pytest
import torch

from r1rl.objective.loss_metrics import LossMetrics


def measure(trained: list[bool], entropy: list[float], ratio: list[float]) -> LossMetrics:
    metrics = LossMetrics.start(torch.tensor(trained))
    metrics.mean("entropy", torch.tensor(entropy, dtype=torch.float64, requires_grad=True))
    metrics.mean("low", torch.tensor(ratio) < 0.8)
    metrics.extremes("ratio", torch.tensor(ratio))
    return metrics


PARTS = [
    ([True, True, False], [0.5, 1.0, 99.0], [1.0, 0.5, 99.0]),
    ([False, True], [-99.0, 3.0], [-99.0, 1.5]),
    ([False], [9.0], [9.0]),
]


def test_only_trained_tokens_count():
    assert measure(*PARTS[0]).values() == {"entropy": 0.75, "low": 0.5, "ratio/max": 1.0, "ratio/min": 0.5}
    assert measure(*PARTS[1]).values() == {"entropy": 3.0, "low": 0.0, "ratio/max": 1.5, "ratio/min": 1.5}


def test_without_trained_tokens_there_are_no_values():
    assert measure(*PARTS[2]).values() == {}
    assert LossMetrics.start(torch.tensor([False])).values() == {}


def test_a_value_that_is_not_finite_on_an_untrained_token_does_not_spread():
    metrics = measure([True, False], [1.0, float("nan")], [1.0, float("inf")])
    assert metrics.values() == {"entropy": 1.0, "low": 0.0, "ratio/max": 1.0, "ratio/min": 1.0}


def test_merged_parts_are_the_metrics_of_all_their_tokens():
    merged = LossMetrics.merge([measure(*part) for part in PARTS])
    # tokens 0.5, 1.0 and 3.0: their mean, not the mean of the micro-batches' means
    assert merged.values() == pytest.approx(
        {"entropy": 1.5, "low": 1 / 3, "ratio/max": 1.5, "ratio/min": 0.5}
    )
    with pytest.raises(ValueError, match="merged"):
        merged.mean("entropy", torch.zeros(3))


def test_processes_combine_sums_and_extremes_once_each():
    """The reducers stand for two processes that hold the first and the second part."""
    one, two = measure(*PARTS[0]), measure(*PARTS[1])
    calls: list[str] = []

    def reduce_sum(own: torch.Tensor) -> torch.Tensor:
        calls.append("sum")
        return own + torch.stack([two.count, *two.sums.values()]).double()

    def reduce_max(own: torch.Tensor) -> torch.Tensor:
        calls.append("max")
        # The minimum travels with its sign turned.
        return torch.maximum(own, torch.tensor([1.5, -1.5], dtype=torch.float64))

    assert one.values(reduce_sum, reduce_max) == pytest.approx(LossMetrics.merge([one, two]).values())
    assert calls == ["sum", "max"]


def test_everything_is_detached():
    metrics = measure(*PARTS[0])
    assert not any(
        tensor.requires_grad for tensor in (metrics.count, *metrics.sums.values(), *metrics.maxima.values())
    )
