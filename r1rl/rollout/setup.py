"""The sampling parameters that a recipe asks for."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.config.schema import PromptConfig, RolloutConfig
from r1rl.objective.sampling import Sampling
from r1rl.text.prompts import resolve_eos_token_ids


def make_sampling(
    rollout: RolloutConfig,
    prompt: PromptConfig,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    repetition_penalty: float = 1.0,
) -> Sampling:
    """Return the recipe's sampling parameters with the model's EOS ids."""
    eos_token_ids = resolve_eos_token_ids(prompt, tokenizer, model.generation_config)
    limit = rollout.max_completion_length
    return Sampling.of(rollout, limit, eos_token_ids, prompt.stop, repetition_penalty)
