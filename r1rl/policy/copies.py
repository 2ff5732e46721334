"""Copies of a policy in another precision: what a rollout samples from, and the frozen reference of the KL
term.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PreTrainedModel


def convert_copy(policy: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Return a copy of the model whose floating-point parameters have `dtype`; the master parameters are
    never duplicated.
    """
    with torch.inference_mode(False), torch.no_grad():
        converted: dict[int, object] = {
            id(parameter): torch.nn.Parameter(
                parameter.detach().to(dtype if parameter.is_floating_point() else parameter.dtype, copy=True),
                requires_grad=False,
            )
            for parameter in policy.parameters()
        }
    return duplicate(policy, converted)


def frozen_copy(policy: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Return the policy as it is now, without gradients: the reference of the KL term."""
    reference = convert_copy(
        policy, dtype
    )  # buffers keep their precision: rounded rotary frequencies are other positions
    nn.Module.to(reference, device)
    return reference


def duplicate(policy: PreTrainedModel, replaced: dict[int, object]) -> PreTrainedModel:
    """Return a copy in eval mode. `replaced` has, by identity, what stands in the copy for parts of the
    policy.
    """
    # accelerate wraps `forward` on the instance (autocast, outputs to float32); the copy must run its class's
    # own.
    wrapped = policy.__dict__.get("forward")
    if wrapped is not None:
        replaced[id(wrapped)] = None
    copied = copy.deepcopy(policy, replaced)
    copied.__dict__.pop("forward", None)
    copied.__dict__.pop("_original_forward", None)
    return copied.eval()
