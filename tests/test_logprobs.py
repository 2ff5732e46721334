"""Chunked logprobs against the full log-softmax of the model's own logits: values, entropies and the gradient
of every parameter.

Legend: R rows, T positions, N completion tokens, V vocabulary.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling, process_logits
from r1rl.policy import logprobs as module
from r1rl.policy.logprobs import PolicyForward

VOCABULARY = 29
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS = {
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(tie_word_embeddings=True, **{k: v for k, v in SHAPE.items() if k != "head_dim"})
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(tie_word_embeddings=False, **SHAPE)),
    # capped at 2, so that the cap bends most logits; a window shorter than the sequences
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(final_logit_softcapping=2.0, sliding_window=4, query_pre_attn_scalar=8, **SHAPE)
    ),
    "granite": lambda: GraniteForCausalLM(
        GraniteConfig(logits_scaling=3.0, **{k: v for k, v in SHAPE.items() if k != "head_dim"})
    ),
    "cohere": lambda: CohereForCausalLM(
        CohereConfig(logit_scale=0.5, **{k: v for k, v in SHAPE.items() if k != "head_dim"})
    ),
}
SAMPLINGS = [
    Sampling(max_completion_length=8),
    Sampling(max_completion_length=8, temperature=0.7),
    Sampling(max_completion_length=8, temperature=1.3, top_k=5),
    Sampling(max_completion_length=8, top_p=0.8),
    Sampling(max_completion_length=8, temperature=0.9, top_k=12, top_p=0.9, min_p=0.05),
]


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(1)
    return MODELS[name]().eval()


def case() -> tuple[Tensor, Tensor, Tensor]:
    """Return three right-padded rows of 4 + 7 + 1 completion tokens."""
    generator = torch.Generator().manual_seed(2)
    input_ids_RT = torch.randint(3, VOCABULARY, (3, 10), generator=generator)
    predictors_N = torch.tensor([*range(2, 6), *range(10 + 3, 10 + 10), 20])
    return input_ids_RT, predictors_N, torch.randint(0, VOCABULARY, (12,), generator=generator)


def plain(model: PreTrainedModel, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return the logprobs and entropies from full logits and a full softmax."""
    input_ids_RT, predictors_N, targets_N = case()
    logits_RTV = model(
        input_ids=input_ids_RT, attention_mask=torch.ones_like(input_ids_RT), use_cache=False
    ).logits
    logits_NV = logits_RTV.flatten(0, 1)[predictors_N]
    logprobs_NV = process_logits(logits_NV, sampling, keep_B=targets_N).log_softmax(-1)
    support_NV = logprobs_NV > -torch.inf
    entropy_N = -(logprobs_NV.exp() * torch.where(support_NV, logprobs_NV, 0.0)).sum(-1)
    return logprobs_NV.gather(-1, targets_N[:, None])[:, 0], entropy_N


def backward(model: nn.Module, logprobs_N: Tensor, entropy_N: Tensor | None) -> list[Tensor]:
    model.zero_grad()
    weights_N = torch.linspace(-1, 1, 12)
    loss = (
        (weights_N * logprobs_N).sum()
        if entropy_N is None
        else (weights_N * logprobs_N + 0.3 * weights_N.square() * entropy_N).sum()
    )
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def assert_same_gradients(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5 * float(theirs.abs().max()) + 1e-7)


@pytest.mark.parametrize(
    "sampling", SAMPLINGS, ids=lambda s: f"t{s.temperature}-k{s.top_k}-p{s.top_p}-m{s.min_p}"
)
@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_equal_the_plain_ones(name, sampling):
    model = build(name)
    expected, expected_entropy = plain(model, sampling)
    expected_gradients = backward(model, expected, expected_entropy)
    for chunk in (1, 5, 12, 100) if name == "qwen2" else (5, 100):
        found, entropy = PolicyForward(model, sampling, chunk)(*case(), "gradient")
        assert found.dtype == entropy.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(entropy, expected_entropy, rtol=1e-4, atol=1e-5)
        assert_same_gradients(backward(model, found, entropy), expected_gradients)


@pytest.mark.parametrize("sampling", [SAMPLINGS[1], SAMPLINGS[4]], ids=["full", "truncated"])
def test_entropy_as_a_value_has_no_gradient_and_does_not_disturb_that_of_the_logprobs(sampling):
    model = build("qwen2")
    expected, expected_entropy = plain(model, sampling)
    expected_gradients = backward(model, expected, None)
    found, entropy = PolicyForward(model, sampling, 5)(*case(), "value")
    assert not entropy.requires_grad
    torch.testing.assert_close(entropy, expected_entropy.detach(), rtol=1e-4, atol=1e-5)
    assert_same_gradients(backward(model, found, None), expected_gradients)
    found, entropy = PolicyForward(model, sampling, 5)(*case())
    assert entropy is None
    assert_same_gradients(backward(model, found, None), expected_gradients)


def test_entropy_as_a_value_is_not_computed_again_in_the_backward_pass(monkeypatch):
    calls = []
    original = module._entropy
    monkeypatch.setattr(module, "_entropy", lambda *arguments: calls.append(1) or original(*arguments))
    logprobs, _ = PolicyForward(build("qwen2"), SAMPLINGS[0], 4)(*case(), "value")
    assert len(calls) == 3
    logprobs.sum().backward()
    assert len(calls) == 3


class CountingHead(nn.Module):
    """A head that notes how many states it sees at a time."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.seen: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        self.seen.append(hidden.shape[0])
        return self.head(hidden)


def test_only_completion_tokens_go_through_the_head_one_chunk_at_a_time():
    model = build("llama")
    head = CountingHead(model.get_output_embeddings())
    model.set_output_embeddings(head)
    with torch.no_grad():
        PolicyForward(model, SAMPLINGS[0], 5)(*case())
    assert head.seen == [5, 5, 2]
    head.seen.clear()
    logprobs, _ = PolicyForward(model, SAMPLINGS[0], 5)(*case())
    logprobs.sum().backward()
    assert sorted(head.seen) == [2, 5, 5, 5, 5]  # forward, and all but the last again in the backward pass


def test_only_the_last_chunk_of_logits_is_kept_for_the_backward_pass():
    """The 12 tokens come in chunks of 5, 5 and 2.

    Among the tensors that autograd saves, only the last chunk's has a vocabulary dimension, besides the head.
    """
    model = build("llama")
    saved: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tuple(tensor.shape)) or tensor, lambda tensor: tensor
    ):
        PolicyForward(model, SAMPLINGS[1], 5)(*case(), "gradient")
    rows = {shape[0] for shape in saved if len(shape) == 2 and shape[-1] == VOCABULARY}
    assert rows == {2, SHAPE["hidden_size"]}  # the latter is the head


@pytest.mark.parametrize("name", MODELS)
def test_verify_accepts_known_architectures_and_leaves_the_mode_alone(name):
    model = build(name).train()
    PolicyForward(model, SAMPLINGS[0], 5).verify()
    assert model.training


def test_verify_refuses_an_architecture_that_computes_other_logits():
    class Shifted(LlamaForCausalLM):
        def forward(self, *arguments, **keywords):
            output = super().forward(*arguments, **keywords)
            output.logits = output.logits * 1.5
            return output

    model = Shifted(LlamaConfig(**SHAPE))
    with pytest.raises(UserError, match="Shifted computes its logits"):
        PolicyForward(model, SAMPLINGS[0], 5).verify()


def test_autocast_gives_float32_logprobs_close_to_the_float32_ones():
    model = build("qwen2")
    expected, expected_entropy = plain(model, SAMPLINGS[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, entropy = PolicyForward(model, SAMPLINGS[1], 5)(*case(), "gradient")
    assert found.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.15)
    torch.testing.assert_close(entropy, expected_entropy, rtol=0.1, atol=0.1)
    (found.sum() + entropy.sum()).backward()  # the recomputed chunks must be in bfloat16 too
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters()
    )


def test_gradient_checkpointing_of_the_model_changes_nothing():
    model = build("qwen2")
    expected = backward(model, PolicyForward(model, SAMPLINGS[0], 5)(*case())[0], None)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    assert_same_gradients(backward(model, PolicyForward(model, SAMPLINGS[0], 5)(*case())[0], None), expected)


def test_prepared_by_accelerate_and_wrapped_by_ddp(tmp_path):
    """The wrappers see `forward`, return the same logprobs and fill every gradient."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        model = build("qwen2")
        expected_logprobs, _ = PolicyForward(model, SAMPLINGS[1], 5)(*case())
        expected = backward(model, expected_logprobs, None)
        prepared = Accelerator(cpu=True).prepare(PolicyForward(model, SAMPLINGS[1], 5))
        wrapped = nn.parallel.DistributedDataParallel(PolicyForward(model, SAMPLINGS[1], 5))
        for policy in (prepared, wrapped):
            logprobs, entropy = policy(*case(), "value")
            assert entropy is not None
            torch.testing.assert_close(logprobs, expected_logprobs, rtol=1e-5, atol=1e-6)
            assert_same_gradients(backward(model, logprobs, None), expected)
    finally:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        torch.distributed.destroy_process_group()


@pytest.mark.gpu
def test_on_a_gpu_the_head_never_waits_and_keeps_one_chunk_of_logits():
    """With a vocabulary of 151k, 4096 tokens and chunks of 512, full float32 logits are 2.5 GB, those of a
    chunk 0.3 GB.
    """
    vocabulary, hidden_size, tokens, chunk = 151_936, 64, 4096, 512
    shape = {**SHAPE, "vocab_size": vocabulary, "hidden_size": hidden_size, "head_dim": 16}
    model = Qwen3ForCausalLM(Qwen3Config(**shape)).cuda()
    head = module.LogitHead(model)
    hidden = torch.randn(tokens, hidden_size, device="cuda", requires_grad=True)
    targets = torch.randint(0, vocabulary, (tokens,), device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        logprobs, entropy = module.head_logprobs(
            head, hidden, targets, SAMPLINGS[1], chunk, "gradient", module.chunk_logprobs
        )
        (logprobs.sum() + entropy.sum()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.max_memory_allocated() - before < 8 * 4 * chunk * vocabulary
    expected = (
        process_logits(model.lm_head(hidden), SAMPLINGS[1]).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    )
    torch.testing.assert_close(logprobs, expected, rtol=1e-4, atol=1e-4)
