"""Fused projections compute what the layers computed, follow new weights, and leave other layers alone."""

from __future__ import annotations

import copy

import pytest
import torch
from recorded_steps import RecordedSteps
from rollout_helpers import PROMPTS, SEEDS, configs, native, run, tiny_model, tokens
from torch import nn

from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.fused import LinearPart, fuse_linears

GROUPS = {"deepseek_v3": 3, "gpt2": 0, "phi": 3}
"""The number of groups per model of 3 layers: q, k, v and gate, up in each.

Phi has no gate; GPT-2 has one projection of its own class.
"""


def fused(model, policy):
    with torch.inference_mode():
        return fuse_linears(model, policy)


@pytest.mark.parametrize("name", sorted(configs()))
def test_the_same_logits_and_new_ones_with_new_weights(name: str) -> None:
    model = tiny_model(configs()[name]).eval()
    copied = copy.deepcopy(model)
    assert fused(copied, model) == GROUPS.get(name, 6)
    ids = torch.randint(1, 90, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(
            copied(input_ids=ids, use_cache=False).logits, before, atol=1e-5, rtol=1e-5
        )
        for parameter in model.parameters():
            parameter.mul_(1.1)
        torch._foreach_copy_(list(copied.parameters()), list(model.parameters()))
        after = model(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(copied(input_ids=ids, use_cache=False).logits, after, atol=1e-5, rtol=1e-5)
    assert (after - before).abs().max() > 0.1


def test_weights_of_the_policy_are_not_touched() -> None:
    policy = tiny_model()
    copied = copy.deepcopy(policy)
    copied.model.layers[0].mlp.up_proj.weight = policy.model.layers[0].mlp.up_proj.weight
    assert fused(copied, policy) == 5
    assert type(copied.model.layers[0].mlp.gate_proj) is nn.Linear
    assert isinstance(copied.model.layers[1].mlp.gate_proj, LinearPart)


def test_compiled_steps_run_fused_layers_as_one_product() -> None:
    linears: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: object):
        linears.append(sum("linear" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    model = tiny_model(configs()["qwen2"])
    fused(model, tiny_model(configs()["qwen2"]))
    engine = native(model, compiler=counting, capture=RecordedSteps())
    assert "its decoder layers are compiled" in engine.reason
    # Q, k, v together, the output, gate and up together, down in each of the layers.
    assert max(linears) == 3 * 4
    found = run(engine, PROMPTS, 4, Sampling(30), SEEDS)
    assert tokens(found) == tokens(
        run(native(tiny_model(configs()["qwen2"])), PROMPTS, 4, Sampling(30), SEEDS)
    )
