"""The plan of packed segments for kernels that know sequence lengths.

Such functions (torch's `varlen_attn`, FlashAttention 2 and 3) get each segment's queries and keys one after
the other with their cumulated lengths. Their causal mask is aligned at the last key, which is what a prefix
needs.

Legend: M tokens of the packed sequence, S segments, K copied keys, Q query heads, H key/value heads, D head
size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from r1rl.attention.packed import Segment, key_places
from r1rl.attention.plans import Scoring, repeat_heads


class SumCopies(torch.autograd.Function):
    """The copies `states_M[index_K]`; their gradients are added up in a fixed order, in float32 at least.

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
    """The token that each key is a copy of; None: segments have no prefix, and keys lie where queries do."""
    key_order_K: Tensor | None
    key_counts_M: Tensor | None

    @classmethod
    def of(cls, segments: Sequence[Segment], kernel: VarlenKernel) -> VarlenPlan:
        """Plan these segments, with tensors on the CPU."""
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
        """Return a copy whose tensors went through `send`."""
        moved: dict[str, Any] = {
            item.name: send(value)
            for item in fields(self)
            if isinstance(value := getattr(self, item.name), Tensor)
        }
        return replace(self, **moved)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Return [1, M, Q, D], the attention of [1, Q, M, D] over [1, H, M, D].

        Under autocast it computes in that precision: rotary embeddings have left the queries in float32.
        Raises NotImplementedError where the kernel can't do it.
        """
        device = query.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
        q, k, v = (states[0].transpose(0, 1).to(dtype) for states in (query, key, value))
        if self.key_index_K is not None:
            k, v = (
                SumCopies.apply(states, self.key_index_K, self.key_order_K, self.key_counts_M)
                for states in (k, v)
            )
        return self.kernel.attend(q.contiguous(), k.contiguous(), v.contiguous(), self, scoring)[None]


@dataclass(frozen=True, slots=True)
class VarlenKernel:
    """A function for sequences of different lengths, and the keywords that its version has."""

    name: str
    function: Callable[..., Any]
    keywords: frozenset[str]
    groups_heads: bool
    """The kernel's way with heads: it takes fewer key/value heads than query heads without being told."""

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        plan: VarlenPlan,
        scoring: Scoring,
    ) -> Tensor:
        """Return [M, Q, D], the causal attention of [M, Q, D] over [K, H, D], aligned at each last key.

        Raises NotImplementedError for a window or a soft cap that this version of the function doesn't have.
        """
        scaling, window, softcap = scoring
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
            k, v = repeat_heads(q, k, v)
        out = self.function(
            q, k, v, plan.query_starts, plan.key_starts, plan.longest_query, plan.longest_key, **options
        )
        return out[0] if isinstance(out, tuple) else out
