"""Student and teacher side by side against whole logits and the float64 oracle: values, every parameter's
gradient, and memory.

Legend: N completion tokens, V vocabulary.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from r1rl.distill.batches import TrainSequence, lay_out, make_micro_batches
from r1rl.distill.divergences import STATISTICS, sequence_weights
from r1rl.distill.forward import StudentForward, Teacher
from r1rl.distill.recipe import DivergenceConfig, MicroBatchConfig
from r1rl.types import FinishReason, Problem, Prompt
from tests.reference import distill as oracle

SHAPE = {
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "max_position_embeddings": 64, "initializer_range": 0.4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
STUDENT_WIDTH, TEACHER_WIDTH, SHARED = 19, 23, 19
LENGTHS = [(3, 6), (5, 1), (2, 4), (4, 5)]
"""Tokens of prompt and completion."""


def student() -> PreTrainedModel:
    torch.manual_seed(1)
    return (
        Qwen3ForCausalLM(
            Qwen3Config(vocab_size=STUDENT_WIDTH, hidden_size=16, tie_word_embeddings=True, **SHAPE)
        )
        .double()
        .eval()
    )


def teacher() -> Teacher:
    """Another architecture, another width, more ids, and logits that are capped."""
    torch.manual_seed(2)
    config = Gemma2Config(
        vocab_size=TEACHER_WIDTH,
        hidden_size=24,
        final_logit_softcapping=5.0,
        query_pre_attn_scalar=8,
        **SHAPE,
    )
    return Teacher(Gemma2ForCausalLM(config).double())


def sequences() -> list[TrainSequence]:
    generator = torch.Generator().manual_seed(3)
    found = []
    for slot, (prompt, completion) in enumerate(LENGTHS):
        ids = torch.randint(3, STUDENT_WIDTH, (prompt + completion,), generator=generator).tolist()
        rendered = Prompt(Problem(str(slot), "", None), "", ids[:prompt])
        found.append(TrainSequence(slot, rendered, ids[prompt:], "", FinishReason.EOS, on_policy=True))
    return found


def full_logits(model: PreTrainedModel, one: TrainSequence) -> Tensor:
    """The logits before each completion token, of one unpadded sequence, from the model's own forward."""
    ids = torch.tensor([[*one.prompt.token_ids, *one.completion_ids]])
    return model(input_ids=ids, use_cache=False).logits[0, len(one.prompt.token_ids) - 1 : -1]


def oracle_gradients(
    kind: str, beta: float | None, temperature: float, aggregation: str
) -> tuple[float, list[Tensor]]:
    model, frozen = student(), teacher().model
    batch = sequences()
    with torch.no_grad():
        teachers = [full_logits(frozen, one) for one in batch]
    students = [full_logits(model, one) for one in batch]
    loss = oracle.loss(students, teachers, kind, beta, temperature, aggregation, SHARED)
    loss.backward()
    return float(loss.detach()), [parameter.grad for parameter in model.parameters()]


def our_gradients(config: DivergenceConfig, passes: MicroBatchConfig) -> tuple[float, list[Tensor], int]:
    model, frozen, batch = student(), teacher(), sequences()
    forward = StudentForward(model, config, SHARED, passes.logit_chunk)
    lengths = torch.tensor([completion for _, completion in LENGTHS])
    weights = sequence_weights(lengths, int(lengths.sum()), len(lengths), config)
    total = 0.0
    micro_batches = make_micro_batches(batch, passes)
    for one in micro_batches:
        states = frozen.states(one.input_ids_RT, one.predictors_N)
        divergences, statistics = forward(one.input_ids_RT, one.predictors_N, states)
        assert statistics.shape == (len(divergences), len(STATISTICS)) and not statistics.requires_grad
        loss = (weights[one.sequence_N] * divergences).sum()
        loss.backward()
        total += float(loss.detach())
    return total, [parameter.grad for parameter in model.parameters()], len(micro_batches)


@pytest.mark.parametrize(
    ("kind", "beta", "temperature", "aggregation"),
    [
        ("forward_kl", None, 1.0, "tokens"),
        ("reverse_kl", None, 0.7, "sequences"),
        ("jsd", 0.3, 1.5, "tokens"),
    ],
)
def test_loss_and_gradients_equal_the_oracles_however_the_batch_is_cut(
    kind: str, beta: float | None, temperature: float, aggregation: str
) -> None:
    expected, expected_gradients = oracle_gradients(kind, beta, temperature, aggregation)
    config = DivergenceConfig(kind=kind, beta=beta, temperature=temperature, aggregation=aggregation)
    counts = set()
    for tokens, rows, chunk in (
        (1000, None, 1000),
        (1000, None, 1),
        (16, None, 3),
        (1000, 1, 5),
        (1, None, 16),
    ):
        passes = MicroBatchConfig(micro_batch_tokens=tokens, micro_batch_sequences=rows, logit_chunk=chunk)
        found, gradients, count = our_gradients(config, passes)
        counts.add(count)
        assert found == pytest.approx(expected, abs=1e-9)
        for ours, theirs in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    assert counts == {1, 2, 4}


def test_rows_and_predictors() -> None:
    """Prompts of 3 and 5 with completions of 6 and 1 tokens: rows of 8 and 5, the second padded to 8."""
    batch = sequences()
    laid = lay_out(batch, [0, 1])
    assert laid.input_ids_RT.shape == (2, 8)
    assert laid.input_ids_RT[0].tolist() == [*batch[0].prompt.token_ids, *batch[0].completion_ids[:-1]]
    assert laid.input_ids_RT[1].tolist() == [*batch[1].prompt.token_ids, 0, 0, 0]
    # the first completion token is predicted by the last of the prompt (place 2), the second row begins at
    # place 8
    assert laid.predictors_N.tolist() == [2, 3, 4, 5, 6, 7, 8 + 4]
    assert laid.sequence_N.tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_micro_batches_keep_within_their_budget_and_hold_each_sequence_once() -> None:
    batch = sequences()
    for tokens, rows in ((8, None), (16, None), (1000, 3)):
        found = make_micro_batches(
            batch, MicroBatchConfig(micro_batch_tokens=tokens, micro_batch_sequences=rows)
        )
        assert sorted(place for one in found for place in set(one.sequence_N.tolist())) == [0, 1, 2, 3]
        assert all(
            one.input_ids_RT.numel() <= tokens and one.input_ids_RT.shape[0] <= (rows or 4) for one in found
        )
    assert (
        len(make_micro_batches(batch, MicroBatchConfig(micro_batch_tokens=1))) == 4
    )  # longer than the budget: alone


def test_no_logits_are_kept_for_the_backward_pass() -> None:
    model, frozen = student(), teacher()
    (one,) = make_micro_batches(sequences(), MicroBatchConfig())
    forward = StudentForward(model, DivergenceConfig(), SHARED, chunk=4)
    states = frozen.states(one.input_ids_RT, one.predictors_N)
    saved: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tuple(tensor.shape)) or tensor, lambda tensor: tensor
    ):
        forward(one.input_ids_RT, one.predictors_N, states)
    assert saved
    assert not [
        shape for shape in saved if shape[-1:] in ((STUDENT_WIDTH,), (TEACHER_WIDTH,)) and shape[0] in (4, 16)
    ]


def test_statistics_are_not_computed_again_in_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from r1rl.distill import forward as module

    calls: list[None] = []
    original = module.statistics
    monkeypatch.setattr(module, "statistics", lambda pair: calls.append(None) or original(pair))
    our_gradients(DivergenceConfig(), MicroBatchConfig(logit_chunk=4))
    assert len(calls) == 4  # 16 tokens


def test_teacher_has_no_gradient_and_computes_in_its_own_precision_under_autocast() -> None:
    model, frozen = student().float(), Teacher(teacher().model.float())
    (one,) = make_micro_batches(sequences(), MicroBatchConfig())
    expected = frozen.states(one.input_ids_RT, one.predictors_N).logits()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = frozen.states(one.input_ids_RT, one.predictors_N)
        assert torch.equal(states.logits(), expected)
        divergences, _ = StudentForward(model, DivergenceConfig(), SHARED, 5)(
            one.input_ids_RT, one.predictors_N, states
        )
    assert divergences.dtype is torch.float32
    divergences.sum().backward()  # the recomputed chunks must be in bfloat16 too
    assert all(
        parameter.grad is not None and bool(parameter.grad.isfinite().all())
        for parameter in model.parameters()
    )
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in frozen.model.parameters()
    )


@pytest.mark.gpu
def test_on_a_gpu_no_more_than_a_chunk_of_logits_exists() -> None:
    """152k entries, 4096 tokens, chunks of 512: float32 logits of all are 2.5 GB for each model, those of a
    chunk 0.3 GB.
    """
    width, tokens, chunk = 152_064, 4096, 512
    shape = {**SHAPE, "vocab_size": width, "hidden_size": 64}
    model = Qwen3ForCausalLM(Qwen3Config(**shape)).cuda()
    frozen = Teacher(Qwen3ForCausalLM(Qwen3Config(**shape)).cuda().bfloat16())
    ids = torch.randint(3, 1000, (tokens // 64, 64), device="cuda")
    predictors = torch.arange(tokens, device="cuda")
    forward = StudentForward(model, DivergenceConfig(kind="jsd", beta=0.5), 151_936, chunk)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        divergences, _ = forward(ids, predictors, frozen.states(ids, predictors))
    divergences.sum().backward()
    assert bool(divergences.isfinite().all())
    assert torch.cuda.max_memory_allocated() - before < 16 * 4 * chunk * width
