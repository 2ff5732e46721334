"""The operations of drawing a token on whole rows of logits, as Triton kernels.

`sum_blocks` passes over the logits once, in the precision that they have. `truncate` finds what top-k, top-p
and min-p leave without sorting. Each of these keeps the logits from some threshold on,
which is found by bisection over the 2^32 values of a float32. In each step the logits above the middle are
counted, or their probabilities added up. 32 passes over a row that stays in the cache take less than a
sort of the row.

The module needs Triton, which comes with torch's builds for GPUs: import it only where there is one.

Legend: B rows, V vocabulary, K blocks of W vocabulary entries.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from r1rl.objective.sampling import Sampling
from r1rl.rollout.sampler import LogitOps


@triton.jit
def _sum_block(logits, highest, sums, row_stride, vocabulary, temperature, WIDTH: tl.constexpr):
    """Add up one block of one row."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    entries = block * WIDTH + tl.arange(0, WIDTH)
    x = (
        tl.load(logits + row * row_stride + entries, mask=entries < vocabulary, other=-float("inf")).to(
            tl.float32
        )
        / temperature
    )
    most = tl.max(x, 0)
    total = tl.sum(tl.exp(x - tl.where(most == -float("inf"), 0.0, most)), 0)
    place = row * tl.num_programs(1) + block
    tl.store(highest + place, most)
    tl.store(sums + place, total)


def sum_blocks(logits_BV: Tensor, temperature: float, width: int) -> tuple[Tensor, Tensor]:
    """Return what `r1rl.rollout.sampler.sum_blocks` does."""
    rows, vocabulary = logits_BV.shape
    blocks = triton.cdiv(vocabulary, width)
    highest_BK = logits_BV.new_empty(rows, blocks, dtype=torch.float32)
    sums_BK = torch.empty_like(highest_BK)
    _sum_block[(rows, blocks)](
        logits_BV, highest_BK, sums_BK, logits_BV.stride(0), vocabulary, temperature, WIDTH=width
    )
    return highest_BK, sums_BK


def block_width(vocabulary: int) -> int:
    """Return a power of two: enough for a program, few enough that the block drawn from is read again in no
    time.
    """
    return min(1024, triton.next_power_of_2(vocabulary))


@triton.jit
def _ordered(x):
    """Return integers in the order of these float32 numbers."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)


@triton.jit
def _amount_above(
    row_start, place, least, vocabulary, temperature, highest, COUNTS: tl.constexpr, BLOCK: tl.constexpr
):
    """Return how many logits are above `place`, or the sum of their exp(x - highest).

    Only logits from `least` on count, in the order of `_ordered`.
    """
    total = 0.0
    for start in range(0, vocabulary, BLOCK):
        entries = start + tl.arange(0, BLOCK)
        inside = entries < vocabulary
        x = tl.load(row_start + entries, mask=inside, other=-float("inf")).to(tl.float32) / temperature
        rank = _ordered(x)
        above = inside & (rank > place) & (rank >= least)
        total += tl.sum(tl.where(above, 1.0 if COUNTS else tl.exp(x - highest), 0.0), 0)
    return total


@triton.jit
def _threshold(
    row_start, limit, least, most, vocabulary, temperature, highest, COUNTS: tl.constexpr, BLOCK: tl.constexpr
):
    """Return the lowest place from `least` to `most` above which there is less than `limit`."""
    low, high = least, most
    while low < high:
        middle = low + (high - low) // 2
        if _amount_above(row_start, middle, least, vocabulary, temperature, highest, COUNTS, BLOCK) < limit:
            high = middle
        else:
            low = middle + 1
    return low


@triton.jit
def _truncate(
    logits, out, row_stride, vocabulary, temperature, top_k, top_p, min_p,
    HAS_K: tl.constexpr, HAS_P: tl.constexpr, HAS_MIN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Truncate one row."""
    row = tl.program_id(0).to(tl.int64)
    row_start = logits + row * row_stride
    highest = -float("inf")
    for start in range(0, vocabulary, BLOCK):
        entries = start + tl.arange(0, BLOCK)
        x = (
            tl.load(row_start + entries, mask=entries < vocabulary, other=-float("inf")).to(tl.float32)
            / temperature
        )
        highest = tl.maximum(highest, tl.max(x, 0))
    most = tl.max(_ordered(tl.full([1], 0.0, tl.float32) + highest), 0)
    least = most - (1 << 32)
    if HAS_K:
        least = _threshold(row_start, top_k, least, most, vocabulary, temperature, highest, True, BLOCK)
    if HAS_P:
        whole = _amount_above(row_start, least - 1, least, vocabulary, temperature, highest, False, BLOCK)
        least = _threshold(
            row_start, top_p * whole, least, most, vocabulary, temperature, highest, False, BLOCK
        )
    for start in range(0, vocabulary, BLOCK):
        entries = start + tl.arange(0, BLOCK)
        inside = entries < vocabulary
        x = tl.load(row_start + entries, mask=inside, other=-float("inf")).to(tl.float32) / temperature
        kept = _ordered(x) >= least
        if HAS_MIN:
            kept = kept & (tl.exp(x - highest) >= min_p)
        tl.store(out + row * vocabulary + entries, tl.where(kept, x, -float("inf")), mask=inside)


def truncate_rows(logits_BV: Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Return float32 [B, V] with -inf outside the support, see `r1rl.objective.sampling.process_logits`.

    0, 1.0 and 0.0 turn the filters off.
    """
    out_BV = logits_BV.new_empty(logits_BV.shape, dtype=torch.float32)
    _truncate[(logits_BV.shape[0],)](
        logits_BV, out_BV, logits_BV.stride(0), logits_BV.shape[1], temperature, top_k, top_p, min_p,
        HAS_K=0 < top_k < logits_BV.shape[1], HAS_P=top_p < 1.0, HAS_MIN=min_p > 0.0, BLOCK=4096,
        num_warps=16,
    )  # fmt: skip
    return out_BV


def make_ops() -> LogitOps:
    """Return the kernels as operations of torch, into which torch.compile need not look."""
    sums, truncation = operations()

    def truncate(logits_BV: Tensor, sampling: Sampling) -> Tensor:
        out: Tensor = truncation(
            logits_BV, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
        )
        return out

    return LogitOps(block_width, sums, truncate)


@cache
def operations() -> tuple[Any, Any]:
    """Make `sum_blocks` and `truncate_rows` operations of torch, once, and return them."""
    schema = "(Tensor logits, float temperature, SymInt width) -> (Tensor, Tensor)"
    sums = torch.library.custom_op("r1rl::sum_blocks", sum_blocks, mutates_args=(), schema=schema)

    def shapes_of(logits: Tensor, temperature: float, width: int) -> tuple[Tensor, Tensor]:
        highest = logits.new_empty(logits.shape[0], -(-logits.shape[1] // width), dtype=torch.float32)
        return highest, torch.empty_like(highest)

    sums.register_fake(shapes_of)
    schema = "(Tensor logits, float temperature, SymInt top_k, float top_p, float min_p) -> Tensor"
    truncation = torch.library.custom_op("r1rl::truncate_rows", truncate_rows, mutates_args=(), schema=schema)
    truncation.register_fake(lambda logits, *others: logits.new_empty(logits.shape, dtype=torch.float32))
    return torch.ops.r1rl.sum_blocks.default, torch.ops.r1rl.truncate_rows.default
