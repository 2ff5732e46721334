"""Shared parts of the attention plans: the scoring, what each query sees, and the grouping of heads.

A plan knows which tokens of a forward pass belong together. The engine or the update gives it to the model's
forward, which hands it on to the attention function of each layer, so the model makes no mask and padding is
never computed. The plans for packed sequences are in `r1rl.attention.varlen` and `r1rl.attention.rectangles`,
those for rollouts in `r1rl.attention.rollout`.

Legend: R rows, Q query heads, H key/value heads, T queries, C keys (columns), D head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class Scoring(NamedTuple):
    """A model's choices between the product of a query with a key and the softmax."""

    scaling: float
    """The factor of the product."""
    window: int | None = None
    """The number of last tokens, its own included, that a query sees; None: all."""
    softcap: float | None = None
    """The bound c of Gemma 2's soft cap, c tanh(score / c); None: no cap."""


class AttentionPlan(Protocol):
    """Attention over tokens whose relations the plan knows."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Return [1 or R, N, Q, D], the attention of [1 or R, Q, N, D] over [1 or R, H, ..., D]."""
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
    """Compute by a plan what a model's layer asks of its attention function.

    Raises NotImplementedError for what no plan can do: a mask, sinks or a position bias of the model's own
    (in `others`), or a model that does not hand the plan on.
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
    return plan.attend(query, key, value, Scoring(scaling, window, softcap)), None


def causal_bias(positions: Tensor, columns: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """Return [..., C] for positions [...]: 0 where a query at that position sees a column, -inf elsewhere.

    Column c holds the key at position c. A query sees its own position and those before it, at most the last
    `window` of them.
    """
    distance = positions[..., None] - torch.arange(columns, device=positions.device)
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)


def attend_masked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scoring: Scoring) -> Tensor:
    """Return softmax(score(q k^T) + bias) v for [R, Q, T, D], [R, H, C, D] and a bias [..., T, C].

    Each key/value head serves Q / H query heads. The softmax of capped scores is computed in float32, as in
    Gemma 2's own code.
    """
    if scoring.softcap is None:
        grouped = q.shape[1] != k.shape[1]
        return scaled_dot_product_attention(
            q, k, v, attn_mask=bias, scale=scoring.scaling, enable_gqa=grouped
        )
    k, v = repeat_heads(q, k, v)
    scores = torch.tanh(q @ k.transpose(2, 3) * (scoring.scaling / scoring.softcap)) * scoring.softcap + bias
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v


def repeat_heads(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values once per query head; heads are dimension 1 of all three."""
    repeats = q.shape[1] // k.shape[1]
    return (k, v) if repeats == 1 else (k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1))
