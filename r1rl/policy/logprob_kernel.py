"""Logprobs and entropies of logits as Triton kernels: one pass over the logits forward, one backward, in the
precision that they have.

    l_n = x_n[o_n] - lse_n        H_n = lse_n - sum_v p_nv x_nv
    d/dx_nv = g_n ([v = o_n] - p_nv) - h_n p_nv (log p_nv + H_n)

Here x = logits / temperature, p = exp(x - lse), and g and h are the gradients of l and H. The sums are those
of online softmax (Milakov and Gimelshein 2018, 1805.02867), in float32.

The module needs Triton, which comes with torch's builds for GPUs: import it only where there is one.

Legend: C states of a chunk, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from r1rl.objective.sampling import Sampling
from r1rl.policy.logprobs import EntropyMode, LogitHead

BLOCK = 4096
"""Vocabulary entries that a program reads at a time."""


@triton.jit
def _forward(
    logits, targets, logprobs, entropies, sums, row_stride, vocabulary, temperature, BLOCK: tl.constexpr
):
    """Compute the logprob, the entropy and the log of the sum of one state."""
    row = tl.program_id(0).to(tl.int64)
    highest, total, mixed = -float("inf"), 0.0, 0.0
    for start in range(0, vocabulary, BLOCK):
        entries = start + tl.arange(0, BLOCK)
        inside = entries < vocabulary
        x = (
            tl.load(logits + row * row_stride + entries, mask=inside, other=-float("inf")).to(tl.float32)
            / temperature
        )
        higher = tl.maximum(highest, tl.max(x, 0))
        weights = tl.exp(x - higher)
        decay = tl.exp(highest - higher)
        total = total * decay + tl.sum(weights, 0)
        mixed = mixed * decay + tl.sum(tl.where(inside, weights * x, 0.0), 0)
        highest = higher
    lse = highest + tl.log(total)
    target = tl.load(logits + row * row_stride + tl.load(targets + row)).to(tl.float32) / temperature
    tl.store(logprobs + row, target - lse)
    tl.store(entropies + row, lse - mixed / total)
    tl.store(sums + row, lse)


@triton.jit
def _backward(
    logits, targets, sums, entropies, logprob_gradients, entropy_gradients, gradients,
    row_stride, vocabulary, temperature,
    OF_ENTROPY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute one block of one state's gradient."""
    row = tl.program_id(0).to(tl.int64)
    entries = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = entries < vocabulary
    logprob = tl.load(logits + row * row_stride + entries, mask=inside, other=0.0).to(
        tl.float32
    ) / temperature - tl.load(sums + row)
    probability = tl.exp(logprob)
    gradient = tl.load(logprob_gradients + row) * (
        tl.where(entries == tl.load(targets + row), 1.0, 0.0) - probability
    )
    if OF_ENTROPY:
        gradient -= tl.load(entropy_gradients + row) * probability * (logprob + tl.load(entropies + row))
    tl.store(
        gradients + row * vocabulary + entries,
        (gradient / temperature).to(gradients.dtype.element_ty),
        mask=inside,
    )


class LogprobsAndEntropies(torch.autograd.Function):
    """The kernels as a function with a gradient: float32 [C] each, of dense rows [C, V] and targets [C]."""

    @staticmethod
    def forward(ctx: Any, logits_CV: Tensor, targets_C: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        count, vocabulary = logits_CV.shape
        logprobs_C, entropies_C, sums_C = (logits_CV.new_empty(count, dtype=torch.float32) for _ in range(3))
        _forward[(count,)](
            logits_CV,
            targets_C,
            logprobs_C,
            entropies_C,
            sums_C,
            logits_CV.stride(0),
            vocabulary,
            temperature,
            BLOCK=BLOCK,
            num_warps=8,
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits_CV, targets_C, sums_C, entropies_C)
        ctx.temperature = temperature
        return logprobs_C, entropies_C

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        logits_CV, targets_C, sums_C, entropies_C = ctx.saved_tensors
        of_logprobs, of_entropies = (
            None if gradient is None else gradient.contiguous() for gradient in gradients
        )
        of_logprobs = torch.zeros_like(sums_C) if of_logprobs is None else of_logprobs
        count, vocabulary = logits_CV.shape
        out_CV = logits_CV.new_empty(count, vocabulary)
        _backward[(count, triton.cdiv(vocabulary, BLOCK))](
            logits_CV, targets_C, sums_C, entropies_C,
            of_logprobs, of_logprobs if of_entropies is None else of_entropies, out_CV,
            logits_CV.stride(0), vocabulary, ctx.temperature,
            OF_ENTROPY=of_entropies is not None, BLOCK=BLOCK, num_warps=8,
        )  # fmt: skip
        return out_CV, None, None


def fused_chunk_logprobs(
    head: LogitHead, hidden_CD: Tensor, targets_C: Tensor, sampling: Sampling, entropy: EntropyMode
) -> tuple[Tensor, Tensor | None]:
    """Return what `r1rl.policy.logprobs.chunk_logprobs` does, where all of the vocabulary is sampled."""
    logprobs_C, entropy_C = LogprobsAndEntropies.apply(
        head(hidden_CD), targets_C, sampling.temperature or 1.0
    )
    if entropy == "none":
        return logprobs_C, None
    return logprobs_C, entropy_C if entropy == "gradient" else entropy_C.detach()
