"""Divergences between student and teacher: against the float64 oracle, in closed form, in their limits, and
beside TRL's.

Legend: N tokens, V ids.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from r1rl.distill.divergences import (
    STATISTICS,
    Comparison,
    compare,
    divergence,
    generalised_jsd,
    kl,
    sequence_weights,
    statistics,
)
from r1rl.distill.recipe import DivergenceConfig
from tests.reference import distill as oracle

KINDS = [("forward_kl", None), ("reverse_kl", None), ("jsd", 0.1), ("jsd", 0.5), ("jsd", 0.9)]
LENGTHS = [5, 1, 3]


def config(kind: str, beta: float | None = None, **others: object) -> DivergenceConfig:
    return DivergenceConfig(kind=kind, beta=beta, **others)


def logits(width: int, seed: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(sum(LENGTHS), width, generator=generator, dtype=torch.float64)


def our_loss(student: Tensor, teacher: Tensor, settings: DivergenceConfig, shared: int) -> Tensor:
    lengths = torch.tensor(LENGTHS)
    weights = sequence_weights(lengths, sum(LENGTHS), len(LENGTHS), settings)
    return (
        weights.repeat_interleave(lengths)
        * divergence(compare(student, teacher, settings.temperature, shared), settings)
    ).sum()


@pytest.mark.parametrize("aggregation", ["tokens", "sequences"])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_value_and_gradient_equal_the_oracle(
    kind: str, beta: float | None, temperature: float, aggregation: str
) -> None:
    student, teacher = logits(7, 1).requires_grad_(), logits(7, 2)
    found = our_loss(
        student, teacher, config(kind, beta, temperature=temperature, aggregation=aggregation), 7
    )
    (gradient,) = torch.autograd.grad(found, student)
    expected = oracle.loss(
        list(student.split(LENGTHS)),
        list(teacher.split(LENGTHS)),
        kind,
        beta,
        temperature=temperature,
        aggregation=aggregation,
    )
    (expected_gradient,) = torch.autograd.grad(expected, student)
    assert float(expected_gradient.abs().max()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("widths", "shared"), [((7, 9), 7), ((9, 7), 7), ((9, 8), 6)])
@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_other_vocabulary_sizes_are_compared_on_the_shared_ids(
    kind: str, beta: float | None, widths: tuple[int, int], shared: int
) -> None:
    student, teacher = logits(widths[0], 3).requires_grad_(), logits(widths[1], 4)
    found = our_loss(student, teacher, config(kind, beta, temperature=0.8), shared)
    (gradient,) = torch.autograd.grad(found, student)
    expected = oracle.loss(
        list(student.split(LENGTHS)), list(teacher.split(LENGTHS)), kind, beta, temperature=0.8, shared=shared
    )
    (expected_gradient,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-9)
    assert torch.equal(gradient[:, shared:], torch.zeros_like(gradient[:, shared:]))


def of(probabilities: list[float]) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_two_tokens_in_closed_form() -> None:
    """Teacher p = (3/4, 1/4), student q = (1/2, 1/2)."""
    pair = compare(of([0.5, 0.5]), of([0.75, 0.25]), temperature=1.0, shared=2)
    # KL(p || q) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.75 * 0.4054651 - 0.25 * 0.6931472 = 0.1308120
    assert divergence(pair, config("forward_kl")).item() == pytest.approx(
        0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-12
    )
    assert divergence(pair, config("forward_kl")).item() == pytest.approx(0.1308120, abs=1e-7)
    # KL(q || p) = 1/2 ln(2/3) + 1/2 ln 2 = 1/2 ln(4/3) = 0.1438410
    assert divergence(pair, config("reverse_kl")).item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-12)
    # beta = 1/2: m = (5/8, 3/8); KL(p || m) = 3/4 ln(6/5) + 1/4 ln(2/3) = 0.1367412 - 0.1013663 = 0.0353750
    #             KL(q || m) = 1/2 ln(4/5) + 1/2 ln(4/3) = 1/2 ln(16/15) = 0.0322693;  jsd = 0.0338221
    expected = 0.5 * (0.75 * math.log(1.2) + 0.25 * math.log(2 / 3)) + 0.5 * 0.5 * math.log(16 / 15)
    assert divergence(pair, config("jsd", 0.5)).item() == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(0.0338221, abs=1e-7)


def test_gradient_of_two_tokens_in_closed_form() -> None:
    """With q = (s, 1 - s) and s = sigmoid(z), both gradients have a closed form.

    d KL(p || q) / dz = s - p_0,   d KL(q || p) / dz = s (1 - s) (z - logit(p_0))
    """
    for kind, expected in (("forward_kl", 0.5 - 0.75), ("reverse_kl", 0.25 * (0.0 - math.log(3.0)))):
        student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        divergence(compare(student, of([0.75, 0.25]), 1.0, 2), config(kind)).sum().backward()
        # z is the difference of the two logits, so the first logit's gradient is that of z and the second's
        # its opposite
        assert student.grad is not None
        assert student.grad[0].tolist() == pytest.approx([expected, -expected], abs=1e-12)


def test_an_id_that_one_model_lacks_is_left_out_and_the_rest_renormalised() -> None:
    """Student (1/4, 1/4, 1/2) over three ids, teacher (3/4, 1/4) over two: the student's first two become
    (1/2, 1/2).
    """
    pair = compare(of([0.25, 0.25, 0.5]), of([0.75, 0.25]), temperature=1.0, shared=2)
    assert pair.student_NV.exp()[0].tolist() == pytest.approx([0.5, 0.5])
    # as with two tokens above: KL(q || p) = 1/2 ln(4/3)
    assert divergence(pair, config("reverse_kl")).item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-12)
    # The other way round, with the teacher's third id left out: (0.6, 0.2, 0.2) becomes (3/4, 1/4).
    pair = compare(of([0.5, 0.5]), of([0.6, 0.2, 0.2]), temperature=1.0, shared=2)
    assert pair.teacher_NV.exp()[0].tolist() == pytest.approx([0.75, 0.25])


def test_temperature_divides_both_logits() -> None:
    # (4/5, 1/5) at temperature 2: odds 4 become 2, so (2/3, 1/3)
    pair = compare(of([0.8, 0.2]), of([0.5, 0.5]), temperature=2.0, shared=2)
    assert pair.student_NV.exp()[0].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert pair.teacher_NV.exp()[0].tolist() == pytest.approx([0.5, 0.5])


def test_jsd_has_both_kl_divergences_as_limits() -> None:
    pair = compare(logits(5, 5), logits(5, 6), 1.0, 5)
    forward, reverse = kl(pair.teacher_NV, pair.student_NV), kl(pair.student_NV, pair.teacher_NV)
    small = 1e-7
    torch.testing.assert_close(generalised_jsd(pair, small) / small, forward, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(generalised_jsd(pair, 1 - small) / small, reverse, rtol=1e-4, atol=1e-5)


def test_jsd_is_symmetric_at_one_half_and_bounded_by_ln_2() -> None:
    first, second = logits(5, 7, spread=40.0), logits(5, 8, spread=40.0)
    there, back = (
        generalised_jsd(compare(*pair, 1.0, 5), 0.5) for pair in ((first, second), (second, first))
    )
    torch.testing.assert_close(there, back, rtol=0, atol=1e-12)
    assert 0.6 < float(there.max()) <= math.log(2) + 1e-12


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_equal_models_have_no_divergence_and_no_gradient(kind: str, beta: float | None) -> None:
    student = logits(6, 9).requires_grad_()
    value = divergence(compare(student, student.detach().clone(), 1.0, 6), config(kind, beta))
    value.sum().backward()
    assert student.grad is not None
    assert float(value.detach().abs().max()) < 1e-12
    assert float(student.grad.abs().max()) < 1e-12


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_far_apart_distributions_stay_finite_in_float32(kind: str, beta: float | None) -> None:
    student = torch.tensor([[0.0, 200.0, -200.0]], requires_grad=True)
    value = divergence(compare(student, torch.tensor([[200.0, 0.0, -200.0]]), 1.0, 3), config(kind, beta))
    value.sum().backward()
    assert student.grad is not None and bool(student.grad.isfinite().all()) and bool(value.isfinite().all())


def test_half_precision_logits_are_compared_in_float32() -> None:
    pair = compare(logits(5, 1).bfloat16(), logits(5, 2).half(), 1.0, 5)
    assert pair.student_NV.dtype is pair.teacher_NV.dtype is torch.float32


def test_statistics() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2) and then (1/4, 3/4); the first two agree in their likeliest
    token, the last do not.
    """
    pair = Comparison(of([0.75, 0.25]).repeat(2, 1), torch.cat([of([0.55, 0.45]), of([0.25, 0.75])]))
    figures = {
        name: values.tolist() for name, values in zip(STATISTICS, statistics(pair).unbind(-1), strict=True)
    }
    # KL of (3/4, 1/4) from its mirror image, either way: 3/4 ln 3 - 1/4 ln 3 = 1/2 ln 3
    assert figures["forward_kl"][1] == pytest.approx(0.5 * math.log(3))
    assert figures["reverse_kl"][1] == pytest.approx(0.5 * math.log(3))
    # m = (1/2, 1/2): KL(p || m) = 3/4 ln(3/2) + 1/4 ln(1/2), the same for the mirror image
    assert figures["jsd"][1] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    # H(3/4, 1/4) = 3/4 ln(4/3) + 1/4 ln 4
    assert figures["teacher_entropy"] == pytest.approx([0.75 * math.log(4 / 3) + 0.25 * math.log(4)] * 2)
    assert figures["student_entropy"][1] == pytest.approx(figures["teacher_entropy"][1])
    assert figures["agreement"] == [1.0, 0.0]


def test_weights_add_up_to_one_and_tell_long_from_short() -> None:
    lengths = torch.tensor([4, 1])
    # two sequences of 4 and 1 tokens among 10 tokens and 4 sequences of all processes
    assert sequence_weights(lengths, 10, 4, config("forward_kl", aggregation="tokens")).tolist() == [0.1, 0.1]
    assert sequence_weights(lengths, 10, 4, config("forward_kl", aggregation="sequences")).tolist() == [
        1 / 16,
        1 / 4,
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("kind", "beta", "theirs"), [("forward_kl", None, 0.0), ("reverse_kl", None, 1.0), ("jsd", 0.3, 0.3)]
)
def test_trl_gkd_loss(kind: str, beta: float | None, theirs: float, temperature: float) -> None:
    """TRL's `beta` 0 and 1 are the KL divergences themselves, not limits of its jsd."""
    trainer = pytest.importorskip("trl.experimental.gkd.gkd_trainer").GKDTrainer
    student, teacher = logits(7, 10).requires_grad_(), logits(7, 11)
    expected = trainer.generalized_jsd_loss(
        student[None], teacher[None], beta=theirs, temperature=temperature, reduction="sum"
    )
    (expected_gradient,) = torch.autograd.grad(expected / sum(LENGTHS), student)
    found = our_loss(student, teacher, config(kind, beta, temperature=temperature), 7)
    (gradient,) = torch.autograd.grad(found, student)
    torch.testing.assert_close(found, expected / sum(LENGTHS), rtol=0, atol=1e-7)  # TRL keeps beta in float32
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("kind", "beta", "theirs"), [("forward_kl", None, 0.0), ("reverse_kl", None, 1.0), ("jsd", 0.3, 0.3)]
)
def test_trl_chunked_loss(kind: str, beta: float | None, theirs: float, temperature: float) -> None:
    """The loss of TRL's DistillationTrainer, from hidden states and heads of different sizes, with a soft cap
    on the teacher's logits.
    """
    loss = pytest.importorskip("trl.trainer.distillation_trainer")._chunked_divergence_loss
    generator = torch.Generator().manual_seed(12)
    student_states, teacher_states, student_head, teacher_head = (
        torch.randn(*shape, generator=generator) for shape in ((1, 9, 4), (1, 9, 6), (7, 4), (7, 6))
    )
    student_states.requires_grad_()
    mask = torch.ones(1, 9, dtype=torch.int64)
    options = {"temperature": temperature, "teacher_final_logit_softcapping": 3.0}
    expected, entropy, count = loss(
        student_states, teacher_states, student_head, teacher_head, mask, theirs, **options
    )
    (expected_gradient,) = torch.autograd.grad(expected, student_states)
    teacher = torch.tanh(teacher_states[0] @ teacher_head.T / 3.0) * 3.0
    student = student_states[0] @ student_head.T
    found = our_loss(student, teacher, config(kind, beta, temperature=temperature), 7)
    (gradient,) = torch.autograd.grad(found, student_states)
    torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
    measured = statistics(compare(student, teacher, temperature, 7))[:, STATISTICS.index("student_entropy")]
    assert float(entropy.detach() / count) == pytest.approx(float(measured.mean()), abs=1e-5)
