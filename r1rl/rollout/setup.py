"""The rollout engine and the sampling parameters that a recipe asks for."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.compute.distributed import is_sharded
from r1rl.config.schema import PromptConfig, RolloutConfig
from r1rl.objective.sampling import Sampling
from r1rl.rollout import RolloutEngine, build_engine
from r1rl.text.prompts import resolve_eos_token_ids


def make_engine(
    rollout: RolloutConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    dtype: torch.dtype,
) -> RolloutEngine:
    """The engine that the recipe asks for; it reads the policy, so it must be made before the policy is
    sharded.
    """
    if rollout.engine == "vllm":
        from r1rl.rollout.vllm import VLLMEngine

        return VLLMEngine(model, tokenizer, accelerator, rollout.vllm, rollout.max_rows)
    own_copy = is_sharded(accelerator) or rollout.one_step_off
    return build_engine(
        rollout.engine, model, tokenizer, rollout.max_rows, dtype, own_copy, rollout.compile_layers
    )


def make_sampling(
    rollout: RolloutConfig, prompt: PromptConfig, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> Sampling:
    """The recipe's sampling parameters with the model's EOS ids."""
    eos_token_ids = resolve_eos_token_ids(prompt, tokenizer, model.generation_config)
    return Sampling.of(rollout, rollout.max_completion_length, eos_token_ids, prompt.stop)
