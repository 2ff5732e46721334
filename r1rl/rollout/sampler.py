"""Drawing tokens. Each completion has a random stream of its own, so it does not depend on the batch that it
decodes in.

Legend: B rows, V vocabulary, S steps, K blocks of W vocabulary entries (V = K W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from r1rl.objective.sampling import Sampling, process_logits
from r1rl.seeds import derive_seed

# SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"), as signed 64-bit
# integers.
GAMMA = 0x9E3779B97F4A7C15 - 2**64
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64


def stream_key(seed: int, generation: int) -> int:
    """Return the key of the random stream of completion `generation` of a prompt with this seed."""
    return derive_seed(seed, "completion", generation)


def uniforms(keys_B: Tensor, first_B: Tensor, steps: int) -> Tensor:
    """Return float64 [B, steps] in [0, 1): entries first, first + 1, ... of each row's stream, 53 random bits
    each.

    The stream is counter-based: its entry t is SplitMix64's output for the state key + (t + 1) gamma, a
    function of the key and t alone. Integer arithmetic wraps modulo 2^64 and is the same on every device.
    """
    counter_BS = first_B[:, None] + torch.arange(1, steps + 1, device=keys_B.device)
    z = keys_B[:, None] + counter_BS * GAMMA
    z = (z ^ shift_right(z, 30)) * MIX_1
    z = (z ^ shift_right(z, 27)) * MIX_2
    z = z ^ shift_right(z, 31)
    return shift_right(z, 11).double() * 2.0**-53


def shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift logically; torch's shift of a signed integer copies the sign bit."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def block_width(vocabulary: int) -> int:
    """Return a power of two near the square root of the vocabulary.

    It divides the vocabulary if there is one that does and is at most 4 times smaller.
    """
    width = 1 << ((vocabulary - 1).bit_length() + 1) // 2
    return next((w for w in (width, width // 2, width // 4) if w and vocabulary % w == 0), width)


def sum_blocks(logits_BV: Tensor, temperature: float, width: int) -> tuple[Tensor, Tensor]:
    """Return the highest of `logits / temperature` in each block of `width` entries, and the sum of exp(x -
    highest).

    Both are float32 [B, K]. The sum of a block of -inf alone is 0.
    """
    if missing := -logits_BV.shape[1] % width:
        logits_BV = pad(logits_BV, (0, missing), value=-torch.inf)
    x_BKW = logits_BV.float().unflatten(1, (-1, width))
    if temperature != 1.0:
        x_BKW = x_BKW / temperature
    highest_BK = x_BKW.amax(-1)
    return highest_BK, (x_BKW - highest_BK.masked_fill(highest_BK == -torch.inf, 0.0)[:, :, None]).exp_().sum(
        -1
    )


@dataclass(frozen=True, slots=True)
class LogitOps:
    """The operations on logits that lead to a token: torch's, or kernels that do the same."""

    block_width: Callable[[int], int] = block_width
    """Entries of a block of a vocabulary."""
    sum_blocks: Callable[[Tensor, float, int], tuple[Tensor, Tensor]] = sum_blocks
    truncate: Callable[[Tensor, Sampling], Tensor] = process_logits
    """Temperature, top-k, top-p and min-p."""


TORCH_OPS = LogitOps()


def draw(
    logits_BV: Tensor, temperature: float, uniform_B: Tensor, ops: LogitOps = TORCH_OPS
) -> tuple[Tensor, Tensor]:
    """Draw one token per row, and return the tokens and their log-probabilities (float32).

    The cumulative distribution is inverted at `uniform_B` (float64, [0, 1)). Two levels keep it exact for
    large vocabularies: the block whose cumulative sum passes u, then the token within it, both cumulated in
    float64. The error in a token's probability is that of the float32 sum of its block, about 1e-7 of the
    block. A token of probability zero is never drawn. The logits are read once, and one block again.
    """
    vocabulary = logits_BV.shape[1]
    width = ops.block_width(vocabulary)
    highest_BK, sums_BK = ops.sum_blocks(logits_BV, temperature, width)
    highest_B1 = highest_BK.amax(-1, keepdim=True)
    sums_BK = sums_BK.double() * (highest_BK - highest_B1).double().exp()
    cumulated_BK = sums_BK.cumsum(-1)
    target_B1 = uniform_B[:, None] * cumulated_BK[:, -1:]
    # `right=True`: the first block whose cumulative sum is greater than the target, so never an empty one.
    # The clamps are for
    # NaN alone (a policy that has diverged): a token out of range would take the GPU down instead of showing
    # NaN logprobs.
    block_B1 = torch.searchsorted(cumulated_BK, target_B1, right=True).clamp_(max=sums_BK.shape[1] - 1)
    rest_B1 = target_B1 - (cumulated_BK.gather(1, block_B1) - sums_BK.gather(1, block_B1))
    entry_BW = block_B1 * width + torch.arange(width, device=logits_BV.device)
    x_BW = logits_BV.gather(1, entry_BW.clamp(max=vocabulary - 1)).float() / temperature - highest_B1
    inner_BW = x_BW.exp().masked_fill(entry_BW >= vocabulary, 0.0).double().cumsum(-1)
    # The two sums of a block may differ in the last digit: stay below the inner one, so that a token is
    # found.
    rest_B1 = torch.minimum(rest_B1.clamp_(min=0.0), inner_BW[:, -1:].nextafter(inner_BW.new_zeros(())))
    inner_B1 = torch.searchsorted(inner_BW, rest_B1, right=True).clamp_(max=width - 1)
    logprob_B1 = x_BW.gather(1, inner_B1) - cumulated_BK[:, -1:].log().float()
    return (block_B1 * width + inner_B1)[:, 0].clamp_(max=vocabulary - 1), logprob_B1[:, 0]


def penalize_repetition(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply negative logits of tokens already in prompt or completion (Keskar et al.
    2019, CTRL).
    """
    penalized_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, penalized_BV, logits_BV)


def sample(
    logits_BV: Tensor,
    sampling: Sampling,
    uniform_B: Tensor,
    seen_BV: Tensor | None,
    ops: LogitOps = TORCH_OPS,
) -> tuple[Tensor, Tensor]:
    """Return the next token of each row and its log-probability (float32) under the processed distribution.

    `seen_BV`, the tokens that each row holds, is needed with a repetition penalty only.
    """
    if seen_BV is not None:
        logits_BV = penalize_repetition(logits_BV.float(), seen_BV, sampling.repetition_penalty)
    if sampling.temperature == 0.0:
        logits_BV = logits_BV.float()
        token_B = logits_BV.argmax(-1)
        return token_B, logits_BV.log_softmax(-1).gather(1, token_B[:, None])[:, 0]
    temperature = sampling.temperature
    if sampling.truncates_vocabulary:
        logits_BV, temperature = ops.truncate(logits_BV, sampling), 1.0
    return draw(logits_BV, temperature, uniform_B, ops)
