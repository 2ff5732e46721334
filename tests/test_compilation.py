"""Compiled layers: the same gradients, and a sentence where layers stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from update_helpers import LAYOUTS, build, gradients, random_rollout

from r1rl.config.schema import UpdateConfig
from r1rl.grpo.compilation import compile_policy, wants_compiling
from r1rl.grpo.layout import choose_layout
from r1rl.grpo.logprobs import PolicyForward, chunk_logprobs
from r1rl.sampling import Sampling


def policy(model: Any) -> PolicyForward:
    return PolicyForward(model, Sampling(8), 64)


def test_layers_that_the_rollout_shares_are_left_alone():
    model = build("qwen3")
    assert "in float32 the rollout engine runs the same layers" in compile_policy(policy(model), LAYOUTS["shared"], torch.float32)
    assert "needs packed sequences" in compile_policy(policy(model), LAYOUTS["padded"], torch.bfloat16)
    assert all(module._compiled_call_impl is None for module in model.modules())


def test_a_compiler_that_fails_leaves_the_layers_alone(monkeypatch):
    def broken(module: nn.Module, **options: Any) -> None:
        module._compiled_call_impl = fail

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(nn.Module, "compile", broken)
    model = build("qwen3")
    forward = policy(model)
    assert compile_policy(forward, LAYOUTS["shared"], torch.bfloat16) == "The policy is not compiled: RuntimeError: no C++ compiler"
    assert forward.chunk_logprobs is chunk_logprobs
    assert choose_layout(model, UpdateConfig(), torch.bfloat16).packed


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients_at_any_length():
    """Once for all shapes: a second rollout compiles nothing more."""
    model = build("qwen3")
    assert compile_policy(policy(model), LAYOUTS["shared"], torch.bfloat16) == ""
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for seed in (3, 9):
        batch = random_rollout(seed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, expected = (gradients(each, batch, LAYOUTS["shared"]) for each in (model, build("qwen3")))
        norm = torch.stack([value.norm() for value in expected.values()]).norm()
        assert torch.stack([(found[name] - expected[name]).norm() for name in expected]).norm() < 0.05 * norm
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "checkpointed", "sharded", "wanted"),
    [
        (None, "cuda", torch.bfloat16, False, False, True),
        (None, "cpu", torch.bfloat16, False, False, False),
        (None, "cuda", torch.float32, False, False, False),
        (None, "cuda", torch.bfloat16, True, False, False),
        (None, "cuda", torch.bfloat16, False, True, False),
        (True, "cpu", torch.float32, False, True, True),
        (False, "cuda", torch.bfloat16, False, False, False),
    ],
)
def test_what_is_compiled_unless_the_recipe_says(asked, device, dtype, checkpointed, sharded, wanted):
    assert wants_compiling(asked, torch.device(device), dtype, checkpointed, sharded) is wanted
