"""Compiled layers: the same gradients, and a sentence where layers stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from update_helpers import LAYOUTS, build, gradients, random_rollout

from r1rl.config.schema import UpdateConfig
from r1rl.grpo.compilation import compile_layers
from r1rl.grpo.layout import choose_layout


def test_layers_that_the_rollout_shares_are_left_alone():
    model = build("qwen3")
    assert "in float32 the rollout engine runs the same ones" in compile_layers(model, LAYOUTS["shared"], torch.float32)
    assert "needs packed sequences" in compile_layers(model, LAYOUTS["padded"], torch.bfloat16)
    assert all(module._compiled_call_impl is None for module in model.modules())


def test_a_compiler_that_fails_leaves_the_layers_alone(monkeypatch):
    def broken(module: nn.Module, **options: Any) -> None:
        module._compiled_call_impl = fail

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(nn.Module, "compile", broken)
    model = build("qwen3")
    assert compile_layers(model, LAYOUTS["shared"], torch.bfloat16) == "Layers are not compiled: RuntimeError: no C++ compiler"
    assert choose_layout(model, UpdateConfig(), torch.bfloat16).packed


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients_at_any_length():
    """Once for all shapes: a second rollout compiles nothing more."""
    model = build("qwen3")
    assert compile_layers(model, LAYOUTS["shared"], torch.bfloat16) == ""
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for seed in (3, 9):
        batch = random_rollout(seed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, expected = (gradients(each, batch, LAYOUTS["shared"]) for each in (model, build("qwen3")))
        norm = torch.stack([value.norm() for value in expected.values()]).norm()
        assert torch.stack([(found[name] - expected[name]).norm() for name in expected]).norm() < 0.05 * norm
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
