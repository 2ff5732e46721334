"""The engine's bfloat16 log-probabilities differ from a plain forward's by no more than two plain ways to
compute them differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from rollout_helpers import PROMPTS, SEEDS, configs, native, run, tiny_model
from torch import Tensor

from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.forward import cache_name
from r1rl.types import Completion

LENGTH = 40
GENERATIONS = 8


@torch.no_grad()
def in_one_forward(model, ids: Tensor) -> Tensor:
    """Return the logits of one sequence at a time, all its tokens at once."""
    return torch.cat([model(input_ids=row[None], use_cache=False).logits for row in ids])


@torch.no_grad()
def token_by_token(model, ids: Tensor) -> Tensor:
    """Return the logits of all sequences together, one token at a time, with transformers' own cache."""
    output = model(input_ids=ids[:, :1], use_cache=True)
    name = cache_name(type(model).forward)
    logits = [output.logits]
    for place in range(1, ids.shape[1]):
        output = model(input_ids=ids[:, place : place + 1], use_cache=True, **{name: output[name]})
        logits.append(output.logits)
    return torch.cat(logits, 1)


def logprobs(logits: Tensor, prompt: Sequence[int], completions: Sequence[Completion]) -> Tensor:
    """Return the logprobs of the completions' tokens, from logits at every place."""
    tokens = torch.tensor([completion.token_ids for completion in completions])
    return logits[:, len(prompt) - 1 : -1].float().log_softmax(-1).gather(2, tokens[:, :, None])[:, :, 0]


@pytest.mark.parametrize("name", ["llama", "mistral", "phi", "qwen2", "qwen3"])
def test_the_engine_is_as_close_as_another_plain_way(name: str) -> None:
    model = tiny_model(configs()[name]).eval().bfloat16()
    groups = run(native(model, dtype=torch.bfloat16), PROMPTS, GENERATIONS, Sampling(LENGTH), SEEDS)
    spread, distance = [], []
    for prompt, completions in zip(PROMPTS, groups, strict=True):
        ids = torch.tensor([[*prompt, *completion.token_ids] for completion in completions])
        plain, other = (
            logprobs(way(model, ids), prompt, completions) for way in (in_one_forward, token_by_token)
        )
        found = torch.tensor([completion.logprobs for completion in completions])
        spread.append((other - plain).abs())
        distance.append((found - plain).abs())
    assert torch.cat(spread).mean() > 1e-3, "the two plain ways round differently"
    assert torch.cat(distance).mean() <= 1.1 * torch.cat(spread).mean()
    assert torch.cat(distance).max() <= 1.5 * torch.cat(spread).max()
