"""AdamW and its learning-rate schedule, as a recipe's `optimizer` section describes them, and an optimizer
step of many passes.
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
    """AdamW with decoupled weight decay on matrices only: norms and biases have no scale to decay."""
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True)


def learning_rate_factor(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """The learning rate of optimizer step `step` (from 0) as a share of its peak.

    Warm-up is linear and never zero: step s of w has (s + 1) / w. After it, `linear` and `cosine` fall to
    `final_share` at `total_steps`.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    shape = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final_share + (1.0 - config.final_share) * shape


def make_schedule(
    optimizer: torch.optim.Optimizer, total_steps: int, config: OptimizerConfig
) -> torch.optim.lr_scheduler.LambdaLR:
    """The recipe's schedule over optimizer steps."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, total_steps, config)
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
    """Around one of several passes: replicated models exchange gradients in the `last` only; sharded ones in
    each, to keep them sharded.
    """
    return nullcontext() if last or is_sharded(accelerator) else accelerator.no_sync(policy)


def clip_and_step(
    accelerator: Accelerator,
    policy: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    max_norm: float,
) -> float:
    """Clip and step; returns the gradient norm before clipping. A gradient that is not finite is thrown away.
    `max_norm` 0: no clipping.
    """
    norm = float(accelerator.clip_grad_norm_(policy.parameters(), max_norm if max_norm > 0 else math.inf))
    if math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    return norm
