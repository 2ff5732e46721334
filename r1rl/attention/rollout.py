"""Attention for rollouts, plugged into any transformers model through its attention interface.

Legend: R rows, Q query heads, H key/value heads, N packed tokens, C columns of the cache, D head size.
The model calls `rollout_attention` in each layer and hands on the `rollout_plan` that the engine gave to its
forward. The plan knows which tokens belong together, so no mask is built by the model and padding is never
computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION_NAME = "r1rl_rollout"


class PrefillPlan:
    """Prompts packed one after the other, in runs of equal length, so that a run is one dense causal
    attention.
    """

    def __init__(self, lengths: list[int]) -> None:
        """`lengths` of the prompts in packed order; equal lengths must be neighbours."""
        self.runs: list[tuple[int, int, int]] = []  # start, number of prompts, length
        start = 0
        for length in lengths:
            if self.runs and self.runs[-1][2] == length:
                first, count, _ = self.runs[-1]
                self.runs[-1] = (first, count + 1, length)
            else:
                self.runs.append((start, 1, length))
            start += length

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """[1, Q, N, D] attends to [1, H, N, D]; returns [1, N, Q, D]."""
        outputs = []
        for start, count, length in self.runs:
            q, k, v = (unpack_run(states, start, count, length) for states in (query, key, value))
            out = attend_causally(q, *repeat_heads(q, k, v), scaling, window, softcap)
            outputs.append(out.transpose(1, 2).reshape(1, count * length, q.shape[1], -1))
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]


class ChunkPlan:
    """The next tokens of one long prompt, whose earlier tokens are in the cache already."""

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """[1, Q, n, D], the last n of N tokens, attends to [1, H, N, D]; returns [1, n, Q, D]."""
        return attend_causally(query, *repeat_heads(query, key, value), scaling, window, softcap).transpose(
            1, 2
        )


class RowKernel(Protocol):
    """Attention of one token per row that reads each row's own columns (`r1rl.attention.decode_kernel`)."""

    def splits(self, programs: int, columns: int) -> int:
        """Into how many parts to cut each row, of at most so many columns, where rows times key/value heads
        are `programs`.
        """
        ...

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        arrived: tuple[Tensor, Tensor] | None,
        positions_R: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
        splits: int,
    ) -> Tensor:
        """[R, Q, 1, D] attends to the columns up to its position of [R or more, H, C, D]; returns [R, 1, Q,
        D]. `arrived`: the new tokens' keys and values [R, H, 1, D], to be written to their columns first;
        None if they are there already.
        """
        ...


class DecodePlan:
    """One new token per row at its own position, attending to its row of the cache."""

    def __init__(
        self, positions_R: Tensor, width: int, kernel: RowKernel | None = None, splits: int = 1
    ) -> None:
        """`width` columns of the cache are read: more than the largest position of a row that counts.
        `kernel`: what attends; None: `scaled_dot_product_attention` with a mask. `splits`: into how many
        parts the kernel cuts a row.
        """
        self.positions_R = positions_R
        self.width = width
        self.kernel = kernel
        self.splits = splits
        self.arrived: tuple[Tensor, Tensor] | None = None
        """Keys and values that the cache left to the kernel to write, on their way to it."""
        self._biases: dict[int | None, Tensor] = {}

    def bias(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """[R, 1, 1, C]: 0 where a row may look, -inf elsewhere. Made once per step and window size."""
        if window not in self._biases:
            columns = torch.arange(self.width, device=self.positions_R.device)
            hidden_RC = columns > self.positions_R[:, None]
            if window is not None:
                hidden_RC |= columns <= self.positions_R[:, None] - window
            bias_RC = torch.zeros(hidden_RC.shape, dtype=dtype, device=hidden_RC.device).masked_fill_(
                hidden_RC, -torch.inf
            )
            self._biases[window] = bias_RC[:, None, None]
        return self._biases[window]

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """[R, Q, 1, D] attends to [R, H, C, D]; returns [R, 1, Q, D].

        The queries that share a key/value head are treated as that many positions of one head: nothing is
        repeated.
        """
        if self.kernel is not None:
            arrived, self.arrived = self.arrived, None
            return self.kernel(
                query, key, value, arrived, self.positions_R, scaling, window, softcap, self.splits
            )
        rows, query_heads, _, size = query.shape
        grouped = query.reshape(rows, key.shape[1], query_heads // key.shape[1], size)
        out = attend_masked(grouped, key, value, self.bias(window, query.dtype), scaling, softcap)
        return out.reshape(rows, 1, query_heads, -1)


def attend_causally(
    q: Tensor, k: Tensor, v: Tensor, scaling: float, window: int | None, softcap: float | None
) -> Tensor:
    """The queries are the last n of the N positions that keys and values have; each looks back, at most over
    `window`.
    """
    asked, known = q.shape[2], k.shape[2]
    if softcap is None and (window is None or window >= known):
        if asked == known:
            return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        return scaled_dot_product_attention(
            q, k, v, attn_mask=causal_lower_right(asked, known), scale=scaling
        )
    positions = torch.arange(known, device=q.device)
    distance = positions[known - asked :, None] - positions
    allowed = (distance >= 0) & (distance < (window or known))
    bias = torch.zeros(asked, known, dtype=q.dtype, device=q.device).masked_fill_(~allowed, -torch.inf)
    return attend_masked(q, k, v, bias, scaling, softcap)


def attend_masked(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scaling: float, softcap: float | None
) -> Tensor:
    """softmax(q k^T scaling + bias) v; with Gemma 2's soft cap, c tanh(x / c), on the scores before the bias."""
    if softcap is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling)
    scores = torch.tanh(q @ k.transpose(2, 3) * (scaling / softcap)) * softcap + bias
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v


def unpack_run(states: Tensor, start: int, count: int, length: int) -> Tensor:
    """[1, H, N, D] to the [count, H, length, D] of one run."""
    return states[0, :, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1)


def repeat_heads(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values once per query head."""
    repeats = q.shape[1] // k.shape[1]
    return (k, v) if repeats == 1 else (k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1))


def rollout_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    rollout_plan: PrefillPlan | ChunkPlan | DecodePlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers models call in each layer; see `AttentionInterface`."""
    return attend_by_plan(
        rollout_plan, query, key, value, attention_mask, scaling, sliding_window, softcap, kwargs
    )


class AttentionPlan(Protocol):
    """Knows which tokens of a batch belong together, so that the model needs to make no mask."""

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Attention over [1 or R, Q, N, D] and [1 or R, H, ..., D]; returns [1 or R, N, Q, D]."""
        ...


def attend_by_plan(
    plan: AttentionPlan | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
    others: Mapping[str, Any],
) -> tuple[Tensor, None]:
    """What a model asks of its attention, done by a plan. Raises NotImplementedError for what no plan can do:
    a mask, sinks or a position bias of the model's own (in `others`), or a model that does not hand the plan
    on.
    """
    if plan is None:
        raise NotImplementedError("the model does not hand keyword arguments of its forward to its attention")
    if (
        attention_mask is not None
        or others.get("s_aux") is not None
        or others.get("position_bias") is not None
    ):
        raise NotImplementedError("the attention has a mask, sinks or a position bias of its own")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return plan.attend(query, key, value, scaling, window, softcap), None


def register_attention() -> None:
    """Makes `rollout_attention` known to transformers; calling it again changes nothing."""
    AttentionInterface.register(ATTENTION_NAME, rollout_attention)
