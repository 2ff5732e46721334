"""The parts of a GRPO run: tokenizer, policy, reference, engine, optimizer, schedule, and what works with
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from r1rl.compute.accelerator import compute_dtype
from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.data import PromptOrder, build_prompts
from r1rl.grpo.collect import Collector
from r1rl.grpo.one_step_off import OneStepOff
from r1rl.grpo.preflight import Preflight
from r1rl.grpo.recipe import GRPORecipe
from r1rl.grpo.rollouts import Rollouts
from r1rl.grpo.update import PolicyUpdate
from r1rl.models.loading import load_policy, load_tokenizer
from r1rl.objective.advantages import Estimator
from r1rl.policy.adapters import BasePolicy, adapt
from r1rl.policy.compilation import compile_policy, fuse_logprobs, wants_compiling
from r1rl.policy.copies import frozen_copy
from r1rl.policy.layout import agreed_layout, choose_layout
from r1rl.policy.logprobs import PolicyForward
from r1rl.rewards import RewardSet
from r1rl.rollout import EngineSetup, make_engine
from r1rl.rollout.setup import make_sampling
from r1rl.runs.evaluated_run import EvaluatedParts
from r1rl.runs.start import RunStart
from r1rl.text.prompts import PromptTemplate
from r1rl.types import Prompt


@dataclass(kw_only=True)
class GRPOParts(EvaluatedParts):
    """Everything that a step works with. `policy` is the prepared `PolicyForward`."""

    prompts: list[Prompt]
    dropped_prompts: int
    order: PromptOrder
    rewards: RewardSet
    estimator: Estimator | None
    """The advantage estimator of the user's own; None: the recipe's baseline and scale."""
    rollouts: Rollouts
    update: PolicyUpdate


def build_parts(start: RunStart[GRPORecipe], checked: Preflight) -> GRPOParts:
    """Load the model (from the checkpoint when a run goes on) and connect everything."""
    recipe, given, accelerator, display = start.recipe, start.given, start.accelerator, start.display
    checkpoint = start.checkpoint
    tokenizer = load_tokenizer(given.tokenizer or recipe.model.path, recipe.model.revision)
    dtype = compute_dtype(accelerator)
    lora = recipe.model.lora
    if lora is None:
        model = load_policy(recipe.model, checkpoint, given=given.model)
    else:  # the weights of the checkpoint are the adapters'
        model = load_policy(recipe.model, dtype=dtype, given=given.model)
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
    reference = make_reference(start, forward, dtype)
    nn.Module.to(model, accelerator.device)
    layout = agreed_layout(accelerator, choose_layout(model, recipe.update, dtype, tokenizer))
    engine = make_engine(
        checked.components.engine,
        EngineSetup.of_run(recipe.rollout, model, tokenizer, accelerator, dtype, recipe.rollout.one_step_off),
    )
    sampler_is_exact = dtype is torch.float32 and engine.properties.exact
    checkpointing = bool(recipe.model.gradient_checkpointing)
    wanted = wants_compiling(recipe.update.compile, accelerator.device, dtype, checkpointing)
    fuse_logprobs(forward, dtype, tokenizer)
    if wanted:
        compile_policy(forward, layout, dtype, tokenizer)
    start.report_trials([*layout.trials, *engine.trials, *forward.trials])
    optimizer = make_optimizer(forward, recipe.optimizer)
    policy, optimizer = accelerator.prepare(forward, optimizer)
    order = PromptOrder(len(prompts), recipe.seed, recipe.data.shuffle)
    collector = Collector(
        recipe, engine, checked.rewards, sampling, refreshes=not recipe.rollout.one_step_off
    )
    kind = OneStepOff if recipe.rollout.one_step_off else Rollouts
    updates = recipe.algorithm.num_iterations * recipe.algorithm.num_minibatches
    schedule = make_schedule(optimizer, recipe.max_steps, recipe.optimizer, updates)
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
        estimator=checked.components.estimator,
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
            checked.components.surrogate,
        ),
    )


def make_reference(
    start: RunStart[GRPORecipe], forward: PolicyForward, dtype: torch.dtype
) -> PolicyForward | BasePolicy | None:
    """Return the reference of the KL term: the policy that training started from, also for a run that goes
    on; None if `beta` is 0.
    """
    recipe = start.recipe
    if recipe.algorithm.beta == 0.0:
        return None
    if recipe.model.lora is not None:
        return BasePolicy(forward)
    first = load_policy(recipe.model, given=start.given.model) if start.checkpoint else forward.model
    return PolicyForward(frozen_copy(first, dtype, start.accelerator.device), forward.sampling, forward.chunk)
