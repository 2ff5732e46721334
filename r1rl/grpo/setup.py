"""What a GRPO run is made of: tokenizer, policy, reference, engine, optimizer, schedule, and who works with them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from r1rl import models
from r1rl.config.schema import GRPORecipe, LoggingConfig, ModelConfig, PromptConfig, RolloutConfig
from r1rl.data import PromptOrder, build_prompts
from r1rl.distributed import is_sharded, max_over_processes
from r1rl.errors import UserError
from r1rl.grpo.adapters import BasePolicy, adapt
from r1rl.grpo.collect import Collector
from r1rl.grpo.compilation import compile_policy, fuse_logprobs, wants_compiling
from r1rl.grpo.layout import choose_layout
from r1rl.grpo.logprobs import PolicyForward
from r1rl.grpo.one_step_off import OneStepOff
from r1rl.grpo.packing import Layout
from r1rl.grpo.rollouts import Rollouts
from r1rl.grpo.update import PolicyUpdate
from r1rl.lora import adapted_layers
from r1rl.monitor.progress import ProgressDisplay
from r1rl.optimization import make_optimizer, make_schedule
from r1rl.preflight import Preflight
from r1rl.prompts import PromptTemplate, resolve_eos_token_ids
from r1rl.rewards import RewardSet
from r1rl.rollout import RolloutEngine, build_engine
from r1rl.rollout.weights import convert_copy
from r1rl.sampling import Sampling
from r1rl.types import Prompt

REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""Launches in which every process has the whole model."""
PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, which may have data to read or longer answers to write. NCCL's own default is ten minutes."""


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


def make_accelerator(model: ModelConfig, logging: LoggingConfig, output_dir: str, beside_vllm: bool = False) -> Accelerator:
    """accelerate with the recipe's precision and trackers. Gradients are accumulated by the update itself. `beside_vllm`: vLLM may work in
    this process."""
    if not beside_vllm:  # its sleep mode refuses such segments
        use_growing_segments()
    use_bfloat16 = model.dtype == "bfloat16" or (model.dtype == "auto" and torch.cuda.is_available())
    # accelerate wants the trackers' folder at once, but the run directory is made once the processes can talk: `TrainingRun` moves it.
    accelerator = Accelerator(
        mixed_precision="bf16" if use_bfloat16 else "no",
        log_with=list(logging.trackers) or None,
        project_dir=output_dir,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if accelerator.distributed_type not in (*REPLICATED, DistributedType.FSDP):
        raise UserError(
            f"r1rl trains on one process, on several with a whole model each, or with FSDP2, but accelerate was launched with "
            f"{accelerator.distributed_type.value}: use recipes/accelerate/fsdp2.yaml."
        )
    if is_sharded(accelerator) and use_bfloat16:
        # accelerate's own policy rounds what the forward pass returns, and every sum of gradients, to bfloat16.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    return accelerator


def use_growing_segments() -> None:
    """Have torch's GPU allocator grow its segments instead of making new ones beside those that do not fit, so that what it holds stays
    close to what tensors need. It must not have been used yet; settings that are there already stay."""
    if not any(name.startswith("PYTORCH_") and name.endswith("ALLOC_CONF") for name in os.environ):
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


def build_parts(
    recipe: GRPORecipe, checked: Preflight, accelerator: Accelerator, display: ProgressDisplay, checkpoint: Path | None
) -> GRPOParts:
    """Load the model (from `checkpoint` when a run goes on) and connect everything."""
    tokenizer = load_tokenizer(recipe.model.path, recipe.model.revision)
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    lora = recipe.model.lora
    model = load_policy(recipe.model, checkpoint) if lora is None else load_policy(recipe.model, dtype=dtype)
    sampling = make_sampling(recipe.rollout, recipe.prompt, tokenizer, model)
    template = PromptTemplate(recipe.prompt, tokenizer)
    prompts, dropped = build_prompts(checked.problems, template, recipe.data.max_prompt_tokens)
    evaluation_prompts = build_prompts(checked.evaluation_problems, template, None)[0] if checked.evaluation_problems else []
    forward = PolicyForward(model, sampling, recipe.update.logprob_chunk)
    forward.verify()
    if lora is not None:  # after `verify`: without autocast, bfloat16 weights and float32 adapters do not mix
        adapt(model, recipe.model, lora, recipe.seed, checkpoint)
    reference = make_reference(recipe, forward, dtype, accelerator.device, checkpoint)
    nn.Module.to(model, accelerator.device)
    layout = agreed_layout(accelerator, choose_layout(model, recipe.update, dtype))
    if layout.reason:
        display.message(layout.reason)
    engine = make_engine(recipe.rollout, model, tokenizer, accelerator, dtype)
    # vLLM's arithmetic is not the trainer's, in any precision.
    sampler_is_exact = dtype is torch.float32 and recipe.rollout.engine != "vllm"
    checkpointing = bool(recipe.model.gradient_checkpointing)
    wanted = wants_compiling(recipe.update.compile, accelerator.device, dtype, checkpointing)
    for reason in (compile_policy(forward, layout, dtype) if wanted else "", fuse_logprobs(forward, dtype)):
        if reason:
            display.message(reason)
    optimizer = make_optimizer(forward, recipe.optimizer)
    policy, optimizer = accelerator.prepare(forward, optimizer)
    order = PromptOrder(len(prompts), recipe.seed, recipe.data.shuffle)
    collector = Collector(recipe, engine, checked.rewards, sampling, refreshes=not recipe.rollout.one_step_off)
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
    recipe: GRPORecipe, forward: PolicyForward, dtype: torch.dtype, device: torch.device, checkpoint: Path | None
) -> PolicyForward | BasePolicy | None:
    """The reference of the KL term: the policy that training started from, also for a run that goes on. None where `beta` is 0."""
    if recipe.algorithm.beta == 0.0:
        return None
    if recipe.model.lora is not None:
        return BasePolicy(forward)
    start = load_policy(recipe.model) if checkpoint else forward.model
    return PolicyForward(frozen_copy(start, dtype, device), forward.sampling, forward.chunk)


def make_engine(
    rollout: RolloutConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator, dtype: torch.dtype
) -> RolloutEngine:
    """The engine that the recipe asks for; it reads the policy, so it must be made before the policy is sharded."""
    if rollout.engine == "vllm":
        from r1rl.rollout.vllm import VLLMEngine

        return VLLMEngine(model, tokenizer, accelerator, rollout.vllm, rollout.max_rows)
    own_copy = is_sharded(accelerator) or rollout.one_step_off
    return build_engine(rollout.engine, model, tokenizer, rollout.max_rows, dtype, own_copy, rollout.compile_layers)


def agreed_layout(accelerator: Accelerator, own: Layout) -> Layout:
    """Packed where every process can, so that all of them make the same passes."""
    some_pad = max_over_processes(accelerator, int(not own.packed))
    if own.packed and some_pad:
        return replace(own, packed=False, shares_prompts=False, reason="Sequences are padded, because another process can't pack them.")
    return own


def make_sampling(
    rollout: RolloutConfig, prompt: PromptConfig, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> Sampling:
    """The recipe's sampling parameters with the model's EOS ids."""
    eos_token_ids = resolve_eos_token_ids(prompt, tokenizer, model.generation_config)
    return Sampling.of(rollout, rollout.max_completion_length, eos_token_ids, prompt.stop)


def load_tokenizer(path: str, revision: str | None = None, key: str = "model.path") -> PreTrainedTokenizerBase:
    """A model's tokenizer, with a padding token (the EOS token where the tokenizer has none: padding is masked by length)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(models.resolve(path), revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: no tokenizer could be loaded from {path!r}: {first_sentence(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(model: ModelConfig, checkpoint: Path | None = None, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The policy from the recipe's path or from a checkpoint, with float32 master weights, or in `dtype` where they will be frozen.

    Raises UserError for a checkpoint that holds adapters only.
    """
    if checkpoint is not None and (checkpoint / models.ADAPTER_CONFIG).is_file():
        raise UserError(f"{checkpoint} holds an adapter: go on with the recipe that the run began with, which has model.lora.")
    return load_trained(AutoModelForCausalLM, "causal language model", model, checkpoint, dtype)


def load_trained(
    kind: Any, name: str, model: ModelConfig, checkpoint: Path | None = None, dtype: torch.dtype = torch.float32, **settings: Any
) -> PreTrainedModel:
    """A model to train, of one of transformers' Auto classes, with float32 master weights; `name` is what messages call it."""
    source = str(checkpoint or models.resolve(model.path))
    try:
        loaded = kind.from_pretrained(source, revision=None if checkpoint else model.revision, dtype=dtype, **settings)
    except (OSError, ValueError) as error:
        raise UserError(f"model.path: no {name} could be loaded from {source!r}: {first_sentence(error)}") from error
    if adapted_layers(loaded):  # transformers loads an adapter of the hub onto its model
        raise UserError(f"model.path: {source} holds a PEFT adapter and no whole model: merge it into its model first (docs/lora.md).")
    disable_dropout(loaded)
    if model.gradient_checkpointing:
        # transformers 5.23 has a new name for it; 5.17 has only the old one.
        enable = getattr(loaded, "activation_checkpointing_enable", None) or loaded.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        loaded.train()  # transformers recomputes activations in training mode only
    return loaded


def first_sentence(error: Exception) -> str:
    """The first line of an error of another library: the rest is advice about that library's own options."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def disable_dropout(policy: PreTrainedModel) -> None:
    """No dropout in the policy: the sampler has none, and the distribution that is trained must be the one that was sampled."""
    for module in policy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module.__dict__.get("attention_dropout"), float):
            module.__dict__["attention_dropout"] = 0.0  # a plain number that attention functions read


def frozen_copy(policy: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The reference policy of the KL term: the policy as it is now, without gradients."""
    reference = convert_copy(policy, dtype)  # buffers keep their precision: rounded rotary frequencies are other positions
    nn.Module.to(reference, device)
    return reference
