"""The Accelerator with a recipe's precision and trackers, and the launches that r1rl trains under."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch.distributed.fsdp import MixedPrecisionPolicy

from r1rl.compute.distributed import is_sharded
from r1rl.config.schema import LoggingConfig, ModelConfig
from r1rl.errors import UserError
from r1rl.models.loading import default_device, resolve_dtype

REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""Launches in which every process has the whole model."""


PATIENCE = timedelta(hours=2)
"""The time that a process waits for the others, which may have data to read or longer answers to write.
NCCL's own default is ten minutes.
"""


def make_accelerator(
    model: ModelConfig, logging: LoggingConfig, output_dir: str, growing_segments: bool = True
) -> Accelerator:
    """Make an Accelerator with the recipe's precision and trackers; gradients are accumulated by the update.

    `growing_segments` lets torch's GPU allocator grow its segments. Raises UserError for a launch that r1rl
    does not train under.
    """
    if growing_segments:
        use_growing_segments()
    use_bfloat16 = resolve_dtype(model.dtype, default_device()) is torch.bfloat16
    # accelerate wants the trackers' folder at once, but the run directory is made once the processes can
    # talk: `TrainingRun` moves it.
    accelerator = Accelerator(
        mixed_precision="bf16" if use_bfloat16 else "no",
        log_with=list(logging.trackers) or None,
        project_dir=output_dir,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if accelerator.distributed_type not in (*REPLICATED, DistributedType.FSDP):
        raise UserError(
            f"r1rl trains on one process, on several with a whole model each, or with FSDP2, but accelerate "
            f"was launched with "
            f"{accelerator.distributed_type.value}: use recipes/accelerate/fsdp2.yaml."
        )
    if is_sharded(accelerator) and use_bfloat16:
        # accelerate's own policy rounds what the forward pass returns, and every sum of gradients, to
        # bfloat16.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            torch.bfloat16, torch.float32
        )
    return accelerator


def compute_dtype(accelerator: Accelerator) -> torch.dtype:
    """Return the precision that forward passes compute in under this accelerator."""
    return torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32


def use_growing_segments() -> None:
    """Have torch's GPU allocator grow its segments instead of making new ones beside those that do not fit,
    so that what it holds stays close to what tensors need. It must not have been used yet; settings that are
    there already stay.
    """
    if not any(name.startswith("PYTORCH_") and name.endswith("ALLOC_CONF") for name in os.environ):
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
