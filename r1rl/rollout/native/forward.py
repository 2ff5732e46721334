"""The two forward passes of a rollout, and the check that a model's own forward agrees with them.

Legend: P prompts, N packed prompt tokens, R rows, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache as remember
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1rl.attention.rollout import ATTENTION_NAME, ChunkPlan, DecodePlan, PrefillPlan, register_attention
from r1rl.rollout.native.cache import PackedPrompts, RowCache
from r1rl.rollout.native.compiled import LayerTurn
from r1rl.rollout.native.method import StepMethod
from r1rl.rollout.weights import RolloutWeights

PREFILL_TOKENS = 8192
"""Prompt tokens of one forward: enough to fill the machine, few enough that its activations are small beside
the cache.
"""


PLAIN = StepMethod()


class UnsupportedModel(Exception):
    """The native engine can't run this model; the message completes "can't run it: ..."."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    """Prompts whose keys and values are computed: where each begins in the packed sequence, and its
    next-token logits.
    """

    cache: PackedPrompts
    starts: list[int]
    lengths: list[int]
    logits_PV: Tensor


def prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], chunk_tokens: int = PREFILL_TOKENS
) -> Prefilled:
    """One forward over all prompts, packed into one sequence: no token of padding. Equal lengths must be
    neighbours.

    A single prompt of more than `chunk_tokens` takes several forwards, so that its activations stay small.
    """
    device = next(model.parameters()).device
    lengths = [len(prompt) for prompt in prompts]
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])
    cache = PackedPrompts()
    plan: PrefillPlan | ChunkPlan = PrefillPlan(lengths)
    done = 0
    if len(prompts) == 1 and lengths[0] > chunk_tokens:
        plan = PrefillPlan([chunk_tokens])
        while done + chunk_tokens < lengths[0]:
            chunk = slice(done, done + chunk_tokens)
            prefill_forward(model, tokens[chunk], positions[chunk], cache, plan, [chunk_tokens - 1])
            plan, done = ChunkPlan(), chunk.stop
    last = [start + length - 1 - done for start, length in zip(starts, lengths, strict=True)]
    logits_PV = prefill_forward(model, tokens[done:], positions[done:], cache, plan, last)
    return Prefilled(cache, starts, lengths, logits_PV)


def prefill_forward(
    model: PreTrainedModel,
    tokens_N: Tensor,
    positions_N: Tensor,
    cache: PackedPrompts,
    plan: PrefillPlan | ChunkPlan,
    kept: list[int],
) -> Tensor:
    """Feeds packed tokens; returns the logits [K, V] after the tokens at the K places `kept`."""
    cache.begin_chunk()
    return model(
        input_ids=tokens_N[None],
        position_ids=positions_N[None],
        **{cache_name(type(model).forward): cache},
        use_cache=True,
        logits_to_keep=torch.tensor(kept, device=tokens_N.device),
        rollout_plan=plan,
    ).logits[0]


@remember
def cache_name(forward: Callable[..., Any]) -> str:
    """What a model's forward calls its cache: `cache` from transformers 5.23 on, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def start_rows(cache: RowCache, prompts: Prefilled, chosen: Sequence[int]) -> None:
    """Adds one row to the cache for each chosen prompt (an index into `prompts`; repeated for its
    completions).
    """
    device = prompts.logits_PV.device
    width = max(prompts.lengths[index] for index in chosen)
    cache.reserve(width)
    start_R = torch.tensor([prompts.starts[index] for index in chosen], device=device)
    source_RC = start_R[:, None] + torch.arange(width, device=device)
    # Columns past a shorter prompt read the next prompt's tokens, or the last token again at the end of the
    # packed sequence.
    cache.append(prompts.cache, source_RC.clamp_(max=sum(prompts.lengths) - 1))


def decode_step(
    model: PreTrainedModel,
    cache: RowCache,
    tokens_R: Tensor,
    positions_R: Tensor,
    width: int,
    method: StepMethod = PLAIN,
) -> Tensor:
    """Feeds one token per row at its position, and returns the next token's logits [R, V]. `width`: columns
    that are read.
    """
    cache.reserve(width)
    splits = (
        1
        if method.kernel is None
        else method.kernel.splits(positions_R.shape[0] * cache.keys[0].shape[1], width)
    )
    plan = DecodePlan(positions_R, width, method.kernel, splits)
    if method.compiled is None:
        cache.begin_step(positions_R, width)
        return decode_forward(model, cache, tokens_R, positions_R, plan)
    if method.reads_whole_rows:
        for window in method.compiled.windows:
            plan.bias(window, cache.keys[0].dtype)
    with method.compiled.installed(cache, plan, width if method.reads_whole_rows else None) as turn:
        return decode_forward(model, turn, tokens_R, positions_R, plan)


def decode_forward(
    model: PreTrainedModel,
    cache: RowCache | LayerTurn,
    tokens_R: Tensor,
    positions_R: Tensor,
    plan: DecodePlan,
) -> Tensor:
    """The model's forward in a decode step."""
    return model(
        input_ids=tokens_R[:, None],
        position_ids=positions_R[:, None],
        **{cache_name(type(model).forward): cache},
        use_cache=True,
        rollout_plan=plan,
    ).logits[:, -1]


def check_model(weights: RolloutWeights) -> None:
    """Compares prefill and decoding of two short prompts with the model's own forward.

    Raises UnsupportedModel if the model doesn't run or its logits differ by more than rounding (`deviation`,
    `tolerance`).
    """
    if not getattr(weights.model, "_supports_attention_backend", False):
        raise UnsupportedModel("transformers doesn't let its attention be replaced")
    register_attention()
    generator = torch.Generator().manual_seed(0)
    sequences = [
        torch.randint(weights.input_vocabulary, (length,), generator=generator).tolist() for length in (5, 8)
    ]
    try:
        with weights.borrowed() as model:
            expected = [
                model(input_ids=torch.tensor([s], device=weights.device), use_cache=False).logits[0].float()
                for s in sequences
            ]
        with weights.borrowed(ATTENTION_NAME) as model:
            found = replay(model, sequences)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a model's own code raises says that it doesn't fit
        first_line = (str(error).strip().splitlines() or ["no message"])[0]
        raise UnsupportedModel(f"{type(error).__name__}: {first_line}") from error
    for want, got in zip(expected, found, strict=True):
        difference = deviation(want[-3:], got)
        if not difference <= tolerance(weights.dtype):
            raise UnsupportedModel(
                f"its logits differ from its own forward's by {difference:.2g} standard deviations"
            )


def deviation(expected_NV: Tensor, found_NV: Tensor) -> float:
    """How far logits are from what they should be: the root mean square of the differences at one position,
    in standard deviations of the logits, where that is most. Unlike the largest difference it does not grow
    with the vocabulary.
    """
    return ((found_NV - expected_NV).square().mean(-1).max().sqrt() / expected_NV.std()).item()


def tolerance(dtype: torch.dtype) -> float:
    """The `deviation` that rounding may make: 1e-4 in exact float32, a tenth in lower precision (in a trained
    model a wrong mask or position makes about one).
    """
    return 1e-4 if is_exact(dtype) else 0.1


def is_exact(dtype: torch.dtype) -> bool:
    """True if matrix products are those of float32."""
    return dtype is torch.float32 and torch.get_float32_matmul_precision() == "highest"


def replay(model: PreTrainedModel, sequences: Sequence[list[int]]) -> list[Tensor]:
    """The logits of each sequence's last three positions, by prefilling all but two tokens and decoding
    those.
    """
    prompts = prefill(model, [sequence[:-2] for sequence in sequences])
    cache = RowCache(len(sequences), max(map(len, sequences)))
    start_rows(cache, prompts, range(len(sequences)))
    logits = [prompts.logits_PV.float()]
    for offset in (2, 1):
        positions_R = torch.tensor(
            [len(sequence) - offset for sequence in sequences], device=prompts.logits_PV.device
        )
        tokens_R = torch.tensor([sequence[-offset] for sequence in sequences], device=positions_R.device)
        logits.append(decode_step(model, cache, tokens_R, positions_R, int(positions_R.max()) + 1).float())
    return list(torch.stack(logits, dim=1))
