"""Compiled layers: the same gradients, and a sentence where layers stay as they are."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from update_helpers import LAYOUTS, build, gradients, random_rollout

from r1rl.compute.trials import trial_report
from r1rl.config.schema import LoRAConfig, UpdateConfig
from r1rl.models.lora import add_adapters
from r1rl.objective.sampling import Sampling
from r1rl.policy import compilation
from r1rl.policy.compilation import compile_policy, fuse_logprobs, uses_logprob_kernel, wants_compiling
from r1rl.policy.layout import choose_layout
from r1rl.policy.logprobs import PolicyForward, chunk_logprobs


def policy(model: Any) -> PolicyForward:
    return PolicyForward(model, Sampling(8), 64)


def test_layers_that_the_rollout_shares_are_left_alone():
    model = build("qwen3")
    for layout, dtype, reason in (
        ("shared", torch.float32, "in float32 the rollout engine runs the same layers"),
        ("padded", torch.bfloat16, "needs packed sequences"),
    ):
        trial = compile_policy(policy(model), LAYOUTS[layout], dtype)
        assert not trial.accepted
        assert reason in trial.reason
    assert all(module._compiled_call_impl is None for module in model.modules())


def test_a_compiler_that_fails_leaves_the_layers_alone(monkeypatch):
    def broken(module: nn.Module, **options: Any) -> None:
        module._compiled_call_impl = fail

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(nn.Module, "compile", broken)
    model = build("qwen3")
    forward = policy(model)
    compile_policy(forward, LAYOUTS["shared"], torch.bfloat16)
    assert trial_report(forward.trials) == [
        "The policy is not compiled: RuntimeError: no C++ compiler; an update takes about 1.4 times as long."
    ]
    assert forward.chunk_logprobs is chunk_logprobs
    assert choose_layout(model, UpdateConfig(), torch.bfloat16).packed
    assert not model.get_input_embeddings()._forward_hooks


def right(*arguments: Any) -> Any:
    return chunk_logprobs(*arguments)


def wrong(*arguments: Any) -> Any:
    logprobs, entropies = chunk_logprobs(*arguments)
    return 2 * logprobs, entropies


def missing(*arguments: Any) -> Any:
    raise ImportError("no Triton\nbut a long story")


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (right, ""),
        (
            wrong,
            "Logprobs are computed without a kernel: logprobs of random tokens are ",
        ),
        (missing, "Logprobs are computed without a kernel: ImportError: no Triton"),
    ],
)
def test_a_kernel_of_logprobs_is_taken_if_it_gives_the_same(monkeypatch, kernel, said):
    monkeypatch.setitem(
        sys.modules, "r1rl.policy.logprob_kernel", SimpleNamespace(fused_chunk_logprobs=kernel)
    )
    forward = policy(build("qwen3"))
    assert fuse_logprobs(forward, torch.bfloat16) is None  # on a CPU
    assert forward.chunk_logprobs is chunk_logprobs
    monkeypatch.setattr(compilation, "uses_logprob_kernel", lambda *arguments: True)
    trial = fuse_logprobs(forward, torch.bfloat16)
    assert forward.trials == [trial]
    assert trial.line.startswith(said)
    assert trial.accepted == (kernel is right)
    assert forward.chunk_logprobs is (kernel if kernel is right else chunk_logprobs)


@pytest.mark.parametrize(
    ("device", "dtype", "sampling", "used"),
    [
        ("cuda", torch.bfloat16, Sampling(8, temperature=0.6), True),
        ("cuda", torch.bfloat16, Sampling(8, top_p=0.9), False),
        ("cuda", torch.float32, Sampling(8), False),
        ("cpu", torch.bfloat16, Sampling(8), False),
    ],
)
def test_where_the_kernel_of_logprobs_is_used(device, dtype, sampling, used):
    assert uses_logprob_kernel(torch.device(device), dtype, sampling) is used


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients_at_any_length():
    """Once for all shapes: a second rollout compiles nothing more."""
    model = build("qwen3")
    assert compile_policy(policy(model), LAYOUTS["shared"], torch.bfloat16).accepted
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for seed in (3, 9):
        batch = random_rollout(seed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, expected = (gradients(each, batch, LAYOUTS["shared"]) for each in (model, build("qwen3")))
        norm = torch.stack([value.norm() for value in expected.values()]).norm()
        assert torch.stack([(found[name] - expected[name]).norm() for name in expected]).norm() < 0.05 * norm
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@pytest.mark.slow
def test_layers_with_adapters_are_compiled_once():
    """The first layer too, whose input has no gradient where the embeddings are frozen; without gradients
    nothing asks for one.
    """

    def graphs_of(model: PreTrainedModel) -> int:
        torch._dynamo.reset()
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert compile_policy(policy(model), LAYOUTS["shared"], torch.bfloat16).accepted
        return torch._dynamo.utils.counters["stats"]["unique_graphs"] - before

    adapted = build("qwen3")
    add_adapters(adapted, LoRAConfig(rank=3), "base", None, seed=3)
    assert graphs_of(adapted) == graphs_of(build("qwen3"))
    ids = torch.tensor([1, 2])
    assert adapted.get_input_embeddings()(ids).requires_grad
    with torch.no_grad():
        assert not adapted.get_input_embeddings()(ids).requires_grad


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "checkpointed", "wanted"),
    [
        (None, "cuda", torch.bfloat16, False, True),
        (None, "cpu", torch.bfloat16, False, False),
        (None, "cuda", torch.float32, False, False),
        (None, "cuda", torch.bfloat16, True, False),
        (True, "cpu", torch.float32, True, True),
        (False, "cuda", torch.bfloat16, False, False),
    ],
)
def test_what_is_compiled_unless_the_recipe_says(asked, device, dtype, checkpointed, wanted):
    assert wants_compiling(asked, torch.device(device), dtype, checkpointed) is wanted
