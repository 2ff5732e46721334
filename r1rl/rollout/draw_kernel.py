"""The sums of exponentials that drawing a token needs, as a Triton kernel: one pass over the logits, in the precision that they have.

Needs Triton, which comes with torch's builds for GPUs: import this module only where there is one.

Legend: B rows, V vocabulary, K blocks of W vocabulary entries.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _sum_block(logits, highest, sums, row_stride, vocabulary, temperature, WIDTH: tl.constexpr):
    """One block of one row."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    entries = block * WIDTH + tl.arange(0, WIDTH)
    x = tl.load(logits + row * row_stride + entries, mask=entries < vocabulary, other=-float("inf")).to(tl.float32) / temperature
    most = tl.max(x, 0)
    total = tl.sum(tl.exp(x - tl.where(most == -float("inf"), 0.0, most)), 0)
    place = row * tl.num_programs(1) + block
    tl.store(highest + place, most)
    tl.store(sums + place, total)


def sum_blocks(logits_BV: Tensor, temperature: float, width: int) -> tuple[Tensor, Tensor]:
    """See `r1rl.rollout.sampler.sum_blocks`."""
    rows, vocabulary = logits_BV.shape
    blocks = triton.cdiv(vocabulary, width)
    highest_BK = logits_BV.new_empty(rows, blocks, dtype=torch.float32)
    sums_BK = torch.empty_like(highest_BK)
    _sum_block[(rows, blocks)](logits_BV, highest_BK, sums_BK, logits_BV.stride(0), vocabulary, temperature, WIDTH=width)
    return highest_BK, sums_BK


def block_width(vocabulary: int) -> int:
    """A power of two: enough for a program, few enough that the block that is drawn from is read again in no time."""
    return min(1024, triton.next_power_of_2(vocabulary))


@cache
def operation() -> Any:
    """`sum_blocks` as an operation of torch, made known to it once: torch.compile need not look into it."""
    schema = "(Tensor logits, float temperature, SymInt width) -> (Tensor, Tensor)"
    made = torch.library.custom_op("r1rl::sum_blocks", sum_blocks, mutates_args=(), schema=schema)

    def shapes_of(logits: Tensor, temperature: float, width: int) -> tuple[Tensor, Tensor]:
        highest = logits.new_empty(logits.shape[0], -(-logits.shape[1] // width), dtype=torch.float32)
        return highest, torch.empty_like(highest)

    made.register_fake(shapes_of)
    return torch.ops.r1rl.sum_blocks.default
