"""What a GRPO run is made of: tokenizer, policy, reference, engine, optimizer, schedule."""

from __future__ import annotations

import copy
import math

import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from r1rl import models
from r1rl.config.schema import GRPORecipe, ModelConfig, OptimizerConfig
from r1rl.errors import UserError


def make_accelerator(recipe: GRPORecipe, run_directory: str) -> Accelerator:
    """accelerate with the recipe's precision and trackers. Gradients are accumulated by the update itself."""
    use_bfloat16 = recipe.model.dtype == "bfloat16" or (recipe.model.dtype == "auto" and torch.cuda.is_available())
    return Accelerator(
        mixed_precision="bf16" if use_bfloat16 else "no",
        log_with=list(recipe.logging.trackers) or None,
        project_dir=run_directory,
    )


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The policy's tokenizer, with a padding token (the EOS token where the tokenizer has none: padding is masked by length)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(models.resolve(model.path), revision=model.revision)
    except (OSError, ValueError) as error:
        raise UserError(f"model.path: no tokenizer could be loaded from {model.path!r}: {first_sentence(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(model: ModelConfig, path: str | None = None) -> PreTrainedModel:
    """The policy with float32 master weights, from the recipe's path or from a checkpoint."""
    source = path or models.resolve(model.path)
    try:
        policy = AutoModelForCausalLM.from_pretrained(source, revision=None if path else model.revision, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"model.path: no causal language model could be loaded from {source!r}: {first_sentence(error)}") from error
    if model.gradient_checkpointing:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
    return policy


def first_sentence(error: Exception) -> str:
    """The first line of an error of another library: the rest is advice about that library's own options."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def frozen_copy(policy: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The reference policy of the KL term: the policy as it is now, without gradients."""
    reference = copy.deepcopy(policy).to(dtype).eval()
    return reference.requires_grad_(False)


def make_optimizer(policy: torch.nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on matrices only: norms and biases have no scale to decay."""
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(parameter.is_floating_point() for parameter in parameters)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.betas[0], config.betas[1]), eps=config.epsilon, fused=fused)


def learning_rate_factor(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """The learning rate of optimizer step `step` (from 0) as a share of its peak.

    Warm-up is linear and never zero: step s of w has (s + 1) / w. After it, `linear` and `cosine` fall to zero at `total_steps`.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    return 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def make_schedule(optimizer: torch.optim.Optimizer, total_steps: int, config: OptimizerConfig) -> torch.optim.lr_scheduler.LambdaLR:
    """The recipe's schedule over optimizer steps."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, total_steps, config))
