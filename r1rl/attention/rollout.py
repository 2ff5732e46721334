"""Attention plans for rollouts: prompts that are prefilled, and rows that decode.

The model calls `rollout_attention` in each layer and hands on the `rollout_plan` that the engine gave to its
forward.

Legend: R rows, Q query heads, H key/value heads, N packed tokens, C columns of the cache, D head size.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from r1rl.attention.plans import (
    AttentionPlan,
    Scoring,
    attend_by_plan,
    attend_masked,
    causal_bias,
    repeat_heads,
)

ATTENTION_NAME = "r1rl_rollout"


class PrefillPlan:
    """Prompts packed one after the other, in runs of equal length, so that a run is one dense causal
    attention.
    """

    def __init__(self, lengths: list[int]) -> None:
        """Take the `lengths` of the prompts in packed order; equal lengths must be neighbours."""
        self.runs: list[tuple[int, int, int]] = []  # start, number of prompts, length
        start = 0
        for length in lengths:
            if self.runs and self.runs[-1][2] == length:
                first, count, _ = self.runs[-1]
                self.runs[-1] = (first, count + 1, length)
            else:
                self.runs.append((start, 1, length))
            start += length

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Return [1, N, Q, D], the attention of [1, Q, N, D] over [1, H, N, D]."""
        outputs = []
        for start, count, length in self.runs:
            q, k, v = (unpack_run(states, start, count, length) for states in (query, key, value))
            out = attend_causally(q, *repeat_heads(q, k, v), scoring)
            outputs.append(out.transpose(1, 2).reshape(1, count * length, q.shape[1], -1))
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]


class ChunkPlan:
    """The next tokens of one long prompt, whose earlier tokens are in the cache already."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Return [1, n, Q, D]: [1, Q, n, D], the last n of N tokens, attend to [1, H, N, D]."""
        return attend_causally(query, *repeat_heads(query, key, value), scoring).transpose(1, 2)


class RowKernel(Protocol):
    """Attention of one token per row that reads each row's own columns (`r1rl.attention.decode_kernel`)."""

    def splits(self, programs: int, columns: int) -> int:
        """Return into how many parts to cut each row of at most `columns` columns.

        `programs`: rows times key/value heads.
        """
        ...

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        arrived: tuple[Tensor, Tensor] | None,
        positions_R: Tensor,
        scoring: Scoring,
        splits: int,
    ) -> Tensor:
        """Return [R, 1, Q, D]: [R, Q, 1, D] attends to its row of [R or more, H, C, D], up to its position.

        `arrived`: the new tokens' keys and values [R, H, 1, D], to be written to their columns first; None if
        they are there already.
        """
        ...


class DecodePlan:
    """One new token per row at its own position, attending to its row of the cache."""

    def __init__(
        self, positions_R: Tensor, width: int, kernel: RowKernel | None = None, splits: int = 1
    ) -> None:
        """Plan a step that reads `width` columns, more than the largest position of a row that counts.

        `kernel`: the attention to use; None: `scaled_dot_product_attention` with a mask. `splits`: into how
        many parts the kernel cuts a row.
        """
        self.positions_R = positions_R
        self.width = width
        self.kernel = kernel
        self.splits = splits
        self.arrived: tuple[Tensor, Tensor] | None = None
        """Keys and values that the cache left to the kernel to write, on their way to it."""
        self._biases: dict[int | None, Tensor] = {}

    def bias(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Return [R, 1, 1, C]: 0 where a row may look, -inf elsewhere. It is made once per window size."""
        if window not in self._biases:
            bias_RC = causal_bias(self.positions_R, self.width, window, dtype)
            self._biases[window] = bias_RC[:, None, None]
        return self._biases[window]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Return [R, 1, Q, D], the attention of [R, Q, 1, D] over [R, H, C, D].

        The queries that share a key/value head are treated as that many positions of one head: nothing is
        repeated.
        """
        if self.kernel is not None:
            arrived, self.arrived = self.arrived, None
            return self.kernel(query, key, value, arrived, self.positions_R, scoring, self.splits)
        rows, query_heads, _, size = query.shape
        grouped = query.reshape(rows, key.shape[1], query_heads // key.shape[1], size)
        out = attend_masked(grouped, key, value, self.bias(scoring.window, query.dtype), scoring)
        return out.reshape(rows, 1, query_heads, -1)


def attend_causally(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    """Attend causally with queries that are the last n of the N positions that keys and values have."""
    asked, known = q.shape[2], k.shape[2]
    if scoring.softcap is None and (scoring.window is None or scoring.window >= known):
        mask = None if asked == known else causal_lower_right(asked, known)
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scoring.scaling
        )
    positions = torch.arange(known - asked, known, device=q.device)
    return attend_masked(q, k, v, causal_bias(positions, known, scoring.window, q.dtype), scoring)


def unpack_run(states: Tensor, start: int, count: int, length: int) -> Tensor:
    """Return the [count, H, length, D] of one run of [1, H, N, D]."""
    return states[0, :, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1)


def rollout_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    rollout_plan: AttentionPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as the rollout's plan says; transformers models call it in each layer (`AttentionInterface`)."""
    return attend_by_plan(
        rollout_plan, query, key, value, attention_mask, scaling, sliding_window, softcap, kwargs
    )


def register_attention() -> None:
    """Make `rollout_attention` known to transformers; calling it again changes nothing."""
    AttentionInterface.register(ATTENTION_NAME, rollout_attention)
