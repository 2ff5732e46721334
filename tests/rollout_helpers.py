"""Tiny random decoders, a tokenizer of characters, prompts and the chi-square test, for the rollout tests."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DeepseekV3Config,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.engine import NativeEngine
from r1rl.types import Completion

PROMPTS = [[5, 6, 7], [1] * 9 + [2, 3], [3], [8, 9, 10, 11, 12], [40, 41, 42]]
SEEDS = [11, 12, 13, 14, 15]

TEXTS = [chr(code) for code in range(32, 127)] + ["</", "answer", "answer>", "r>\n", "é"]
VOCABULARY = len(TEXTS)

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
GPT2_SHAPE = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": None,
    "eos_token_id": None,
}
MLA_SHAPE = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}


def configs() -> dict[str, PreTrainedConfig]:
    """Return architectures that differ in attention.

    They have grouped heads, sliding windows (of 6 tokens), soft caps, learned positions, or latents.
    """
    return {
        "qwen2": Qwen2Config(**SHAPE),
        "qwen3": Qwen3Config(**SHAPE, head_dim=8),
        "llama": LlamaConfig(**SHAPE),
        "mistral": MistralConfig(**SHAPE, sliding_window=6),
        # Eager: the sdpa attention of some transformers versions (5.17) leaves out the soft cap without a
        # word.
        "gemma2": Gemma2Config(
            **SHAPE,
            head_dim=8,
            sliding_window=6,
            attn_logit_softcapping=2.0,
            query_pre_attn_scalar=8,
            attn_implementation="eager",
        ),
        "phi": PhiConfig(**SHAPE),
        "gpt2": GPT2Config(**GPT2_SHAPE),
        "deepseek_v3": DeepseekV3Config(**{**SHAPE, **MLA_SHAPE}),
    }


def tiny_model(config: PreTrainedConfig | None = None, seed: int = 0) -> PreTrainedModel:
    """Return a random float32 model whose matrices are large enough for distributions far from uniform."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config or configs()["qwen3"], dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6.0)
    return model


def bloom_model() -> PreTrainedModel:
    """Return a model whose position bias the native engine can't know."""
    return AutoModelForCausalLM.from_config(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that decodes each id to its entry of TEXTS."""
    backend = Tokenizer(models.BPE(vocab={text: index for index, text in enumerate(TEXTS)}, merges=[]))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


def ids(text: str) -> list[int]:
    """Return one id per character."""
    return [TEXTS.index(character) for character in text]


def chi_square_p_value(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Return P(a chi-square statistic at least this large) under `probabilities`.

    Cells expected fewer than 5 times are merged into one. The survival function of chi-square with k degrees
    of freedom is the regularized upper incomplete gamma Q(k / 2, x / 2).
    """
    expected = probabilities.double() * counts.sum()
    if bool((counts[expected == 0] > 0).any()):
        return 0.0
    common = expected >= 5
    observed = torch.cat([counts[common].double(), counts[~common].sum()[None].double()])
    expected = torch.cat([expected[common], expected[~common].sum()[None]])
    observed, expected = observed[expected > 0], expected[expected > 0]
    statistic = ((observed - expected) ** 2 / expected).sum()
    freedom = torch.tensor(float(len(expected) - 1), dtype=torch.float64)
    return torch.special.gammaincc(freedom / 2, statistic / 2).item() if len(expected) > 1 else 1.0


def run(
    engine: Any, prompts: list[list[int]], num_generations: int, sampling: Sampling, seeds: list[int]
) -> list[list[Completion]]:
    """Return the completions of each prompt, in the order of the prompts."""
    groups = {
        group.index: group.completions for group in engine.generate(prompts, num_generations, sampling, seeds)
    }
    assert sorted(groups) == list(range(len(prompts)))
    return [groups[index] for index in range(len(prompts))]


def tokens(groups: list[list[Completion]]) -> list[list[list[int]]]:
    return [[completion.token_ids for completion in group] for group in groups]


def flat(groups: list[list[Completion]]) -> list[Completion]:
    return [completion for group in groups for completion in group]


def native(model: PreTrainedModel, **arguments: Any) -> NativeEngine:
    return NativeEngine(model, tokenizer(), **arguments)
