"""AdamW and its learning-rate schedule, as a recipe's `optimizer` section describes them, and an optimizer
step over many micro-batches.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator

from r1rl.compute.distributed import is_sharded
from r1rl.config.schema import OptimizerConfig


def make_optimizer(policy: torch.nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW with decoupled weight decay on matrices only: norms and biases have no scale to decay."""
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True)


def learning_rate_factor(
    optimizer_step: int, max_steps: int, config: OptimizerConfig, optimizer_steps_per_step: int = 1
) -> float:
    """Return the learning rate of an optimizer step (counted from 0) as a share of its peak.

    `max_steps` and `config.warmup_steps` count the same steps, each of which makes
    `optimizer_steps_per_step` optimizer steps; for GRPO these are the iterations times the minibatches of a
    rollout. The rate changes with every optimizer step. The warm-up is linear and never zero: optimizer
    step s of w has the share (s + 1) / w. After it, `linear` and `cosine` fall to `final_share` at the end.
    """
    warmup, total = (steps * optimizer_steps_per_step for steps in (config.warmup_steps, max_steps))
    if optimizer_step < warmup:
        return (optimizer_step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (optimizer_step - warmup) / max(1, total - warmup))
    shape = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final_share + (1.0 - config.final_share) * shape


def make_schedule(
    optimizer: torch.optim.Optimizer,
    max_steps: int,
    config: OptimizerConfig,
    optimizer_steps_per_step: int = 1,
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the recipe's schedule, which advances with every optimizer step (see `learning_rate_factor`)."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, max_steps, config, optimizer_steps_per_step)
    )


def restore_schedule(
    optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR, saved: dict[str, Any]
) -> None:
    """Put a fresh schedule at the place of a saved one, with its own peak rates, and set the optimizer's
    rates accordingly.
    """
    schedule.load_state_dict({**saved, "base_lrs": schedule.base_lrs})
    schedule._last_lr = [
        peak * factor(schedule.last_epoch)
        for peak, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate


def exchange_gradients(
    accelerator: Accelerator, policy: torch.nn.Module, last: bool
) -> AbstractContextManager[None]:
    """Return the context of one of several micro-batches, which says when processes exchange gradients.

    Replicated models exchange them in the `last` micro-batch only; sharded ones do in each, to stay sharded.
    """
    return nullcontext() if last or is_sharded(accelerator) else accelerator.no_sync(policy)


def clip_and_step(
    accelerator: Accelerator,
    policy: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    max_norm: float,
) -> float:
    """Clip the gradient, step, and return the gradient's norm before clipping.

    A gradient that is not finite is thrown away. `max_norm` 0 means no clipping.
    """
    norm = float(accelerator.clip_grad_norm_(policy.parameters(), max_norm if max_norm > 0 else math.inf))
    if math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    return norm
