"""Attention of a decode step as a Triton kernel: each row reads its own tokens and no more, and nothing is
masked or repeated.

    o_rq = softmax(q_rq K_rh^T scaling) V_rh    over the row's positions 0 .. p_r, or the last of a window

One program takes one row and one key/value head, with all query heads that share it. Where rows are too few
to fill the machine, it takes one of several splits of the row's positions (Dao et al. 2023,
"Flash-Decoding"). The program that finishes last then adds up the parts, weighted by their sums of
exponentials. The running maximum and sum are those of online softmax (Milakov and Gimelshein 2018,
1805.02867). Where the new token's key and value are given, they are what these begin with, and are written to
the cache on the way.

The module needs Triton, which comes with torch's builds for GPUs: import it only where there is one.

Legend: R rows, Q query heads, H key/value heads, G queries that share one, C columns, D size of a key, E of a
value, S splits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from r1rl.attention.plans import Scoring

BLOCK_COLUMNS = 64
"""The number of positions that a program reads at a time; fewer where their keys exceed `BLOCK_BYTES`."""
BLOCK_BYTES = 16384
SHORTEST_PART = 128
"""The fewest positions of a split: shorter ones cost more in putting them together than they gain."""
PROGRAMS_PER_PROCESSOR = 2
"""The number of programs that keeps the memory busy; more splits would only add up more parts."""


@triton.jit
def _capped(scores, softcap):
    """Return softcap tanh(scores / softcap)."""
    ratio = tl.exp(-2.0 * tl.abs(scores) / softcap)
    return tl.where(scores < 0, -1.0, 1.0) * softcap * (1.0 - ratio) / (1.0 + ratio)


@triton.jit
def _add_up(
    parts, sums, lane, queries, outs, written,
    G: tl.constexpr, G_PAD: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Return the mixture [G_PAD, E_PAD] of a row and head: its parts added in their order, whichever was
    last.
    """
    highest = tl.full([G_PAD], -float("inf"), tl.float32)
    total = tl.zeros([G_PAD], tl.float32)
    mixed = tl.zeros([G_PAD, E_PAD], tl.float32)
    for split in tl.range(0, SPLITS, loop_unroll_factor=min(SPLITS, 8)):
        part = (lane * SPLITS + split) * G + queries
        its_highest = tl.load(sums + part * 2, mask=queries < G, other=0.0, cache_modifier=".cg")
        its_total = tl.load(sums + part * 2 + 1, mask=queries < G, other=0.0, cache_modifier=".cg")
        its_mixed = tl.load(parts + part[:, None] * E + outs, mask=written, other=0.0, cache_modifier=".cg")
        higher = tl.maximum(highest, its_highest)
        decay, weight = tl.exp(highest - higher), tl.exp(its_highest - higher)
        total = total * decay + its_total * weight
        mixed = mixed * decay[:, None] + its_mixed * weight[:, None]
        highest = higher
    return mixed / total[:, None]


@triton.jit
def _attend(
    q, k, v, new_k, new_v, out, parts, sums, counters, positions,
    q_row, q_head, k_row, k_head, k_column, v_row, v_head, v_column,
    new_k_row, new_k_head, new_v_row, new_v_head, scaling, softcap, window,
    G: tl.constexpr, G_PAD: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
    E: tl.constexpr, E_PAD: tl.constexpr, BLOCK: tl.constexpr, SPLITS: tl.constexpr,
    WRITES: tl.constexpr, CAPPED: tl.constexpr, WINDOWED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attend with the queries that share one head of one row, over one split of its positions.

    `out` [R, H, G, E], `parts` float32 [R, H, S, G, E], `sums` float32 [R, H, S, G, 2] and `counters` int32
    [R, H] are contiguous; the last three are used with several splits. Counters are 0 before and after.
    """
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    lane = row * tl.num_programs(1) + head
    position = tl.load(positions + row).to(tl.int32)
    first = 0
    if WINDOWED:
        first = tl.maximum(position + 1 - window, 0)
    stop = position if WRITES else position + 1
    share = tl.cdiv(tl.cdiv(stop - first, SPLITS), BLOCK) * BLOCK
    begin = first + split * share
    end = tl.minimum(begin + share, stop)
    queries, dims, outs, columns = (
        tl.arange(0, G_PAD),
        tl.arange(0, D_PAD),
        tl.arange(0, E_PAD),
        tl.arange(0, BLOCK),
    )
    k_start, v_start = k + row * k_row + head * k_head, v + row * v_row + head * v_head
    q_GD = tl.load(
        q + row * q_row + (head * G + queries[:, None]) * q_head + dims,
        mask=(queries[:, None] < G) & (dims < D),
        other=0.0,
    )
    highest = tl.full([G_PAD], -float("inf"), tl.float32)
    total = tl.zeros([G_PAD], tl.float32)
    mixed = tl.zeros([G_PAD, E_PAD], tl.float32)
    if WRITES:  # noqa: SIM102  decided when it is compiled, unlike the next line
        if split == 0:
            new_k_D = tl.load(new_k + row * new_k_row + head * new_k_head + dims, mask=dims < D, other=0.0)
            new_v_E = tl.load(new_v + row * new_v_row + head * new_v_head + outs, mask=outs < E, other=0.0)
            highest = tl.sum(q_GD.to(tl.float32) * new_k_D.to(tl.float32), 1) * scaling
            if CAPPED:
                highest = _capped(highest, softcap)
            total += 1.0
            mixed += new_v_E.to(tl.float32)
            tl.store(k_start + position * k_column + dims, new_k_D, mask=dims < D)
            tl.store(v_start + position * v_column + outs, new_v_E, mask=outs < E)
    for start in range(begin, end, BLOCK):
        place = start + columns
        inside = place < end
        k_CD = tl.load(
            k_start + place[:, None] * k_column + dims, mask=inside[:, None] & (dims < D), other=0.0
        )
        scores = tl.dot(q_GD, tl.trans(k_CD), input_precision=PRECISION) * scaling
        if CAPPED:
            scores = _capped(scores, softcap)
        scores = tl.where(inside, scores, -float("inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        decay = tl.exp(highest - higher)
        v_CE = tl.load(
            v_start + place[:, None] * v_column + outs, mask=inside[:, None] & (outs < E), other=0.0
        )
        total = total * decay + tl.sum(weights, 1)
        mixed = mixed * decay[:, None] + tl.dot(weights.to(v_CE.dtype), v_CE, input_precision=PRECISION)
        highest = higher
    written = (queries[:, None] < G) & (outs < E)
    out_GE = out + (lane * G + queries[:, None]) * E + outs
    if SPLITS == 1:
        tl.store(out_GE, (mixed / total[:, None]).to(out.dtype.element_ty), mask=written)
    else:
        part = (lane * SPLITS + split) * G + queries
        tl.store(sums + part * 2, highest, mask=queries < G)
        tl.store(sums + part * 2 + 1, total, mask=queries < G)
        tl.store(parts + part[:, None] * E + outs, mixed, mask=written)
        tl.debug_barrier()  # all threads have stored their part before it is counted
        if tl.atomic_add(counters + lane, 1, sem="acq_rel") == SPLITS - 1:
            # The last of the row's programs: all parts are there.
            whole = _add_up(parts, sums, lane, queries, outs, written, G, G_PAD, E, E_PAD, SPLITS)
            tl.store(out_GE, whole.to(out.dtype.element_ty), mask=written)
            tl.store(counters + lane, 0)


def decode_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    new_key: Tensor | None,
    new_value: Tensor | None,
    counters: Tensor,
    positions_R: Tensor,
    scaling: float,
    window: int | None,
    softcap: float | None,
    splits: int,
) -> Tensor:
    """Return [R, 1, Q, E]: [R, Q, 1, D] attends to the first p_r + 1 of [R, H, C, D] and [R, H, C, E].

    The last dimensions of keys and values must be dense. There may be more rows in `key` and `value`.
    `new_key` [R, H, 1, D] and `new_value` are written to column p_r first.
    """
    rows, query_heads, _, size = query.shape
    heads, out_size = key.shape[1], value.shape[3]
    group = query_heads // heads
    exact = value.dtype is torch.float32
    if rows * heads > len(counters):
        splits = 1  # a layer with more heads than the one that they were reckoned with
    block = max(16, min(BLOCK_COLUMNS, BLOCK_BYTES // (padded(size) * key.element_size())))
    query = query.contiguous()
    out = value.new_empty(rows, 1, query_heads, out_size)
    parts = value.new_empty(
        (rows, heads, splits, group, out_size) if splits > 1 else (1,), dtype=torch.float32
    )
    sums = value.new_empty((rows, heads, splits, group, 2) if splits > 1 else (1,), dtype=torch.float32)
    new_k, new_v = (key if new_key is None else new_key), (value if new_value is None else new_value)
    _attend[(rows, heads, splits)](
        query, key, value, new_k, new_v, out, parts, sums, counters, positions_R,
        query.stride(0), query.stride(1), *key.stride()[:3], *value.stride()[:3],
        *new_k.stride()[:2], *new_v.stride()[:2],
        scaling, softcap or 0.0, window or 0,
        G=group, G_PAD=padded(group), D=size, D_PAD=padded(size), E=out_size, E_PAD=padded(out_size),
        BLOCK=block, SPLITS=splits,
        WRITES=new_key is not None, CAPPED=softcap is not None, WINDOWED=window is not None,
        PRECISION="ieee" if exact else "tf32", num_stages=2 if exact else 3,
    )  # fmt: skip
    return out


def padded(size: int) -> int:
    """Round up to what a matrix product of the tensor cores takes: a power of two, 16 at least."""
    return max(16, triton.next_power_of_2(size))


class RowAttention:
    """The kernel as a `r1rl.attention.rollout.RowKernel`: to torch.compile it is one operation."""

    def __init__(self, device: torch.device) -> None:
        self.programs = (
            PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
        )
        self.counters = torch.zeros(self.programs, dtype=torch.int32, device=device)
        """The number of splits done, for each row and head; rows are cut only where these are few enough."""
        self.operation = operation()

    def splits(self, programs: int, columns: int) -> int:
        """See `RowKernel.splits`: a power of two."""
        wanted = min(self.programs // programs, columns // SHORTEST_PART)
        return 1 << (max(1, wanted).bit_length() - 1)

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
        """See `decode_attention`."""
        new_key, new_value = arrived or (None, None)
        out: Tensor = self.operation(
            query, key, value, new_key, new_value, self.counters, positions_R, *scoring, splits
        )
        return out


@cache
def operation() -> Any:
    """Make `decode_attention` an operation of torch, once, and return it."""
    arguments = (
        "Tensor query, Tensor(a!) key, Tensor(b!) value, Tensor? new_key, Tensor? new_value, Tensor(c!) "
        "counters, Tensor positions, "
        "float scaling, SymInt? window, float? softcap, SymInt splits"
    )
    changed = ("key", "value", "counters")
    made = torch.library.custom_op(
        "r1rl::decode_attention", decode_attention, mutates_args=changed, schema=f"({arguments}) -> Tensor"
    )

    def shape_of(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Tensor:
        return value.new_empty(query.shape[0], 1, query.shape[1], value.shape[3])

    made.register_fake(shape_of)
    return torch.ops.r1rl.decode_attention.default
