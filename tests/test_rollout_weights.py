"""The module r1rl.rollout.weights: the caller's policy stays as it was, and copies follow it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rollout_helpers import PROMPTS, SEEDS, SHAPE, native, run, tiny_model, tokenizer, tokens
from transformers import LlamaConfig

from r1rl.objective.sampling import Sampling
from r1rl.rollout import EngineSetup, make_engine
from r1rl.rollout.weights import RolloutWeights


def test_policy_that_will_be_sharded_is_sampled_from_a_whole_copy() -> None:
    model = tiny_model()
    engine = native(model, own_copy=True)
    assert engine.weights.model is not model
    assert tokens(run(engine, [[5, 6]], 2, Sampling(6), [1])) == tokens(
        run(native(model), [[5, 6]], 2, Sampling(6), [1])
    )


@pytest.mark.parametrize("engine", ["native", "transformers"])
def test_copy_stays_as_it_is_until_it_is_refreshed(engine: str) -> None:
    """A policy that changes, or that is being trained, changes nothing in the samples of the copy."""
    model = tiny_model().train()
    built = make_engine(engine, EngineSetup(model, tokenizer(), own_copy=True))
    own = {parameter.data_ptr() for parameter in model.parameters()}

    def sample(refresh: bool) -> list[list[int]]:
        groups = built.generate(PROMPTS, 2, Sampling(8), SEEDS, refresh=refresh)
        return [
            one.token_ids
            for group in sorted(groups, key=lambda group: group.index)
            for one in group.completions
        ]

    before = sample(refresh=True)
    assert not own & {parameter.data_ptr() for parameter in built.weights.model.parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.config._attn_implementation = (
        "no such attention"  # the update's is another, and none of the copy's business
    )
    assert sample(refresh=False) == before
    assert sample(refresh=True) != before
    assert model.training and model.config._attn_implementation == "no such attention"


@pytest.mark.parametrize("engine", ["native", "transformers"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_policy_is_untouched(engine: str, dtype: torch.dtype | None) -> None:
    model = tiny_model().train()
    model.model.layers[1].eval()
    model.model.embed_tokens.requires_grad_(False)
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    prompts = [list(prompt) for prompt in PROMPTS]

    def state() -> list[Any]:
        return [
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
            [parameter._version for parameter in model.parameters()],
            model.config._attn_implementation,
            model.generation_config.to_dict(),
            torch.is_grad_enabled(),
        ]

    before = state()
    values = [parameter.clone() for parameter in model.parameters()]
    gradients = [
        None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()
    ]
    for _ in make_engine(engine, EngineSetup(model, tokenizer(), dtype=dtype)).generate(
        prompts, 2, Sampling(8), SEEDS
    ):
        assert state() == before  # between two groups, too
    assert state() == before
    assert prompts == PROMPTS
    for parameter, value, gradient in zip(model.parameters(), values, gradients, strict=True):
        assert torch.equal(parameter, value)
        assert (gradient is None and parameter.grad is None) or torch.equal(parameter.grad, gradient)
    model.zero_grad()
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()  # nothing is an inference tensor now
    assert model.lm_head.weight.grad is not None


@pytest.mark.parametrize("engine", ["native", "transformers"])
def test_buffers_made_while_sampling_can_be_trained_with(engine: str) -> None:
    """Dynamic rotary embeddings replace their frequencies when a sequence outgrows the model's length: here
    after 8 tokens.
    """
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    model = tiny_model(LlamaConfig(**{**SHAPE, "max_position_embeddings": 8}, rope_parameters=rope)).train()
    run(make_engine(engine, EngineSetup(model, tokenizer())), [[5, 6, 7]], 2, Sampling(20), [1])
    assert not any(buffer.is_inference() for buffer in model.buffers())
    model(input_ids=torch.tensor([list(range(12))])).logits.sum().backward()
    for buffer in model.buffers():
        buffer.add_(0)


def test_engine_built_in_inference_mode_works_outside() -> None:
    model = tiny_model()
    with torch.inference_mode():
        engine = native(model, dtype=torch.bfloat16)
        inside = tokens(run(engine, [[5, 6]], 2, Sampling(6), [1]))
    assert tokens(run(engine, [[5, 6]], 2, Sampling(6), [1])) == inside


def test_model_is_given_back_when_it_fails() -> None:
    model = tiny_model().train()
    engine = native(model)
    handle = model.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(engine.generate([[1]], 1, Sampling(2), [0]))
    handle.remove()
    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == "sdpa"


def test_new_weights_are_used_at_once() -> None:
    model = tiny_model()
    shared, copied = native(model), native(model, dtype=torch.bfloat16)
    assert shared.weights.model is model
    assert copied.weights.model is not model
    sampling = Sampling(10)
    before = [tokens(run(engine, [[5, 6]], 2, sampling, [1])) for engine in (shared, copied)]
    with torch.no_grad():
        for parameter, other in zip(model.parameters(), tiny_model(seed=1).parameters(), strict=True):
            parameter.copy_(other)
    for engine, old, dtype in ((shared, before[0], None), (copied, before[1], torch.bfloat16)):
        new = tokens(run(engine, [[5, 6]], 2, sampling, [1]))
        assert new != old
        assert new == tokens(run(native(tiny_model(seed=1), dtype=dtype), [[5, 6]], 2, sampling, [1]))


def test_copy_has_its_own_precision_and_the_buffers_the_policys() -> None:
    model = tiny_model()
    model.tie_weights()
    original_forward = model.forward
    # As accelerate wraps a prepared model.
    model.forward = lambda *args, **kwargs: original_forward(*args, **kwargs)
    weights = RolloutWeights(model, torch.bfloat16)
    assert {parameter.dtype for parameter in weights.model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in weights.model.parameters())
    assert "forward" not in vars(weights.model)
    for name, buffer in weights.model.named_buffers():
        assert buffer.dtype == dict(model.named_buffers())[name].dtype
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with weights.borrowed() as borrowed:
        assert borrowed(input_ids=torch.tensor([[1, 2]])).logits.dtype is torch.bfloat16
