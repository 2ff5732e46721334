"""Attention over packed sequences, plugged into any transformers model through its attention interface.

A packed sequence holds segments one after the other, without padding. Segment s attends causally to itself
and, before that, to the prefix that it names: an earlier segment of the same packed sequence. A prompt is
thus computed once for all its completions, and the gradients of its keys and values are the sums over them:

    | prompt 1 | completion 1.1 | completion 1.2 | prompt 2 | completion 2.1 | ...
    o_s = softmax(q_s [k_prefix; k_s]^T scaling, causal) [v_prefix; v_s]

Two plans say the same to different kernels. `r1rl.attention.varlen` is for functions that know sequence
lengths: torch's `varlen_attn`, FlashAttention 2 and 3. `r1rl.attention.rectangles` cuts the segments into
rectangles of nearly equal length for `scaled_dot_product_attention`: on a CPU, in float32, and where a model
caps its scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from r1rl.attention.plans import AttentionPlan, attend_by_plan

PACKED_ATTENTION = "r1rl_packed"


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of `length` tokens from `start`, which also see the `prefix_length` from `prefix_start`."""

    start: int
    length: int
    prefix_start: int = 0
    prefix_length: int = 0


def key_places(segment: Segment) -> tuple[Tensor, Tensor]:
    """Return the places of a segment's prefix, and those of its own tokens."""
    prefix = torch.arange(segment.prefix_start, segment.prefix_start + segment.prefix_length)
    return prefix, torch.arange(segment.start, segment.start + segment.length)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_plan: AttentionPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as the packed plan says; transformers models call it in each layer (`AttentionInterface`)."""
    return attend_by_plan(
        packed_plan, query, key, value, attention_mask, scaling, sliding_window, softcap, kwargs
    )


def register_packed_attention() -> None:
    """Make `packed_attention` known to transformers; calling it again changes nothing.

    Compiled layers leave the function as it is.
    """
    AttentionInterface.register(PACKED_ATTENTION, torch.compiler.disable(packed_attention))
