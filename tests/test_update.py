"""The whole update against the float64 oracle: optimizer steps on a model's parameters, in every layout; and
what it must not do.

The optimizer is plain gradient descent, so the change of the parameters is the sum of the gradients.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel
from update_helpers import LAYOUTS, build, random_rollout

from r1rl.config.schema import DataConfig, OptimizerConfig, RewardConfig, UpdateConfig
from r1rl.grpo.recipe import GRPORecipe, PolicyRolloutConfig
from r1rl.grpo.update import PolicyUpdate
from r1rl.monitor import metric_names as names
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.sampling import Sampling
from r1rl.policy.batching import TrainBatch
from r1rl.policy.logprobs import PolicyForward
from r1rl.policy.packing import Layout
from tests.reference import grpo as reference

RATE = 0.05
SAMPLING = Sampling(max_completion_length=20, temperature=0.8)


def recipe_of(algorithm: AlgorithmConfig, update: UpdateConfig) -> GRPORecipe:
    return GRPORecipe(
        run_name="test",
        data=DataConfig(source="countdown"),
        rewards=[RewardConfig(function="countdown")],
        rollout=PolicyRolloutConfig(max_completion_length=20, temperature=0.8),
        algorithm=algorithm,
        optimizer=OptimizerConfig(max_grad_norm=0.0),
        update=update,
    )


class Setup:
    """A policy, its reference, and the update between them."""

    def __init__(
        self,
        model: PreTrainedModel,
        algorithm: AlgorithmConfig,
        layout: Layout,
        update: UpdateConfig | None = None,
        sampler_is_exact: bool = False,
    ) -> None:
        update = update or UpdateConfig()
        self.model = model
        self.policy = PolicyForward(model, SAMPLING, update.logprob_chunk)
        frozen = shifted(copy.deepcopy(model))
        self.reference = PolicyForward(frozen, SAMPLING, update.logprob_chunk) if algorithm.beta else None
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        self.update = PolicyUpdate(
            recipe_of(algorithm, update), Accelerator(cpu=True), self.policy, self.reference, [model, frozen],
            layout, optimizer, schedule, sampler_is_exact,
        )  # fmt: skip


def shifted(model: PreTrainedModel) -> PreTrainedModel:
    """Return another policy."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    return model


def oracle_parameters(
    model: PreTrainedModel, batch: TrainBatch, algorithm: AlgorithmConfig, old_is_sampler: bool = False
) -> dict[str, torch.Tensor]:
    """Return the parameters after the update, computed one sequence at a time in float64.

    With `old_is_sampler` the batch's sampler logprobs are those of the old policy.
    """
    model = copy.deepcopy(model).double()
    frozen = shifted(copy.deepcopy(model))
    names = (
        "surrogate", "aggregation", "importance_level", "epsilon_low", "epsilon_high", "delta", "beta",
        "kl_estimator", "kl_bias_correction", "entropy_coefficient", "importance_cap", "mask_truncated",
    )  # fmt: skip
    options = reference.Options(
        **{name: getattr(algorithm, name) for name in names}, temperature=0.8, max_completion_length=20
    )

    def sequence(row: int, policy: PreTrainedModel) -> reference.Sequence:
        start, length = int(batch.starts_B[row]), int(batch.lengths_B[row])
        prompt, tokens = list(batch.prompt_ids[row]), batch.completion_ids_K[start : start + length].tolist()
        logits = policy(input_ids=torch.tensor([prompt + tokens]), use_cache=False).logits[
            0, len(prompt) - 1 : -1
        ]
        return reference.Sequence(
            logits, tokens, float(batch.advantages_B[row]), bool(batch.truncated_B[row])
        )

    def logprobs(row: int, policy: PreTrainedModel) -> list[float]:
        return [value.item() for value in reference.token_logprobs(sequence(row, policy), options)]

    rows = range(batch.num_sequences)
    several = algorithm.num_iterations * algorithm.num_minibatches > 1

    def sampled(row: int) -> list[float] | None:
        if batch.sampler_logprobs_K is None:
            return None
        start, length = int(batch.starts_B[row]), int(batch.lengths_B[row])
        return batch.sampler_logprobs_K[start : start + length].double().tolist()

    old = {row: sampled(row) if old_is_sampler else logprobs(row, model) if several else None for row in rows}
    ground = {row: logprobs(row, frozen) for row in rows}
    size = batch.num_sequences // algorithm.num_minibatches
    for step in range(algorithm.num_iterations * algorithm.num_minibatches):
        rollout = [replace_fixed(sequence(row, model), old[row], sampled(row), ground[row]) for row in rows]
        first = step % algorithm.num_minibatches * size
        model.zero_grad()
        reference.loss(rollout[first : first + size], options, rollout).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(RATE * parameter.grad)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def replace_fixed(
    sequence: reference.Sequence, old: list[float] | None, sampler: list[float] | None, ground: list[float]
) -> reference.Sequence:
    return replace(sequence, old=old, sampler=sampler, reference=ground)


def plain_rollout(seed: int) -> TrainBatch:
    """Return a rollout without anybody's logprobs: the update computes what it needs."""
    return replace(random_rollout(seed), old_logprobs_K=None, reference_logprobs_K=None)


ALGORITHMS: dict[str, dict[str, Any]] = {
    "default": {},
    "two passes of three minibatches": {"num_iterations": 2, "num_minibatches": 3, "epsilon_high": 0.28},
    "kl and entropy": {"beta": 0.1, "entropy_coefficient": 0.02, "aggregation": "grpo"},
    "gspo": {"importance_level": "sequence", "num_minibatches": 3, "aggregation": "grpo"},
    "truncated masked": {
        "mask_truncated": True,
        "aggregation": "bnpo",
        "surrogate": "cispo",
        "num_iterations": 2,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_optimizer_steps_are_the_oracles(algorithm, layout):
    config, batch, model = AlgorithmConfig(**ALGORITHMS[algorithm]), plain_rollout(3), build("qwen3")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    expected = oracle_parameters(model, batch, config)
    Setup(model, config, LAYOUTS[layout], UpdateConfig(micro_batch_tokens=60, logprob_chunk=16)).update.run(
        batch
    )
    moved = math.sqrt(sum(float((expected[name] - before[name]).square().sum()) for name in before))
    wrong = math.sqrt(
        sum(
            float((expected[name] - parameter.detach()).square().sum())
            for name, parameter in model.named_parameters()
        )
    )
    assert moved > 1e-3
    # float32 against float64: the parameters themselves are rounded to 6e-8
    assert wrong < 2e-5 * moved + 1e-7 * math.sqrt(
        sum(float(value.square().sum()) for value in before.values())
    )


@pytest.mark.parametrize("name", ["qwen2", "llama", "mistral", "gemma2"])
def test_optimizer_step_of_other_architectures_is_the_oracles(name):
    batch, model = plain_rollout(4), build(name)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    expected = oracle_parameters(model, batch, AlgorithmConfig())
    Setup(model, AlgorithmConfig(), LAYOUTS["shared"]).update.run(batch)
    moved = torch.cat(
        [(value - start).flatten() for value, start in zip(expected.values(), before, strict=True)]
    )
    wrong = torch.cat(
        [
            (value - found.detach()).flatten()
            for value, found in zip(expected.values(), model.parameters(), strict=True)
        ]
    )
    assert wrong.norm() < 2e-5 * moved.norm() + 1e-7 * torch.cat([start.flatten() for start in before]).norm()


LAGGED: dict[str, tuple[dict[str, Any], bool]] = {
    "clip": ({}, True),
    "clip, three minibatches": ({"num_minibatches": 3}, True),
    "gspo": ({"importance_level": "sequence", "aggregation": "grpo"}, True),
    "cispo": ({"surrogate": "cispo", "epsilon_low": 1.0}, True),
    "kl with its bias corrected": ({"beta": 0.1, "kl_bias_correction": True}, True),
    "online rft": ({"surrogate": "online_rft"}, False),
    "online rft, three minibatches": ({"surrogate": "online_rft", "num_minibatches": 3}, False),
}
"""The objective, and whether with a sampler that computes as the trainer does the ratio corrects for the lag
(else the weight c does).
"""


@pytest.mark.parametrize("sampler_is_exact", [True, False])
@pytest.mark.parametrize("case", LAGGED)
def test_lag_of_the_sampler_is_corrected_once_as_the_oracle_does(case, sampler_is_exact):
    """The completions are of another policy, whose log-probabilities differ from the trained one's by about
    0.3.
    """
    choices, has_ratio = LAGGED[case]
    config, model = AlgorithmConfig(importance_cap=1.2, **choices), build("qwen3")
    batch = random_rollout(3)
    batch = replace(
        batch,
        sampler_logprobs_K=batch.old_logprobs_K,
        old_logprobs_K=None,
        reference_logprobs_K=None,
        lagged=True,
    )
    before = [parameter.detach().clone() for parameter in model.parameters()]
    expected = oracle_parameters(model, batch, config, old_is_sampler=sampler_is_exact and has_ratio)
    metrics = Setup(model, config, LAYOUTS["shared"], sampler_is_exact=sampler_is_exact).update.run(batch)
    moved = torch.cat(
        [(value - start).flatten() for value, start in zip(expected.values(), before, strict=True)]
    )
    wrong = torch.cat(
        [
            (value - found.detach()).flatten()
            for value, found in zip(expected.values(), model.parameters(), strict=True)
        ]
    )
    assert moved.norm() > 1e-3
    assert wrong.norm() < 2e-5 * moved.norm() + 1e-7 * torch.cat([start.flatten() for start in before]).norm()
    in_ratio = sampler_is_exact and has_ratio
    assert (metrics[names.LOGPROB_DIFF_MEAN] < 1e-6) == in_ratio  # what is left for the weight c
    assert (metrics[names.CAPPED_SHARE] > 0.1) == (not in_ratio)


def test_lag_is_not_corrected_where_there_is_none():
    """The same batch of the policy itself: no ratio to the sampler, so its logprobs only set the weight c,
    which is 1 without a cap.
    """
    batch = plain_rollout(3)
    sampled = replace(batch, sampler_logprobs_K=random_rollout(3).old_logprobs_K)
    config, found = AlgorithmConfig(importance_cap=None), []
    for each in (batch, sampled, replace(sampled, lagged=True)):
        model = build("qwen3")
        Setup(model, config, LAYOUTS["shared"], sampler_is_exact=True).update.run(each)
        found.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-5)


def test_metrics_do_not_depend_on_the_layout():
    results = []
    for layout in LAYOUTS.values():
        algorithm = AlgorithmConfig(beta=0.1, num_iterations=2)
        results.append(
            Setup(build("qwen2"), algorithm, layout, UpdateConfig(micro_batch_tokens=70)).update.run(
                plain_rollout(5)
            )
        )
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-4, abs=1e-5)
    assert results[0][names.TRAINED_SHARE] == 1.0


@contextmanager
def count_tokens(policy: nn.Module) -> Iterator[list[int]]:
    """Count the positions of each forward pass."""
    seen: list[int] = []
    handle = policy.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].numel()))
    try:
        yield seen
    finally:
        handle.remove()


def test_groups_without_signal_cost_nothing():
    batch = plain_rollout(6)
    setup = Setup(build("qwen3"), AlgorithmConfig(), LAYOUTS["shared"])
    with count_tokens(setup.policy) as seen:
        setup.update.run(batch)
    needed = [row for row in range(12) if batch.advantages_B[row] != 0]
    prompts = {batch.prompt_ids[row] for row in needed}
    assert seen == [sum(map(len, prompts)) + sum(int(batch.lengths_B[row]) - 1 for row in needed)]
    assert needed == list(range(8))


def test_nothing_is_computed_for_what_the_objective_does_not_use():
    """One optimizer step without a KL term is one forward pass; the old policy and the reference are not
    asked.
    """
    batch = plain_rollout(6)
    for algorithm, passes in ((AlgorithmConfig(), 1), (AlgorithmConfig(num_iterations=2), 3)):
        setup = Setup(build("qwen3"), algorithm, LAYOUTS["shared"])
        with count_tokens(setup.policy) as seen:
            setup.update.run(batch)
        assert len(seen) == passes
    exact = Setup(build("qwen3"), AlgorithmConfig(num_iterations=2), LAYOUTS["shared"])
    exact.update.sampler_is_exact = True
    with count_tokens(exact.policy) as seen:
        exact.update.run(
            replace(batch, sampler_logprobs_K=torch.full((batch.completion_ids_K.numel(),), -3.3))
        )
    assert len(seen) == 2


def test_batch_is_not_changed_and_attention_is_given_back():
    batch, setup = (
        random_rollout(7),
        Setup(build("qwen3"), AlgorithmConfig(num_minibatches=3), LAYOUTS["shared"]),
    )
    before, implementation = copy.deepcopy(batch), setup.model.config._attn_implementation
    setup.update.run(batch)
    for name in ("completion_ids_K", "lengths_B", "advantages_B", "old_logprobs_K", "reference_logprobs_K"):
        assert torch.equal(getattr(batch, name), getattr(before, name))
    assert batch.prompt_ids == before.prompt_ids
    assert setup.model.config._attn_implementation == implementation


def test_gradient_that_is_not_finite_is_thrown_away():
    batch, setup = plain_rollout(8), Setup(build("qwen3"), AlgorithmConfig(), LAYOUTS["shared"])
    before = [parameter.detach().clone() for parameter in setup.model.parameters()]
    metrics = setup.update.run(replace(batch, advantages_B=batch.advantages_B * math.inf))
    assert all(torch.equal(one, other) for one, other in zip(before, setup.model.parameters(), strict=True))
    assert metrics[names.SKIPPED_UPDATES] == 1.0
