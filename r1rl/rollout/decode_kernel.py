"""Attention of a decode step as a Triton kernel: each row reads its own tokens and no more, and nothing is masked or repeated.

    o_rq = softmax(q_rq K_rh^T scaling) V_rh        over the row's positions 0 .. p_r, or the last `window` of them

One program takes one row and one key/value head, with all query heads that share it, or one of several splits of its positions
where rows are too few to fill the machine (Dao et al. 2023, "Flash-Decoding"): the parts are then weighted by their sums of
exponentials. The running maximum and sum are those of online softmax (Milakov and Gimelshein 2018, 1805.02867).

Needs Triton, which comes with torch's builds for GPUs: import this module only where there is one.

Legend: R rows, Q query heads, H key/value heads, G queries that share one, C columns, D size of a key, E of a value, S splits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_BYTES = 16384
"""Keys that a program reads at a time, about: 128 of 64 bfloat16 entries, 64 of 128."""
SHORTEST_PART = 128
"""Positions of a split: shorter ones cost more in putting them together than they gain."""
PROGRAMS_PER_PROCESSOR = 2
"""So many programs keep the memory busy; more splits would only add up more parts."""


@triton.jit
def _attend(
    q, k, v, out, sums, positions, q_row, q_head, k_row, k_head, k_column, v_row, v_head, v_column, scaling, softcap, window,
    G: tl.constexpr, G_PAD: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr, CAPPED: tl.constexpr, WINDOWED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`out` float [R, H, S, G, E] and `sums` float32 [R, H, S, G, 2] are contiguous; with one split `sums` is not written."""
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    heads = tl.num_programs(1)
    length = tl.load(positions + row).to(tl.int32) + 1
    first = 0
    if WINDOWED:
        first = tl.maximum(length - window, 0)
    share = tl.cdiv(tl.cdiv(length - first, SPLITS), BLOCK) * BLOCK
    begin = first + split * share
    end = tl.minimum(begin + share, length)
    queries, dims, outs, columns = tl.arange(0, G_PAD), tl.arange(0, D_PAD), tl.arange(0, E_PAD), tl.arange(0, BLOCK)
    q_GD = tl.load(
        q + row * q_row + (head * G + queries[:, None]) * q_head + dims, mask=(queries[:, None] < G) & (dims < D), other=0.0
    )
    highest = tl.full([G_PAD], -float("inf"), tl.float32)
    total = tl.zeros([G_PAD], tl.float32)
    mixed = tl.zeros([G_PAD, E_PAD], tl.float32)
    for start in range(begin, end, BLOCK):
        place = start + columns
        inside = place < end
        k_CD = tl.load(k + row * k_row + head * k_head + place[:, None] * k_column + dims, mask=inside[:, None] & (dims < D), other=0.0)
        scores = tl.dot(q_GD, tl.trans(k_CD), input_precision=PRECISION) * scaling
        if CAPPED:
            ratio = tl.exp(-2.0 * tl.abs(scores) / softcap)
            scores = tl.where(scores < 0, -1.0, 1.0) * softcap * (1.0 - ratio) / (1.0 + ratio)
        scores = tl.where(inside, scores, -float("inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        decay = tl.exp(highest - higher)
        v_CE = tl.load(v + row * v_row + head * v_head + place[:, None] * v_column + outs, mask=inside[:, None] & (outs < E), other=0.0)
        total = total * decay + tl.sum(weights, 1)
        mixed = mixed * decay[:, None] + tl.dot(weights.to(v_CE.dtype), v_CE, input_precision=PRECISION)
        highest = higher
    part = ((row * heads + head) * SPLITS + split) * G + queries
    written = (queries[:, None] < G) & (outs < E)
    if SPLITS == 1:
        mixed = mixed / total[:, None]
    else:
        tl.store(sums + part * 2, highest, mask=queries < G)
        tl.store(sums + part * 2 + 1, total, mask=queries < G)
    tl.store(out + part[:, None] * E + outs, mixed.to(out.dtype.element_ty), mask=written)


@triton.jit
def _merge(
    parts, sums, out, G: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr, SPLITS: tl.constexpr
):
    """One query head of one row: the splits' mixtures, weighted. `SPLITS` is a power of two."""
    lane = tl.program_id(0).to(tl.int64)
    group, query = lane // G, lane % G
    splits, outs = tl.arange(0, SPLITS), tl.arange(0, E_PAD)
    part = (group * SPLITS + splits) * G + query
    highest = tl.load(sums + part * 2)
    total = tl.load(sums + part * 2 + 1)
    weights = tl.exp(highest - tl.max(highest, 0))
    mixed = tl.load(parts + part[:, None] * E + outs, mask=outs < E, other=0.0)
    result = tl.sum(mixed * weights[:, None], 0) / tl.sum(total * weights, 0)
    tl.store(out + lane * E + outs, result.to(out.dtype.element_ty), mask=outs < E)


def decode_attention(
    query: Tensor, key: Tensor, value: Tensor, positions_R: Tensor, scaling: float, window: int | None, softcap: float | None, splits: int
) -> Tensor:
    """[R, Q, 1, D] attends to the first p_r + 1 of [R, H, C, D] and [R, H, C, E], whose last dimensions are dense; returns [R, 1, Q, E]."""
    rows, query_heads, _, size = query.shape
    heads, out_size = key.shape[1], value.shape[3]
    group = query_heads // heads
    exact = value.dtype is torch.float32
    block = max(16, BLOCK_BYTES // (padded(size) * key.element_size()))
    query = query.contiguous()
    parts = value.new_empty(rows, heads, splits, group, out_size, dtype=torch.float32 if splits > 1 else value.dtype)
    sums = value.new_empty((rows, heads, splits, group, 2) if splits > 1 else (1,), dtype=torch.float32)
    _attend[(rows, heads, splits)](
        query, key, value, parts, sums, positions_R,
        query.stride(0), query.stride(1), *key.stride()[:3], *value.stride()[:3], scaling, softcap or 0.0, window or 0,
        G=group, G_PAD=padded(group), D=size, D_PAD=padded(size), E=out_size, E_PAD=padded(out_size), BLOCK=block, SPLITS=splits,
        CAPPED=softcap is not None, WINDOWED=window is not None, PRECISION="ieee" if exact else "tf32", num_stages=2 if exact else 3,
    )  # fmt: skip
    if splits == 1:
        return parts.view(rows, 1, query_heads, out_size)
    out = value.new_empty(rows, 1, query_heads, out_size)
    _merge[(rows * query_heads,)](parts, sums, out, G=group, E=out_size, E_PAD=padded(out_size), SPLITS=splits, num_warps=2)
    return out


def padded(size: int) -> int:
    """What a matrix product of the tensor cores takes: a power of two, 16 at least."""
    return max(16, triton.next_power_of_2(size))


class RowAttention:
    """See `r1rl.rollout.attention.RowKernel`. torch.compile sees one operation that it need not look into."""

    def __init__(self, device: torch.device) -> None:
        self.processors = torch.cuda.get_device_properties(device).multi_processor_count
        self.operation = operation()

    def splits(self, programs: int, columns: int) -> int:
        """See `RowKernel.splits`: a power of two."""
        wanted = min(PROGRAMS_PER_PROCESSOR * self.processors // programs, columns // SHORTEST_PART)
        return 1 << (max(1, wanted).bit_length() - 1)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        positions_R: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
        splits: int,
    ) -> Tensor:
        """See `decode_attention`."""
        out: Tensor = self.operation(query, key, value, positions_R, scaling, window, softcap, splits)
        return out


@cache
def operation() -> Any:
    """`decode_attention` as an operation of torch, made known to it once."""
    arguments = "Tensor query, Tensor key, Tensor value, Tensor positions, float scaling, SymInt? window, float? softcap, SymInt splits"
    made = torch.library.custom_op("r1rl::decode_attention", decode_attention, mutates_args=(), schema=f"({arguments}) -> Tensor")

    def shape_of(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Tensor:
        return value.new_empty(query.shape[0], 1, query.shape[1], value.shape[3])

    made.register_fake(shape_of)
    return torch.ops.r1rl.decode_attention.default
