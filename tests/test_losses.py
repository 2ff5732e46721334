"""The loss: golden numbers with their arithmetic, and the oracle for every combination, values and gradients.

Legend: N completion tokens, R sequences, V vocabulary.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from itertools import product

import pytest
import torch

from r1rl.objective.aggregation import count_trained, loss_weights, sequences_needed, trained_sequences
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.losses import LossInputs, policy_loss
from tests.reference import grpo as reference

VOCABULARY = 5
MAX_LENGTH = 16


def one_token(advantage: float, ratio: float, **choices: object) -> tuple[float, float, dict[str, float]]:
    """Return loss, gradient with respect to the logprob (-1 there) and metrics of a single token."""
    logprobs = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    inputs = LossInputs(
        sequence_N=torch.tensor([0]),
        lengths_R=torch.tensor([1]),
        advantages_R=torch.tensor([advantage], dtype=torch.float64),
        weights_R=torch.tensor([1.0], dtype=torch.float64),
        old_logprobs_N=torch.tensor([-1.0 - math.log(ratio)], dtype=torch.float64),
    )
    loss, metrics = policy_loss(logprobs, None, inputs, AlgorithmConfig(**choices))  # type: ignore[arg-type]
    loss.backward()
    return loss.item(), logprobs.grad.item(), metrics.values()


@pytest.mark.parametrize(
    ("choices", "advantage", "ratio", "loss", "gradient", "low", "high"),
    [
        # inside the bounds: -rho A, and its gradient is the same number, because d rho / d log pi = rho
        ({}, 2.0, 1.1, -2.2, -2.2, 0, 0),
        ({}, -2.0, 0.9, 1.8, 1.8, 0, 0),
        # outside, on the side that would go further: -clip(rho) A and no gradient
        ({}, 2.0, 1.5, -2.4, 0.0, 0, 1),
        ({}, -2.0, 0.5, 1.6, 0.0, 1, 0),
        # outside, on the side that comes back: not clipped
        ({}, 2.0, 0.5, -1.0, -1.0, 0, 0),
        ({}, -2.0, 1.5, 3.0, 3.0, 0, 0),
        # epsilon_high apart from epsilon_low
        ({"epsilon_high": 0.28}, 1.0, 1.25, -1.25, -1.25, 0, 0),
        ({"epsilon_high": 0.28}, 1.0, 1.5, -1.28, 0.0, 0, 1),
        # the two-sided clip: min(rho, delta) A where A is negative
        ({"delta": 4.0}, -1.0, 3.0, 3.0, 3.0, 0, 0),
        ({"delta": 4.0}, -1.0, 10.0, 4.0, 0.0, 0, 0),
        ({"delta": 4.0}, 1.0, 10.0, -1.2, 0.0, 0, 1),
        # cispo: -clip(rho) A log pi with log pi = -1; the gradient is -clip(rho) A also outside the bounds
        ({"surrogate": "cispo"}, 2.0, 1.1, 2.2, -2.2, 0, 0),
        ({"surrogate": "cispo"}, 2.0, 1.5, 2.4, -2.4, 0, 1),
        ({"surrogate": "cispo"}, -2.0, 1.5, -2.4, 2.4, 0, 1),
        ({"surrogate": "cispo"}, -2.0, 0.5, -1.6, 1.6, 1, 0),
        ({"surrogate": "cispo", "epsilon_low": 1.0}, -2.0, 0.5, -1.0, 1.0, 0, 0),
    ],
)
def test_golden_surrogates(choices, advantage, ratio, loss, gradient, low, high):
    found_loss, found_gradient, metrics = one_token(advantage, ratio, **choices)
    assert found_loss == pytest.approx(loss, rel=1e-12)
    assert found_gradient == pytest.approx(gradient, rel=1e-12)
    assert metrics["clip_ratio/low_mean"] == low
    assert metrics["clip_ratio/high_mean"] == high
    assert metrics["ratio/min"] == metrics["ratio/max"] == pytest.approx(ratio)


def test_golden_online_rft():
    # - log pi where A > 0, whatever the size of A and the ratio; nothing elsewhere
    assert one_token(0.3, 1.7, surrogate="online_rft")[:2] == pytest.approx((1.0, -1.0))
    assert one_token(-0.3, 1.7, surrogate="online_rft")[:2] == (0.0, 0.0)
    assert one_token(0.0, 1.7, surrogate="online_rft")[:2] == (0.0, 0.0)


def two_sequences(**choices: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Return loss and gradient for lengths 3 and 1.

    The advantages are 1 and -1, the log ratios [0.3, 0, -0.3 | 0.1], the weights 1.
    """
    logprobs = torch.tensor([-0.7, -1.0, -1.3, -0.9], dtype=torch.float64, requires_grad=True)
    inputs = LossInputs(
        sequence_N=torch.tensor([0, 0, 0, 1]),
        lengths_R=torch.tensor([3, 1]),
        advantages_R=torch.tensor([1.0, -1.0], dtype=torch.float64),
        weights_R=torch.ones(2, dtype=torch.float64),
        old_logprobs_N=torch.full((4,), -1.0, dtype=torch.float64),
    )
    loss, _ = policy_loss(logprobs, None, inputs, AlgorithmConfig(**choices))  # type: ignore[arg-type]
    loss.backward()
    return loss.detach(), logprobs.grad


def test_golden_sequence_ratio():
    # Sequence 0: mean log ratio (0.3 + 0 - 0.3) / 3 = 0, ratio 1, three tokens of -1; each logprob gets -1 /
    # 3 from each of them, -1.
    # Sequence 1: ratio exp(0.1) = 1.105171, loss +1.105171 and the same gradient.
    loss, gradient = two_sequences(importance_level="sequence")
    assert loss.item() == pytest.approx(-3 + math.exp(0.1), rel=1e-12)
    assert gradient.tolist() == pytest.approx([-1, -1, -1, math.exp(0.1)], rel=1e-12)
    # Token ratios for comparison: exp(0.3) = 1.349859 is clipped to 1.2, exp(-0.3) = 0.740818 comes back.
    loss, gradient = two_sequences()
    assert loss.item() == pytest.approx(-1.2 - 1 - math.exp(-0.3) + math.exp(0.1), rel=1e-12)
    assert gradient.tolist() == pytest.approx([0, -1, -math.exp(-0.3), math.exp(0.1)], rel=1e-12)


# ------------------------------------------------------------
# the oracle


def random_sequences(
    seed: object, count: int, with_old: bool = True, with_sampler: bool = True
) -> list[reference.Sequence]:
    """Return sequences of 1 to 6 tokens whose ratios lie inside and outside of every bound."""
    generator = random.Random(str(seed))
    sequences = []
    for _ in range(count):
        length = generator.randint(1, 6)
        logits = torch.tensor(
            [[generator.gauss(0, 1) for _ in range(VOCABULARY)] for _ in range(length)], dtype=torch.float64
        )
        tokens = [generator.randrange(VOCABULARY) for _ in range(length)]
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()
        old = [value + generator.gauss(0, 0.6) for value in logprobs]
        sequences.append(
            reference.Sequence(
                logits=logits.requires_grad_(),
                tokens=tokens,
                advantage=generator.choice([-1.5, -0.4, 0.0, 0.7, 2.0]),
                truncated=generator.random() < 0.3,
                old=old if with_old else None,
                sampler=[value + generator.gauss(0, 0.8) for value in (old if with_old else logprobs)]
                if with_sampler
                else None,
                reference=[value + generator.gauss(0, 0.5) for value in logprobs],
            )
        )
    return sequences


def as_config(options: reference.Options) -> AlgorithmConfig:
    """Return the same choices, for r1rl."""
    own = {
        name: value
        for name, value in asdict(options).items()
        if name not in ("temperature", "max_completion_length")
    }
    return AlgorithmConfig(**own)


def flat(values: list[list[float] | None]) -> torch.Tensor | None:
    return (
        None
        if values[0] is None
        else torch.tensor([value for row in values for value in row], dtype=torch.float64)
    )


def our_loss(
    minibatch: list[reference.Sequence],
    options: reference.Options,
    rollout: list[reference.Sequence],
    cuts: list[slice],
    leave_out: bool = False,
) -> torch.Tensor:
    """Return r1rl's loss of a minibatch, cut into micro-batches."""
    config = as_config(options)

    def trained_counts(
        sequences: list[reference.Sequence],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        lengths = torch.tensor([len(sequence.tokens) for sequence in sequences])
        trained = trained_sequences(
            lengths, torch.tensor([sequence.truncated for sequence in sequences]), config
        )
        return lengths, trained, count_trained(lengths, trained)

    lengths, trained, counts = trained_counts(minibatch)
    weights = loss_weights(
        lengths, trained, counts, trained_counts(rollout)[2], config, options.max_completion_length
    )
    advantages = torch.tensor([sequence.advantage for sequence in minibatch], dtype=torch.float64)
    needed = sequences_needed(advantages, trained, config)
    total = torch.zeros((), dtype=torch.float64)
    for cut in cuts:
        rows = [row for row in range(len(minibatch))[cut] if needed[row] or not leave_out]
        if not rows:
            continue
        chosen = [minibatch[row] for row in rows]
        logprobs_NV = (torch.cat([sequence.logits for sequence in chosen]) / options.temperature).log_softmax(
            -1
        )
        logprobs = logprobs_NV.gather(
            1, torch.tensor([token for sequence in chosen for token in sequence.tokens])[:, None]
        )[:, 0]
        inputs = LossInputs(
            sequence_N=torch.repeat_interleave(torch.arange(len(rows)), lengths[rows]),
            lengths_R=lengths[rows],
            advantages_R=advantages[rows],
            weights_R=weights[rows],
            old_logprobs_N=flat([sequence.old for sequence in chosen]),
            sampler_logprobs_N=flat([sequence.sampler for sequence in chosen]),
            reference_logprobs_N=flat([sequence.reference for sequence in chosen]),
        )
        total = total + policy_loss(logprobs, -(logprobs_NV.exp() * logprobs_NV).sum(-1), inputs, config)[0]
    return total


def gradients(loss: torch.Tensor, sequences: list[reference.Sequence]) -> torch.Tensor:
    logits = [sequence.logits for sequence in sequences]
    found = (
        torch.autograd.grad(loss, logits, allow_unused=True) if loss.requires_grad else [None] * len(logits)
    )
    return torch.cat(
        [torch.zeros_like(row) if grad is None else grad for row, grad in zip(logits, found, strict=True)]
    )


def assert_equals_oracle(
    rollout: list[reference.Sequence], options: reference.Options, leave_out: bool = False
) -> None:
    """Compare value and gradient of a minibatch (all but the last two sequences) with the oracle's.

    They are computed in one micro-batch and in micro-batches of two.
    """
    minibatch = rollout[:-2]
    expected = reference.loss(minibatch, options, rollout)
    expected_gradient = gradients(expected, minibatch)
    for cuts in ([slice(None)], [slice(start, start + 2) for start in range(0, len(minibatch), 2)]):
        found = our_loss(minibatch, options, rollout, cuts, leave_out)
        if not leave_out:
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradients(found, minibatch), expected_gradient, rtol=1e-9, atol=1e-12)


AGGREGATIONS = ["grpo", "dr_grpo", "dapo", "bnpo"]
SURROGATES = [
    {"surrogate": "clip"},
    {"surrogate": "clip", "delta": 1.6, "epsilon_high": 0.28},
    {"surrogate": "cispo"},
    {"surrogate": "online_rft"},
]
PENALTIES = [
    {},
    *(
        {"beta": 0.3, "kl_estimator": name, "kl_bias_correction": flag}
        for name in ("k1", "k2", "k3")
        for flag in (False, True)
    ),
]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("choices", SURROGATES, ids=str)
def test_oracle_for_every_combination(aggregation, level, choices):
    for penalty, bonus, (mask, cap) in product(PENALTIES, (0.0, 0.05), ((False, None), (True, 1.5))):
        options = reference.Options(
            aggregation=aggregation, importance_level=level, entropy_coefficient=bonus, mask_truncated=mask,
            importance_cap=cap, **choices, **penalty,
        )  # fmt: skip
        assert_equals_oracle(random_sequences((aggregation, level, choices, bonus, mask), count=6), options)


def test_oracle_on_random_cases():
    generator = random.Random(0)
    for case in range(150):
        options = reference.Options(
            surrogate=generator.choice(["clip", "cispo", "online_rft"]),
            aggregation=generator.choice(AGGREGATIONS),
            importance_level=generator.choice(["token", "sequence"]),
            epsilon_low=generator.uniform(0.05, 1.0),
            epsilon_high=generator.uniform(0.05, 0.5),
            delta=generator.choice([None, generator.uniform(1.51, 3.0)]),
            beta=generator.choice([0.0, generator.uniform(0, 0.5)]),
            kl_estimator=generator.choice(["k1", "k2", "k3"]),
            kl_bias_correction=generator.random() < 0.5,
            entropy_coefficient=generator.choice([0.0, generator.uniform(-0.1, 0.1)]),
            importance_cap=generator.choice([None, generator.uniform(0.5, 3.0)]),
            mask_truncated=generator.random() < 0.5,
            temperature=generator.uniform(0.5, 1.5),
            max_completion_length=generator.randint(6, 32),
        )
        rollout = random_sequences(
            case,
            generator.randint(3, 9),
            with_old=generator.random() < 0.7,
            with_sampler=generator.random() < 0.5,
        )
        assert_equals_oracle(rollout, options)


@pytest.mark.parametrize("choices", [*SURROGATES, {"beta": 0.1}, {"entropy_coefficient": 0.1}], ids=str)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_leaving_out_sequences_that_are_not_needed_changes_no_gradient(choices, aggregation):
    for seed, mask in product(range(4), (False, True)):
        options = reference.Options(aggregation=aggregation, mask_truncated=mask, **choices)
        assert_equals_oracle(random_sequences(seed, 8), options, leave_out=True)


def test_several_iterations_on_the_same_rollout():
    """Three gradient steps with the old logprobs of the first policy: the losses and parameters follow the
    oracle's.
    """
    options = reference.Options(beta=0.05, aggregation="grpo")
    ours, theirs = (
        random_sequences("iterations", 5, with_old=False),
        random_sequences("iterations", 5, with_old=False),
    )
    for sequence in (*ours, *theirs):
        sequence.old = [value.item() for value in reference.token_logprobs(sequence, options)]
    for _ in range(3):
        loss, expected = (
            our_loss(ours, options, ours, [slice(0, 2), slice(2, 5)]),
            reference.loss(theirs, options),
        )
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
        for value, sequences in ((loss, ours), (expected, theirs)):
            for sequence, gradient in zip(
                sequences, torch.autograd.grad(value, [s.logits for s in sequences]), strict=True
            ):
                sequence.logits = (sequence.logits - 3.0 * gradient).detach().requires_grad_()
    ratios = [(a - b) for s in ours for a, b in zip(reference.token_logprobs(s, options), s.old, strict=True)]
    # The steps were large enough for the clip to matter.
    assert max(abs(value.item()) for value in ratios) > 0.3


# ------------------------------------------------------------
# metrics


def metric_case(weights: list[float]) -> tuple[torch.Tensor, LossInputs]:
    logprobs = torch.tensor([-1.0, -1.0, -1.0, -1.0], dtype=torch.float64, requires_grad=True)
    return logprobs, LossInputs(
        sequence_N=torch.tensor([0, 0, 0, 1]),
        lengths_R=torch.tensor([3, 1]),
        advantages_R=torch.tensor([1.0, -1.0], dtype=torch.float64),
        weights_R=torch.tensor(weights, dtype=torch.float64),
        old_logprobs_N=torch.tensor([-1.5, -1.0, -0.5, -0.8], dtype=torch.float64),
        sampler_logprobs_N=torch.tensor([-1.5, -2.0, -0.6, -0.8], dtype=torch.float64),
        reference_logprobs_N=torch.tensor([-1.0, -2.0, -1.0, -1.0], dtype=torch.float64),
    )


def test_golden_metrics():
    logprobs, inputs = metric_case([1.0, 1.0])
    entropy = torch.tensor([0.5, 1.0, 1.5, 3.0], dtype=torch.float64)
    loss, metrics = policy_loss(logprobs, entropy, inputs, AlgorithmConfig(beta=0.1))
    values = metrics.values()
    # ratios exp(0.5) = 1.649, 1, exp(-0.5) = 0.607 with A = 1; exp(-0.2) = 0.819 with A = -1
    assert values["ratio/max"] == pytest.approx(math.exp(0.5))
    assert values["ratio/min"] == pytest.approx(math.exp(-0.5))
    assert values["clip_ratio/high_mean"] == 0.25
    assert values["clip_ratio/low_mean"] == 0.0
    assert values["entropy"] == 1.5
    assert values["kl"] == pytest.approx((math.exp(-1) - 1 + 1) / 4)  # d = 0, 1, 0, 0
    # old - sampler: 0, 1, 0.1, 0; exp(1) is above the cap of 2
    assert values["sampler/logprob_diff_mean"] == pytest.approx(1.1 / 4)
    assert values["sampler/logprob_diff_max"] == pytest.approx(1.0)
    assert values["sampler/capped_mean"] == 0.25
    # -1.2, -2 x 1, -exp(0.1) exp(-0.5), +exp(-0.2), and the KL term
    assert loss.item() == pytest.approx(-1.2 - 2.0 - math.exp(-0.4) + math.exp(-0.2) + 0.1 * math.exp(-1))


def test_inputs_are_not_changed():
    logprobs, inputs = metric_case([1.0, 0.5])
    entropy = torch.tensor([0.5, 1.0, 1.5, 3.0], dtype=torch.float64)
    before = {name: value.clone() for name, value in asdict(inputs).items()} | {
        "logprobs": logprobs.detach().clone()
    }
    for choices in (
        {},
        {"surrogate": "cispo"},
        {"importance_level": "sequence", "delta": 3.0, "beta": 0.1, "entropy_coefficient": 0.1},
    ):
        policy_loss(logprobs, entropy, inputs, AlgorithmConfig(**choices))[0].backward()
    for name, value in (asdict(inputs) | {"logprobs": logprobs.detach()}).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("choices", "message"), [({"beta": 0.1}, "reference"), ({"entropy_coefficient": 0.1}, "entropy")]
)
def test_missing_inputs_are_named(choices, message):
    logprobs, inputs = metric_case([1.0, 1.0])
    without = LossInputs(inputs.sequence_N, inputs.lengths_R, inputs.advantages_R, inputs.weights_R)
    with pytest.raises(ValueError, match=message):
        policy_loss(logprobs, None, without, AlgorithmConfig(**choices))


@pytest.mark.gpu
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_loss_on_a_gpu_equals_the_cpu_and_never_waits(level):
    config = AlgorithmConfig(beta=0.1, entropy_coefficient=0.1, importance_level=level, delta=3.0)
    logprobs, inputs = metric_case([1.0, 0.5])
    entropy = torch.tensor([0.5, 1.0, 1.5, 3.0], dtype=torch.float64)
    loss, metrics = policy_loss(logprobs, entropy, inputs, config)
    loss.backward()
    there = {name: value.cuda() for name, value in asdict(inputs).items()}
    logprobs_there, entropy_there = logprobs.detach().cuda().requires_grad_(), entropy.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_there, metrics_there = policy_loss(logprobs_there, entropy_there, LossInputs(**there), config)
        loss_there.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(loss_there.cpu(), loss)
    torch.testing.assert_close(logprobs_there.grad.cpu(), logprobs.grad)
    assert metrics_there.values() == pytest.approx(metrics.values())
