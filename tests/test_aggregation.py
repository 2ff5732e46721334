"""Weights of tokens: golden numbers with their arithmetic. The oracle and TRL check them as part of the
loss.
"""

from __future__ import annotations

import pytest
import torch

from r1rl.objective.aggregation import count_trained, loss_weights, sequences_needed, trained_sequences
from r1rl.objective.config import AlgorithmConfig


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        # lengths 3, 1 and a truncated 2 in the minibatch; 10 tokens in 6 sequences in the rollout; limit 16
        ("grpo", [1 / 9, 1 / 3, 1 / 6]),
        ("dr_grpo", [1 / 48, 1 / 48, 1 / 48]),
        ("dapo", [1 / 5, 1 / 5, 1 / 5]),  # 10 tokens x 3 / 6 sequences = 5 tokens per minibatch
        ("bnpo", [1 / 6, 1 / 6, 1 / 6]),
    ],
)
def test_golden_weights(aggregation, expected):
    lengths, truncated = torch.tensor([3, 1, 2]), torch.tensor([False, False, True])
    config = AlgorithmConfig(aggregation=aggregation)
    trained = trained_sequences(lengths, truncated, config)
    counts = count_trained(lengths, trained)
    assert counts.tolist() == [3, 6]
    rollout = torch.tensor([6, 10], dtype=torch.float64)
    assert loss_weights(lengths, trained, counts, rollout, config, 16).tolist() == pytest.approx(
        expected, rel=1e-12
    )

    masked = AlgorithmConfig(aggregation=aggregation, mask_truncated=True)
    trained = trained_sequences(lengths, truncated, masked)
    counts = count_trained(lengths, trained)
    assert counts.tolist() == [3, 4]  # the masked sequence still counts as a sequence
    found = loss_weights(lengths, trained, counts, rollout, masked, 16).tolist()
    assert found == pytest.approx(
        [1 / 4, 1 / 4, 0] if aggregation == "bnpo" else [*expected[:2], 0.0], rel=1e-12
    )


def test_counts_of_processes_add_up():
    lengths, truncated, config = (
        torch.tensor([3, 1, 2, 7]),
        torch.zeros(4, dtype=torch.bool),
        AlgorithmConfig(aggregation="grpo"),
    )
    trained = trained_sequences(lengths, truncated, config)
    whole = count_trained(lengths, trained)
    parts = [count_trained(lengths[part], trained[part]) for part in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(parts[0] + parts[1], whole, rtol=0, atol=0)
    together = loss_weights(lengths, trained, whole, whole, config, 16)
    apart = torch.cat(
        [
            loss_weights(lengths[part], trained[part], whole, whole, config, 16)
            for part in (slice(0, 1), slice(1, 4))
        ]
    )
    torch.testing.assert_close(apart, together, rtol=0, atol=0)


def test_sequences_without_tokens_are_not_trained():
    lengths, truncated, config = (
        torch.tensor([0, 2]),
        torch.zeros(2, dtype=torch.bool),
        AlgorithmConfig(aggregation="grpo"),
    )
    trained = trained_sequences(lengths, truncated, config)
    assert trained.tolist() == [False, True]
    counts = count_trained(lengths, trained)
    assert loss_weights(lengths, trained, counts, counts, config, 16).tolist() == [0.0, 0.25]


def test_sequences_needed():
    advantages, trained = torch.tensor([1.0, 0.0, -1.0, 1.0]), torch.tensor([True, True, True, False])
    assert sequences_needed(advantages, trained, AlgorithmConfig()).tolist() == [True, False, True, False]
    assert sequences_needed(advantages, trained, AlgorithmConfig(surrogate="online_rft")).tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert sequences_needed(advantages, trained, AlgorithmConfig(beta=0.1)).tolist() == [
        True,
        True,
        True,
        False,
    ]
    assert sequences_needed(advantages, trained, AlgorithmConfig(entropy_coefficient=0.1)).tolist() == [
        True,
        True,
        True,
        False,
    ]
