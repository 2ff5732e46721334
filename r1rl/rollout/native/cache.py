"""Key/value storage for rollouts: prompts packed for prefill, and rows that decode.

A row's token at position t lies in column t: rows are left-aligned, so a row of length n occupies columns
0..n-1 whatever its neighbours do, and rows can come and go without moving the others' columns.

Legend: N packed prompt tokens, R rows in use, H key/value heads, C columns (token slots of a row), D head
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

COLUMN_BUCKET = 64


def bucket_columns(needed: int, current: int, limit: int) -> int:
    """Return the columns to allocate when `needed` no longer fit into `current`.

    They are a quarter more at a time, in whole buckets, at most `limit`.
    """
    grown = max(needed, current + current // 4)
    return max(needed, min(limit, -(-grown // COLUMN_BUCKET) * COLUMN_BUCKET))


class PackedPrompts(Cache):
    """The keys and values of prompts that are prefilled in one packed sequence [1, H, N, D] per layer.

    A long prompt comes in chunks, one forward each: `begin_chunk` announces the next.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._next_layer = 0

    def begin_chunk(self) -> None:
        """Let the next forward append to what is there."""
        self._next_layer = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep [H, N, D] of this layer, the next one, and return [1, H, N, D] with all chunks so far."""
        if layer_idx != self._next_layer:
            raise NotImplementedError("a layer stores keys more than once, or layers share them")
        self._next_layer += 1
        if layer_idx == len(self.keys):
            self.keys.append(key_states[0])
            self.values.append(value_states[0])
        else:
            self.keys[layer_idx] = torch.cat([self.keys[layer_idx], key_states[0]], dim=1)
            self.values[layer_idx] = torch.cat([self.values[layer_idx], value_states[0]], dim=1)
        return self.keys[layer_idx][None], self.values[layer_idx][None]

    @property
    def bytes_per_token(self) -> int:
        """The size of one token's keys and values over all layers."""
        return sum(
            states.shape[0] * states.shape[2] * states.element_size() for states in (*self.keys, *self.values)
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: nothing precedes a packed prompt."""
        return 0


class RowCache(Cache):
    """The preallocated keys and values of the rows that decode, one buffer [rows, H, columns, D] per layer.

    `begin_step` says where each row's next token goes; `update` writes it there and returns views of what is
    read. Buffers have the rows and columns that were asked for and grow in columns (`reserve`), one layer at
    a time.
    """

    def __init__(self, row_capacity: int, column_limit: int) -> None:
        super().__init__(layers=[])
        self.row_capacity = row_capacity
        """The rows that buffers are made for; lower it when no rows will be added, and the next growth frees
        the others.
        """
        self.column_limit = column_limit
        self.columns = 0
        self.rows = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._count = 0
        self._width = 0
        self._slots: list[Tensor] = []

    @property
    def bytes(self) -> int:
        """The memory of the buffers."""
        return sum(buffer.numel() * buffer.element_size() for buffer in (*self.keys, *self.values))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the columns in use before the current step."""
        return max(self._width - 1, 0)

    def reserve(self, columns: int) -> None:
        """Make room for `columns` token slots in each of `row_capacity` rows."""
        if columns > self.columns:
            self.resize(self.row_capacity, bucket_columns(columns, self.columns, self.column_limit))

    def resize(self, row_capacity: int, columns: int) -> None:
        """Give every buffer this size; what doesn't fit is lost. It can be repeated after it ran out of
        memory half-way.
        """
        self.row_capacity = row_capacity
        for buffers in (self.keys, self.values):
            for layer, old in enumerate(buffers):
                if (old.shape[0], old.shape[2]) == (row_capacity, columns):
                    continue
                new = old.new_zeros(row_capacity, old.shape[1], columns, old.shape[3])
                rows, width = min(self.rows, row_capacity), min(old.shape[2], columns)
                new[:rows, :, :width] = old[:rows, :, :width]
                buffers[layer] = new
        self.rows = min(self.rows, row_capacity)
        self.columns = columns

    def allocate(self, prompts: PackedPrompts) -> None:
        """Make the buffers, for keys and values of the size that these have."""
        for packed, buffers in ((prompts.keys, self.keys), (prompts.values, self.values)):
            for states in packed[len(buffers) :]:
                buffers.append(
                    states.new_zeros(self.row_capacity, states.shape[0], self.columns, states.shape[2])
                )

    def append(self, prompts: PackedPrompts, source_RC: Tensor) -> None:
        """Add rows whose first columns are copies of packed tokens.

        `source_RC[r, c]` is the place in the packed sequence of row r's token c. Columns past a row's own
        prompt may hold any place: they are masked until the row overwrites them.
        """
        self.allocate(prompts)
        count, width = source_RC.shape
        flat = source_RC.flatten()
        for packed, buffers in ((prompts.keys, self.keys), (prompts.values, self.values)):
            for states, buffer in zip(packed, buffers, strict=True):
                copied = states.index_select(1, flat).view(states.shape[0], count, width, states.shape[2])
                buffer[self.rows : self.rows + count, :, :width] = copied.transpose(0, 1)
        self.rows += count

    def compact(self, sources: Sequence[int], destinations: Sequence[int], rows: int, width: int) -> None:
        """Keep the first `rows` rows after moving row `sources[i]` to `destinations[i]`; `width` columns are
        in use.
        """
        if sources:
            device = self.keys[0].device
            source, destination = (
                torch.tensor(sources, device=device),
                torch.tensor(destinations, device=device),
            )
            for buffers in (self.keys, self.values):
                for buffer in buffers:
                    buffer[destination, :, :width] = buffer[source, :, :width]
        self.rows = rows

    def begin_step(self, positions_R: Tensor, width: int) -> None:
        """Let the next forward write row r's token to column `positions_R[r]`, and read the first `width`
        columns.

        Rows beyond those in use may take part, so that a captured step fits several numbers of rows: they
        write to their own columns, which hold nothing until the row is appended.
        """
        self._width = width
        self._count = positions_R.shape[0]
        rows_R = torch.arange(self._count, device=positions_R.device)
        slots_by_heads: dict[int, Tensor] = {}
        self._slots = []
        for buffer in self.keys:
            heads = buffer.shape[1]
            if heads not in slots_by_heads:
                lane_RH = rows_R[:, None] * heads + torch.arange(heads, device=positions_R.device)
                slots_by_heads[heads] = (lane_RH * self.columns + positions_R[:, None]).flatten()
            self._slots.append(slots_by_heads[heads])

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token per row ([R, H, 1, D]); return views [R, H, width, D]."""
        keys, values, slots = self.keys[layer_idx], self.values[layer_idx], self._slots[layer_idx]
        keys.view(-1, keys.shape[3]).index_copy_(0, slots, key_states.reshape(-1, keys.shape[3]))
        values.view(-1, values.shape[3]).index_copy_(0, slots, value_states.reshape(-1, values.shape[3]))
        return keys[: self._count, :, : self._width], values[: self._count, :, : self._width]
