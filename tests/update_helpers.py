"""Small random decoders, rollouts of uneven lengths, and the gradient of one update, for the tests of
r1rl.grpo.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from r1rl.attention.packed import register_packed_attention
from r1rl.config.schema import UpdateConfig
from r1rl.objective.aggregation import count_trained, loss_weights, trained_sequences
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.losses import policy_loss
from r1rl.objective.sampling import Sampling
from r1rl.objective.surrogates import Surrogate
from r1rl.policy.batching import TrainBatch, build_train_batch, loss_inputs, move_micro_batch
from r1rl.policy.costs import PassCosts
from r1rl.policy.layout import packed_attention_in
from r1rl.policy.logprobs import PolicyForward
from r1rl.policy.packing import Layout, make_micro_batches
from r1rl.types import Completion, FinishReason

VOCABULARY = 29
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen2": Qwen2Config(tie_word_embeddings=True, **SHAPE),
    "qwen3": Qwen3Config(head_dim=8, tie_word_embeddings=False, **SHAPE),
    "llama": LlamaConfig(tie_word_embeddings=False, **SHAPE),
    # a window that is shorter than the sequences, in every layer
    "mistral": MistralConfig(sliding_window=5, **SHAPE),
    # a window in every other layer, and scores capped at 2, so that the cap bends most of them
    "gemma2": Gemma2Config(
        head_dim=8, sliding_window=4, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, **SHAPE
    ),
}
COSTS = PassCosts(1.0, 0.1, 0.001)
LAYOUTS = {
    "padded": Layout(packed=False, shares_prompts=False, costs=COSTS),
    "packed": Layout(packed=True, shares_prompts=False, costs=COSTS),
    "shared": Layout(packed=True, shares_prompts=True, costs=COSTS),
}


def build(name: str, checkpointing: bool = False) -> PreTrainedModel:
    """Build the same random weights each time.

    Attention is as written in the model's own code, which caps Gemma's scores.
    """
    torch.manual_seed(1)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager")
    if checkpointing:
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
        model.train()
    register_packed_attention()
    return model


def random_rollout(seed: int, groups: int = 3, generations: int = 4) -> TrainBatch:
    """Return groups of completions of 1 to 20 tokens after prompts of 1 to 9, with old and reference
    logprobs.

    One group has no signal.
    """
    generator = random.Random(seed)
    prompts = [
        [generator.randrange(VOCABULARY) for _ in range(generator.choice([1, 4, 9]))] for _ in range(groups)
    ]
    lengths = [generator.choice([1, 2, 7, 19, 20]) for _ in range(groups * generations)]
    reasons = [generator.choice([FinishReason.EOS, FinishReason.LENGTH]) for _ in lengths]
    completions = [
        Completion([generator.randrange(VOCABULARY) for _ in range(length)], [], "", reason)
        for length, reason in zip(lengths, reasons, strict=True)
    ]
    advantages_PG = torch.randn(
        groups, generations, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    advantages_PG[-1] = 0.0
    batch = build_train_batch(
        [prompt for prompt in prompts for _ in range(generations)], completions, advantages_PG.flatten()
    )
    noise_K = torch.randn(batch.completion_ids_K.numel(), generator=torch.Generator().manual_seed(seed))
    return replace(batch, old_logprobs_K=-3.2 + 0.3 * noise_K, reference_logprobs_K=-3.2 - 0.3 * noise_K)


def gradients(
    model: PreTrainedModel,
    batch: TrainBatch,
    layout: Layout,
    update: UpdateConfig | None = None,
    algorithm: AlgorithmConfig | None = None,
    sequences: Sequence[int] | None = None,
    surrogate: Surrogate | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of one optimizer step by parameter; with `sequences`, only their part of it."""
    update, algorithm = update or UpdateConfig(), algorithm or AlgorithmConfig()
    policy = PolicyForward(model, Sampling(max_completion_length=20, temperature=0.8), update.logprob_chunk)
    trained_B = trained_sequences(batch.lengths_B, batch.truncated_B, algorithm)
    counts = count_trained(batch.lengths_B, trained_B)
    weights_B = loss_weights(batch.lengths_B, trained_B, counts, counts, algorithm, 20)
    model.zero_grad()
    with packed_attention_in(model) if layout.packed else nullcontext():
        for micro_batch in make_micro_batches(
            batch, range(batch.num_sequences) if sequences is None else sequences, layout, update
        ):
            it = move_micro_batch(micro_batch, torch.device("cpu"))
            entropy = "gradient" if algorithm.entropy_coefficient else "none"
            logprobs_N, entropy_N = policy(
                it.input_ids_RT, it.predictors_N, it.targets_N, entropy, it.positions_RT, it.plan
            )
            policy_loss(
                logprobs_N, entropy_N, loss_inputs(batch, micro_batch, weights_B), algorithm, surrogate
            )[0].backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def assert_same_gradients(
    found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6
) -> None:
    """Compare all gradients together to `tolerance` of their norm, and each parameter's to five times that of
    its own.

    A tenth of the whole is added, because a gradient that is zero but for rounding has no relative precision.
    """
    assert found.keys() == expected.keys()
    whole = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    differences = {name: (found[name] - expected[name]).norm() for name in expected}
    assert torch.stack(list(differences.values())).norm() <= tolerance * whole
    for name, difference in differences.items():
        assert difference <= 5 * tolerance * expected[name].norm() + 0.1 * tolerance * whole, name
