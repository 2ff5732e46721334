"""The two forward passes of a rollout: prefilling prompts, and a decode step.

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

from r1rl.attention.rollout import ChunkPlan, DecodePlan, PrefillPlan
from r1rl.rollout.native.cache import PackedPrompts, RowCache
from r1rl.rollout.native.compiled import LayerTurn
from r1rl.rollout.native.method import StepMethod

PREFILL_TOKENS = 8192
"""The prompt tokens of one forward: enough to fill the machine, few enough that its activations are small
beside the cache.
"""

PLAIN = StepMethod()


@dataclass(frozen=True, slots=True)
class Prefilled:
    """Prompts whose keys and values are computed: their places in the packed sequence, and their next-token
    logits.
    """

    cache: PackedPrompts
    starts: list[int]
    lengths: list[int]
    logits_PV: Tensor


def prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], chunk_tokens: int = PREFILL_TOKENS
) -> Prefilled:
    """Feed all prompts in one forward, packed without padding. Equal lengths must be neighbours.

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
    """Feed packed tokens; return the logits [K, V] after the tokens at the K places `kept`."""
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
    """Return a forward's name for its cache: `cache` from transformers 5.23 on, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def start_rows(cache: RowCache, prompts: Prefilled, chosen: Sequence[int]) -> None:
    """Add one row to the cache for each chosen prompt, an index into `prompts`; completions repeat it."""
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
    """Feed one token per row at its position, and return the next token's logits [R, V].

    `width`: columns that are read.
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
    """Run the model's forward in a decode step; return the logits [R, V]."""
    return model(
        input_ids=tokens_R[:, None],
        position_ids=positions_R[:, None],
        **{cache_name(type(model).forward): cache},
        use_cache=True,
        rollout_plan=plan,
    ).logits[:, -1]
