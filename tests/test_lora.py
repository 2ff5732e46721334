"""Adapters: their gradients, what a rollout samples from, the reference without them, and what a user reads
who asks for the impossible.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from rollout_helpers import native, run, tokenizer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel
from update_helpers import LAYOUTS, assert_same_gradients, build, gradients, random_rollout

from r1rl.config.schema import LoRAConfig, UpdateConfig
from r1rl.errors import UserError
from r1rl.models.lora import (
    adapted_layers,
    adapted_weight,
    add_adapters,
    load_adapter_weights,
    save_adapter,
    without_adapters,
)
from r1rl.objective.sampling import Sampling
from r1rl.policy.adapters import BasePolicy
from r1rl.policy.compilation import compile_policy
from r1rl.policy.costs import PassCosts
from r1rl.policy.layout import choose_layout
from r1rl.policy.logprobs import PolicyForward
from r1rl.rollout import EngineSetup, make_engine
from r1rl.rollout.weights import RolloutWeights

RANK, ALPHA = 3, 12
SCALE = ALPHA / RANK
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def adapted(model: PreTrainedModel, targets: tuple[str, ...] = (), trained: bool = True) -> PreTrainedModel:
    """Return the model with adapters; with `trained`, B is no longer zero."""
    add_adapters(
        model, LoRAConfig(rank=RANK, alpha=ALPHA, target_modules=list(targets)), "base", None, seed=3
    )
    if trained:
        generator = torch.Generator().manual_seed(4)
        for layer in adapted_layers(model).values():
            weight = layer.lora_B["default"].weight
            weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def dense(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """Return a model of the class `build(name)` with W + scale B A written out."""
    whole = build(name)
    for path, layer in adapted_layers(model).items():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        whole.get_submodule(path).weight.data += SCALE * (b.data @ a.data)
    return whole


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=64)).eval()


# what is trained


def test_only_adapters_are_trained_and_they_change_nothing_at_first() -> None:
    plain, model = build("qwen2"), adapted(build("qwen2"), trained=False)
    assert torch.equal(logits(model), logits(plain))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = [f"model.layers.{index}.{part}" for index in (0, 1) for part in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
        "mlp.up_proj", "mlp.down_proj",
    )]  # fmt: skip
    assert trained == {f"{layer}.lora_{side}.default.weight" for layer in layers for side in "AB"}
    assert type(model) is type(plain)


def test_adapters_are_drawn_from_the_seed_alone() -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = adapted(build("qwen2"), trained=False)
    torch.manual_seed(11)
    assert torch.equal(torch.get_rng_state(), state)
    build("qwen2")
    after_build = torch.get_rng_state()
    second = adapted(build("qwen2"), trained=False)
    assert torch.equal(torch.get_rng_state(), after_build)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_frozen_weights_keep_their_precision_and_adapters_are_float32() -> None:
    model = adapted(build("qwen2").to(torch.bfloat16), trained=False)
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()}
    assert kinds == {(False, torch.bfloat16), (True, torch.float32)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_follow_from_those_of_the_whole_matrices(layout: str, checkpointing: bool) -> None:
    """W = W_0 + s B A, so dL/dB = s dL/dW A^T and dL/dA = s B^T dL/dW."""
    model = adapted(build("qwen3", checkpointing))
    batch = random_rollout(3)
    whole = gradients(dense(model, "qwen3"), batch, LAYOUTS["padded"])
    expected = {}
    for path, layer in adapted_layers(model).items():
        a, b, gradient = (
            layer.lora_A["default"].weight.data,
            layer.lora_B["default"].weight.data,
            whole[f"{path}.weight"],
        )
        expected[f"{path}.lora_A.default.weight"] = SCALE * b.T @ gradient
        expected[f"{path}.lora_B.default.weight"] = SCALE * gradient @ a.T
    assert_same_gradients(gradients(model, batch, LAYOUTS[layout]), expected, tolerance=1e-5)


def test_packing_is_checked_and_taken() -> None:
    layout = choose_layout(adapted(build("qwen3"), trained=False), UpdateConfig(), torch.float32)
    assert layout.packed, layout.reason


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients() -> None:
    model = adapted(build("qwen3"))
    policy = BasePolicy(forward := PolicyForward(model, Sampling(20), 64))
    assert compile_policy(forward, LAYOUTS["shared"], torch.bfloat16).accepted
    batch = random_rollout(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):  # with the reference in between, which runs the same layers without adapters
            found, expected = (
                gradients(each, batch, LAYOUTS["shared"]) for each in (model, adapted(build("qwen3")))
            )
            norm = torch.stack([value.norm() for value in expected.values()]).norm()
            assert (
                torch.stack([(found[name] - expected[name]).norm() for name in expected]).norm() < 0.05 * norm
            )
            with torch.no_grad():
                reference, _ = policy(IDS, torch.arange(5), IDS[0, 1:])
                plain, _ = PolicyForward(build("qwen3"), Sampling(20), 64)(IDS, torch.arange(5), IDS[0, 1:])
            assert torch.allclose(reference, plain, atol=0.05)


def test_a_frozen_weight_costs_four_operations_a_token() -> None:
    """Forward and the gradient of its input; an adapter's has one of its own, too: 6."""
    plain, model = PassCosts.of(build("qwen3")), PassCosts.of(adapted(build("qwen3")))
    added = sum(
        parameter.numel() for parameter in adapted(build("qwen3")).parameters() if parameter.requires_grad
    )
    assert model.position == pytest.approx(plain.position * 4 / 6 + 6 * added)
    assert model.completion_token == pytest.approx(plain.completion_token * 4 / 6)
    assert model.pair == plain.pair


# the rollout


@pytest.mark.parametrize("engine", ["native", "transformers"])
@pytest.mark.parametrize("name", ["qwen2", "qwen3", "mistral"])
def test_engines_sample_from_the_adapted_policy(name: str, engine: str) -> None:
    model = adapted(build(name)).eval()
    prompts = [[5, 6, 7], [8, 9]]
    samples = run(make_engine(engine, EngineSetup(model, tokenizer())), prompts, 3, Sampling(10), [1, 2])
    policy = PolicyForward(model, Sampling(10), 64)
    for prompt, group in zip(prompts, samples, strict=True):
        for completion in group:
            ids = torch.tensor([[*prompt, *completion.token_ids]])
            places = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
            with torch.no_grad():
                expected, _ = policy(ids, places, ids[0, len(prompt) :])
            assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0)


def test_new_adapters_are_used_at_once_and_the_policy_is_not_written_to() -> None:
    model = adapted(build("qwen2"), trained=False).train()
    model.model.layers[1].eval()
    engine = native(model)
    modes = [module.training for module in model.modules()]
    values = [parameter.clone() for parameter in model.parameters()]
    before = run(engine, [[5, 6, 7]], 4, Sampling(10), [1])
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(one, other) for one, other in zip(values, model.parameters(), strict=True))
    assert all(parameter.requires_grad == ("lora_" in name) for name, parameter in model.named_parameters())
    assert not any(layer.merged for layer in adapted_layers(model).values())
    with torch.no_grad():
        for layer in adapted_layers(model).values():
            layer.lora_B["default"].weight.normal_(std=0.2)
    after = run(engine, [[5, 6, 7]], 4, Sampling(10), [1])
    fresh = run(native(model), [[5, 6, 7]], 4, Sampling(10), [1])
    logprobs = [[one.logprobs for one in groups[0]] for groups in (before, after, fresh)]
    assert logprobs[0] != logprobs[1]
    assert logprobs[1] == logprobs[2]


def test_the_copy_has_adapted_matrices_only_and_shares_the_rest() -> None:
    model = adapted(build("qwen2"), ("q_proj", "down_proj"))
    weights = RolloutWeights(model)
    own = {parameter.data_ptr() for parameter in model.parameters()}
    held = {name for name, parameter in weights.model.named_parameters() if parameter.data_ptr() not in own}
    assert held == {
        f"model.layers.{index}.{part}.weight"
        for index in (0, 1)
        for part in ("self_attn.q_proj", "mlp.down_proj")
    }
    assert weights.model.get_output_embeddings().weight is weights.model.get_input_embeddings().weight
    assert not adapted_layers(weights.model)
    assert torch.allclose(logits(weights.model), logits(model), atol=1e-5)


def test_the_sum_is_rounded_once() -> None:
    """The sum is exact to half of the last of bfloat16's 8 bits.

    A product that was rounded before it was added would be off by more.
    """
    model = adapted(build("qwen2").to(torch.bfloat16))
    weights = RolloutWeights(model, torch.bfloat16)
    for path, layer in adapted_layers(model).items():
        a, b = (getattr(layer, f"lora_{side}")["default"].weight.double() for side in "AB")
        exact = layer.base_layer.weight.double() + SCALE * b @ a
        found = weights.model.get_submodule(path).weight
        assert found.dtype is torch.bfloat16
        assert bool(((found.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all())


def test_layers_that_keep_their_weights_transposed() -> None:
    """GPT-2's have [in, out]."""
    model = adapted(gpt2(), ("c_attn", "c_fc"))
    assert torch.allclose(logits(RolloutWeights(model).model), logits(model), atol=1e-5)
    layer = adapted_layers(model)["transformer.h.0.mlp.c_fc"]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert torch.allclose(adapted_weight(layer), layer.base_layer.weight + SCALE * (b @ a).T, atol=1e-6)


# the reference


def test_the_reference_is_the_base_model() -> None:
    base, model = build("qwen3"), adapted(build("qwen3")).train()
    policy = PolicyForward(model, Sampling(20, temperature=0.8), 64)
    arguments: tuple[Any, ...] = (IDS, torch.arange(5), IDS[0, 1:])
    trained = policy(*arguments)[0]
    with torch.no_grad():
        found = BasePolicy(policy)(*arguments)[0]
        expected = PolicyForward(base, Sampling(20, temperature=0.8), 64)(*arguments)[0]
    assert torch.equal(found, expected)
    assert (trained - expected).abs().max() > 0.01
    again = policy(*arguments)[0]  # trained as before, with gradients
    assert torch.equal(again, trained)
    again.sum().backward()
    assert all(
        (parameter.grad is not None) == ("lora_" in name) for name, parameter in model.named_parameters()
    )


def test_adapters_come_back_when_the_forward_raises() -> None:
    model = adapted(build("qwen2"))
    before = logits(model)
    with pytest.raises(ZeroDivisionError), without_adapters(model):
        raise ZeroDivisionError
    assert torch.equal(logits(model), before)


# files and errors


def test_saved_adapter_is_read_back(tmp_path: Any) -> None:
    model, other = adapted(build("qwen2")), adapted(build("qwen2"), trained=False)
    save_adapter(model, copy.copy(model.state_dict()), tmp_path)
    load_adapter_weights(other, tmp_path, "base")
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.requires_grad == two.requires_grad


def test_adapters_of_another_shape_or_model_are_refused(tmp_path: Any) -> None:
    model = adapted(build("qwen2"))
    save_adapter(model, model.state_dict(), tmp_path)
    with pytest.raises(
        UserError, match=r"the adapter in .* belongs to base, and this is other: go on with model.path=base\."
    ):
        load_adapter_weights(model, tmp_path, "other")
    larger = build("qwen2")
    add_adapters(larger, LoRAConfig(rank=RANK + 1), "base", None, 0)
    with pytest.raises(
        UserError, match=r"has other shapes: go on with the rank and target_modules that the run began with\."
    ):
        load_adapter_weights(larger, tmp_path, "base")
    fewer, more = adapted(build("qwen2"), ("q_proj",)), adapted(build("qwen2"))
    # 12 of 14 layers, 2 matrices each.
    with pytest.raises(UserError, match=r"24 weights of the adapter in .* have no counterpart"):
        load_adapter_weights(fewer, tmp_path, "base")
    save_adapter(fewer, fewer.state_dict(), tmp_path)
    with pytest.raises(UserError, match=r"24 weights of the adapter in .* have no counterpart"):
        load_adapter_weights(more, tmp_path, "base")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "q_prj"])
def test_targets_are_linear_layers_of_the_decoder(target: str) -> None:
    with pytest.raises(UserError) as caught:
        adapted(build("qwen2"), ("q_proj", target))
    assert str(caught.value) == (
        f"model.lora.target_modules names {target}, which is no linear layer of Qwen2ForCausalLM's decoder; "
        f"these are: "
        "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj. Leave the list empty for all of them."
    )
