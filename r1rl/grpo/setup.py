"""What a GRPO run is made of: tokenizer, policy, reference, engine, optimizer, schedule, and who works with
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.compute.trials import trial_report
from r1rl.data import PromptOrder, build_prompts
from r1rl.grpo.collect import Collector
from r1rl.grpo.one_step_off import OneStepOff
from r1rl.grpo.preflight import Preflight
from r1rl.grpo.recipe import GRPORecipe
from r1rl.grpo.rollouts import Rollouts
from r1rl.grpo.update import PolicyUpdate
from r1rl.monitor.progress import ProgressDisplay
from r1rl.objective.sampling import Sampling
from r1rl.policy.adapters import BasePolicy, adapt
from r1rl.policy.compilation import compile_policy, fuse_logprobs, wants_compiling
from r1rl.policy.copies import frozen_copy
from r1rl.policy.layout import agreed_layout, choose_layout
from r1rl.policy.loading import load_policy, load_tokenizer
from r1rl.policy.logprobs import PolicyForward
from r1rl.rewards import RewardSet
from r1rl.rollout import RolloutEngine
from r1rl.rollout.setup import make_engine, make_sampling
from r1rl.text.prompts import PromptTemplate
from r1rl.types import Prompt


@dataclass
class GRPOParts:
    """Everything that a step works with."""

    accelerator: Accelerator
    display: ProgressDisplay
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    """The Hugging Face model inside `policy`."""
    policy: nn.Module
    """The prepared `PolicyForward`."""
    engine: RolloutEngine
    sampling: Sampling
    prompts: list[Prompt]
    evaluation_prompts: list[Prompt]
    dropped_prompts: int
    order: PromptOrder
    rewards: RewardSet
    rollouts: Rollouts
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    update: PolicyUpdate


def build_parts(
    recipe: GRPORecipe,
    checked: Preflight,
    accelerator: Accelerator,
    display: ProgressDisplay,
    checkpoint: Path | None,
) -> GRPOParts:
    """Load the model (from `checkpoint` when a run goes on) and connect everything."""
    tokenizer = load_tokenizer(recipe.model.path, recipe.model.revision)
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    lora = recipe.model.lora
    model = load_policy(recipe.model, checkpoint) if lora is None else load_policy(recipe.model, dtype=dtype)
    sampling = make_sampling(recipe.rollout, recipe.prompt, tokenizer, model)
    template = PromptTemplate(recipe.prompt, tokenizer)
    prompts, dropped = build_prompts(checked.problems, template, recipe.data.max_prompt_tokens)
    evaluation_prompts = (
        build_prompts(checked.evaluation_problems, template, None)[0] if checked.evaluation_problems else []
    )
    forward = PolicyForward(model, sampling, recipe.update.logprob_chunk)
    forward.verify()
    if lora is not None:  # after `verify`: without autocast, bfloat16 weights and float32 adapters do not mix
        adapt(model, recipe.model, lora, recipe.seed, checkpoint)
    reference = make_reference(recipe, forward, dtype, accelerator.device, checkpoint)
    nn.Module.to(model, accelerator.device)
    layout = agreed_layout(accelerator, choose_layout(model, recipe.update, dtype, tokenizer))
    engine = make_engine(recipe.rollout, model, tokenizer, accelerator, dtype)
    # vLLM's arithmetic is not the trainer's, in any precision.
    sampler_is_exact = dtype is torch.float32 and recipe.rollout.engine != "vllm"
    checkpointing = bool(recipe.model.gradient_checkpointing)
    wanted = wants_compiling(recipe.update.compile, accelerator.device, dtype, checkpointing)
    fuse_logprobs(forward, dtype, tokenizer)
    if wanted:
        compile_policy(forward, layout, dtype, tokenizer)
    for line in trial_report([*layout.trials, *engine.trials, *forward.trials]):
        display.message(line)
    optimizer = make_optimizer(forward, recipe.optimizer)
    policy, optimizer = accelerator.prepare(forward, optimizer)
    order = PromptOrder(len(prompts), recipe.seed, recipe.data.shuffle)
    collector = Collector(
        recipe, engine, checked.rewards, sampling, refreshes=not recipe.rollout.one_step_off
    )
    kind = OneStepOff if recipe.rollout.one_step_off else Rollouts
    steps = recipe.max_steps * recipe.algorithm.num_iterations * recipe.algorithm.num_minibatches
    schedule = make_schedule(optimizer, steps, recipe.optimizer)
    return GRPOParts(
        accelerator=accelerator,
        display=display,
        tokenizer=tokenizer,
        model=model,
        policy=policy,
        engine=engine,
        sampling=sampling,
        prompts=prompts,
        evaluation_prompts=evaluation_prompts,
        dropped_prompts=dropped,
        order=order,
        rewards=checked.rewards,
        rollouts=kind(recipe, accelerator, order, prompts, collector, display.phase),
        optimizer=optimizer,
        schedule=schedule,
        update=PolicyUpdate(
            recipe,
            accelerator,
            policy,
            reference,
            [model] if reference is None else [model, reference.model],
            layout,
            optimizer,
            schedule,
            sampler_is_exact,
        ),
    )


def make_reference(
    recipe: GRPORecipe,
    forward: PolicyForward,
    dtype: torch.dtype,
    device: torch.device,
    checkpoint: Path | None,
) -> PolicyForward | BasePolicy | None:
    """The reference of the KL term: the policy that training started from, also for a run that goes on. None
    where `beta` is 0.
    """
    if recipe.algorithm.beta == 0.0:
        return None
    if recipe.model.lora is not None:
        return BasePolicy(forward)
    start = load_policy(recipe.model) if checkpoint else forward.model
    return PolicyForward(frozen_copy(start, dtype, device), forward.sampling, forward.chunk)
