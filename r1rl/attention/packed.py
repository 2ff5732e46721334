"""Attention over packed sequences, plugged into any transformers model through its attention interface.

A packed sequence holds segments one after the other, without padding. Segment s attends causally to itself
and, before that, to the prefix that it names: an earlier segment of the same packed sequence. A prompt is
thus computed once for all its completions, and the gradients of its keys and values are the sums over them:

    | prompt 1 | completion 1.1 | completion 1.2 | prompt 2 | completion 2.1 | ...
    o_s = softmax(q_s [k_prefix; k_s]^T scaling, causal) [v_prefix; v_s]

Two plans say the same to different kernels. `VarlenPlan` is for functions that know sequence lengths (torch's
`varlen_attn`, FlashAttention 2 and 3; their causal mask is aligned at the last key, which is what a prefix
needs). `RowsPlan` cuts the segments into rectangles of nearly equal length for
`scaled_dot_product_attention`: on a CPU, in float32, and where a model caps its scores.

Legend: M tokens of the packed sequence, S segments, K copied keys (or queries), Q query heads, H key/value
heads, D head size; in a rectangle, R rows of T queries and C keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from r1rl.attention.rollout import attend_by_plan, attend_masked, repeat_heads

PACKED_ATTENTION = "r1rl_packed"

WHOLE_PAIRS = 2**20
"""Longer segments (queries times keys) are computed together with their prefix: that needs no mask of their
own.
"""


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` tokens from `start` on, which also see the `prefix_length` tokens from `prefix_start` on."""

    start: int
    length: int
    prefix_start: int = 0
    prefix_length: int = 0


class SumCopies(torch.autograd.Function):
    """`states_M[index_K]`, whose backward adds the gradients of a token's copies in a fixed order, in float32
    at least.

    `index_select`'s own backward adds them in no fixed order on a GPU, so that two runs of the same seed
    would differ.
    """

    @staticmethod
    def forward(ctx: Any, states_M: Tensor, index_K: Tensor, order_K: Tensor, counts_M: Tensor) -> Tensor:
        ctx.save_for_backward(order_K, counts_M)
        return states_M.index_select(0, index_K)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        order_K, counts_M = ctx.saved_tensors
        exact = torch.promote_types(gradients[0].dtype, torch.float32)
        sorted_K = gradients[0].to(exact).index_select(0, order_K)
        # `unsafe` skips a check of the counts that waits for the device.
        return (
            torch.segment_reduce(sorted_K, "sum", lengths=counts_M, axis=0, unsafe=True).to(
                gradients[0].dtype
            ),
            None,
            None,
            None,
        )


@dataclass(frozen=True, slots=True)
class VarlenPlan:
    """Segments by their cumulated lengths."""

    kernel: VarlenKernel
    query_starts: Tensor
    """Int32 [S + 1]."""
    key_starts: Tensor
    """Int32 [S + 1]; the keys of a segment are those of its prefix, then its own."""
    longest_query: int
    longest_key: int
    key_index_K: Tensor | None
    """Which token each key is a copy of; None: segments have no prefix, and keys lie where queries do."""
    key_order_K: Tensor | None
    key_counts_M: Tensor | None

    @classmethod
    def of(cls, segments: Sequence[Segment], kernel: VarlenKernel) -> VarlenPlan:
        """The plan of these segments, on the CPU."""
        queries = torch.tensor([0] + [segment.length for segment in segments])
        keys = torch.tensor([0] + [segment.prefix_length + segment.length for segment in segments])
        index = order = counts = None
        if any(segment.prefix_length for segment in segments):
            index = torch.cat([torch.cat(key_places(segment)) for segment in segments])
            order = index.argsort(stable=True)
            counts = index.bincount(minlength=int(queries.sum()))
        starts = [lengths.cumsum(0).to(torch.int32) for lengths in (queries, keys)]
        return cls(kernel, starts[0], starts[1], int(queries.max()), int(keys.max()), index, order, counts)

    def sent_by(self, send: Callable[[Tensor], Tensor]) -> VarlenPlan:
        """A copy whose tensors went through `send`."""
        moved: dict[str, Any] = {
            item.name: send(value)
            for item in fields(self)
            if isinstance(value := getattr(self, item.name), Tensor)
        }
        return replace(self, **moved)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """[1, Q, M, D] attends to [1, H, M, D]; returns [1, M, Q, D]. Raises NotImplementedError where the
        kernel can't.

        Under autocast it computes in the precision of that: rotary embeddings have left the queries in
        float32.
        """
        device = query.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
        q, k, v = (states[0].transpose(0, 1).to(dtype) for states in (query, key, value))
        if self.key_index_K is not None:
            k, v = (
                SumCopies.apply(states, self.key_index_K, self.key_order_K, self.key_counts_M)
                for states in (k, v)
            )
        return self.kernel.attend(
            q.contiguous(), k.contiguous(), v.contiguous(), self, scaling, window, softcap
        )[None]


@dataclass(frozen=True, slots=True)
class VarlenKernel:
    """A function for sequences of different lengths, and which keywords its version has."""

    name: str
    function: Callable[..., Any]
    keywords: frozenset[str]
    groups_heads: bool
    """It takes fewer key/value heads than query heads without being told."""

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        plan: VarlenPlan,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """[M, Q, D] attends to [K, H, D] causally, aligned at the last key of each segment; returns [M, Q,
        D].
        """
        options: dict[str, Any] = {name: True for name in ("causal", "is_causal") if name in self.keywords}
        scale = next((name for name in ("scale", "softmax_scale") if name in self.keywords), None)
        if scale is not None:
            options[scale] = scaling
        elif abs(scaling * q.shape[-1] ** 0.5 - 1.0) > 1e-6:
            q = q * (scaling * q.shape[-1] ** 0.5)
        if "window_size" in self.keywords:
            options["window_size"] = (-1 if window is None else window - 1, 0)
        elif window is not None and window < plan.longest_key:
            raise NotImplementedError(f"{self.name} of this version has no sliding window")
        if softcap is not None:
            if "softcap" not in self.keywords:
                raise NotImplementedError(f"{self.name} does not cap scores")
            options["softcap"] = softcap
        if "enable_gqa" in self.keywords:
            options["enable_gqa"] = True
        elif not self.groups_heads and q.shape[1] != k.shape[1]:
            k, v = (states.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for states in (k, v))
        out = self.function(
            q, k, v, plan.query_starts, plan.key_starts, plan.longest_query, plan.longest_key, **options
        )
        return out[0] if isinstance(out, tuple) else out


@dataclass(frozen=True, slots=True)
class Rectangle:
    """R rows of a `RowsPlan`, T queries and C keys wide."""

    rows: int
    queries: int
    keys: int
    has_prefix: bool

    def is_plain(self, window: int | None) -> bool:
        """Causal attention says it all: queries and keys begin at the same position, and no window hides
        anything.
        """
        return not self.has_prefix and (window is None or window >= self.keys)


@dataclass(frozen=True, slots=True)
class RowsPlan:
    """Segments as rectangles. A row's key at position t lies in column t, so a query sees the columns up to
    its own position.
    """

    rectangles: tuple[Rectangle, ...]
    query_index_K: Tensor
    """The token of each query of the rectangles; beyond a segment's end any token."""
    key_index_K: Tensor
    prefix_R: Tensor
    """Position of each row's first query, over all rectangles."""
    place_M: Tensor
    """Where each token's output lies among the queries."""
    biases: dict[tuple[int, int | None], Tensor] = field(default_factory=dict)
    """By rectangle and window, made when a layer first needs them."""

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> RowsPlan:
        """The plan of these segments, on the CPU."""
        rectangles, queries, keys, prefixes = [], [], [], []
        place_M = torch.zeros(sum(segment.length for segment in segments), dtype=torch.int64)
        done = 0
        for group in group_by_length(segments):
            whole = any(
                segment.length * (segment.prefix_length + segment.length) > WHOLE_PAIRS for segment in group
            )
            places = [key_places(segment) for segment in group]
            longest_key = max(segment.prefix_length + segment.length for segment in group)
            longest_query = longest_key if whole else max(segment.length for segment in group)
            for row, (prefix, own) in enumerate(places):
                both = torch.cat([prefix, own])
                queries.append(pad(both if whole else own, longest_query))
                keys.append(pad(both, longest_key))
                prefixes.append(0 if whole else len(prefix))
                first = done + row * longest_query + (len(prefix) if whole else 0)
                place_M[own] = torch.arange(first, first + len(own))
            done += len(group) * longest_query
            rectangles.append(Rectangle(len(group), longest_query, longest_key, any(prefixes[-len(group) :])))
        return cls(tuple(rectangles), torch.cat(queries), torch.cat(keys), torch.tensor(prefixes), place_M)

    def sent_by(self, send: Callable[[Tensor], Tensor]) -> RowsPlan:
        """A copy whose tensors went through `send`; its biases are its own, and go when it goes."""
        index = (self.query_index_K, self.key_index_K, self.prefix_R, self.place_M)
        queries, keys, prefixes, places = map(send, index)
        return RowsPlan(self.rectangles, queries, keys, prefixes, places)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """[1, Q, M, D] attends to [1, H, M, D]; returns [1, M, Q, D]."""
        index_of = ((query, self.query_index_K), (key, self.key_index_K), (value, self.key_index_K))
        flat_q, flat_k, flat_v = (
            states[0].transpose(0, 1).index_select(0, index) for states, index in index_of
        )
        # Not slices: the backward pass of each would fill zeros for all the others.
        queries = flat_q.split([shape.rows * shape.queries for shape in self.rectangles])
        keys, values = (
            states.split([shape.rows * shape.keys for shape in self.rectangles])
            for states in (flat_k, flat_v)
        )
        outputs = []
        for number, (shape, *flat) in enumerate(zip(self.rectangles, queries, keys, values, strict=True)):
            q, k, v = (states.unflatten(0, (shape.rows, -1)).transpose(1, 2) for states in flat)
            if softcap is None and shape.is_plain(window):
                out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
            elif softcap is None:
                out = scaled_dot_product_attention(
                    q, k, v, attn_mask=self._bias(number, window, q), scale=scaling, enable_gqa=True
                )
            else:
                out = attend_masked(
                    q, *repeat_heads(q, k, v), self._bias(number, window, q), scaling, softcap
                )
            outputs.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).index_select(0, self.place_M)[None]

    def _bias(self, number: int, window: int | None, q: Tensor) -> Tensor:
        """[R or 1, 1, T, C]: 0 where a query may look, -inf elsewhere."""
        shape = self.rectangles[number]
        if (number, window) not in self.biases:
            first = sum(other.rows for other in self.rectangles[:number])
            prefix_R = (
                self.prefix_R[first : first + shape.rows] if shape.has_prefix else self.prefix_R.new_zeros(1)
            )
            position_RT = prefix_R[:, None] + torch.arange(shape.queries, device=q.device)
            # Padding may lie beyond the last column; where it saw nothing at all, its gradient would be 0
            # times NaN.
            distance_RTC = position_RT.clamp(max=shape.keys - 1)[:, :, None] - torch.arange(
                shape.keys, device=q.device
            )
            hidden_RTC = (distance_RTC < 0) | (distance_RTC >= (window or shape.keys))
            bias_RTC = torch.zeros(hidden_RTC.shape, dtype=q.dtype, device=q.device).masked_fill_(
                hidden_RTC, -torch.inf
            )
            self.biases[number, window] = bias_RTC[:, None]
        return self.biases[number, window]


def key_places(segment: Segment) -> tuple[Tensor, Tensor]:
    """The tokens of a segment's prefix, and its own."""
    prefix = torch.arange(segment.prefix_start, segment.prefix_start + segment.prefix_length)
    return prefix, torch.arange(segment.start, segment.start + segment.length)


def pad(index: Tensor, length: int) -> Tensor:
    """`index` to `length` entries by repeating its last: what a row's padding holds has no effect."""
    return torch.cat([index, index[-1:].expand(length - len(index))])


def group_by_length(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments sorted by length and cut where padding them to the longest of their group would waste more
    than an eighth.
    """
    groups: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda segment: (-segment.length, -segment.prefix_length)):
        allowed = groups[-1][0].length * 7 // 8 - 8 if groups else 0
        if (
            not groups
            or segment.length < allowed
            or segment.length * (segment.prefix_length + segment.length) > WHOLE_PAIRS
        ):
            groups.append([])
        groups[-1].append(segment)
    return groups


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_plan: VarlenPlan | RowsPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers models call in each layer; see `AttentionInterface`."""
    return attend_by_plan(
        packed_plan, query, key, value, attention_mask, scaling, sliding_window, softcap, kwargs
    )


def register_packed_attention() -> None:
    """Makes `packed_attention` known to transformers; calling it again changes nothing. Compiled layers leave
    it as it is.
    """
    AttentionInterface.register(PACKED_ATTENTION, torch.compiler.disable(packed_attention))
