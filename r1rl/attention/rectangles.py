"""The plan of packed segments as rectangles, for `scaled_dot_product_attention`.

Segments of nearly equal length become the rows of a rectangle. A row's key at position t lies in column t, so
a query sees the columns up to its own position.

Legend: M tokens of the packed sequence, K copied keys or queries, Q query heads, H key/value heads, D head
size; in a rectangle, R rows of T queries and C keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from r1rl.attention.packed import Segment, key_places
from r1rl.attention.plans import Scoring, attend_masked, causal_bias

WHOLE_PAIRS = 2**20
"""The number of pairs, queries times keys, from which on a segment is computed together with its prefix: that
needs no mask of its own.
"""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """R rows of a `RowsPlan`, T queries and C keys wide."""

    rows: int
    queries: int
    keys: int
    has_prefix: bool

    def is_plain(self, window: int | None) -> bool:
        """Return true if causal attention is all: no prefix before the queries, no key out of the window."""
        return not self.has_prefix and (window is None or window >= self.keys)


@dataclass(frozen=True, slots=True)
class RowsPlan:
    """Segments as the rows of rectangles."""

    rectangles: tuple[Rectangle, ...]
    query_index_K: Tensor
    """The token of each query of the rectangles; beyond a segment's end any token."""
    key_index_K: Tensor
    prefix_R: Tensor
    """The position of each row's first query, over all rectangles."""
    place_M: Tensor
    """The place of each token's output among the queries."""
    biases: dict[tuple[int, int | None], Tensor] = field(default_factory=dict)
    """Masks by rectangle and window, made when a layer first needs them."""

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> RowsPlan:
        """Plan these segments, with tensors on the CPU."""
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
        """Return a copy whose tensors went through `send`; its biases are its own, and go when it goes."""
        index = (self.query_index_K, self.key_index_K, self.prefix_R, self.place_M)
        queries, keys, prefixes, places = map(send, index)
        return RowsPlan(self.rectangles, queries, keys, prefixes, places)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Return [1, M, Q, D], the attention of [1, Q, M, D] over [1, H, M, D]."""
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
            if scoring.softcap is None and shape.is_plain(scoring.window):
                out = scaled_dot_product_attention(
                    q, k, v, is_causal=True, scale=scoring.scaling, enable_gqa=True
                )
            else:
                out = attend_masked(q, k, v, self._bias(number, scoring.window, q), scoring)
            outputs.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).index_select(0, self.place_M)[None]

    def _bias(self, number: int, window: int | None, q: Tensor) -> Tensor:
        """Return [R or 1, 1, T, C]: 0 where a query may look, -inf elsewhere."""
        shape = self.rectangles[number]
        if (number, window) not in self.biases:
            first = sum(other.rows for other in self.rectangles[:number])
            prefix_R = (
                self.prefix_R[first : first + shape.rows] if shape.has_prefix else self.prefix_R.new_zeros(1)
            )
            position_RT = prefix_R[:, None] + torch.arange(shape.queries, device=q.device)
            # Padding may lie beyond the last column; where it saw nothing at all, its gradient would be 0
            # times NaN.
            position_RT = position_RT.clamp(max=shape.keys - 1)
            self.biases[number, window] = causal_bias(position_RT, shape.keys, window, q.dtype)[:, None]
        return self.biases[number, window]


def pad(index: Tensor, length: int) -> Tensor:
    """Pad `index` to `length` entries with its last one: what a row's padding holds has no effect."""
    return torch.cat([index, index[-1:].expand(length - len(index))])


def group_by_length(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Sort segments by length, and cut where padding to a group's longest would waste more than an eighth."""
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
