"""KL estimators: closed forms of their mean and deviation, and which of them has the right gradient."""

from __future__ import annotations

import math

import pytest
import torch

from r1rl.objective.kl import kl_estimate


def quadrature(shift: float, estimator: str) -> tuple[float, float]:
    """Return mean and deviation of an estimator for q = N(0, 1), p = N(shift, 1).

    They come from the trapezoid rule on [-14, 14], exact to 1e-12.
    """
    x = torch.linspace(-14, 14, 200_001, dtype=torch.float64)
    log_q, log_p = -x.square() / 2, -(x - shift).square() / 2  # the same constant is left out of both
    mass = log_q.exp() / math.sqrt(2 * math.pi)
    values = kl_estimate(log_q, log_p, estimator)
    mean = torch.trapezoid(mass * values, x)
    return float(mean), float((torch.trapezoid(mass * values.square(), x) - mean.square()).sqrt())


@pytest.mark.parametrize(
    ("shift", "true_kl", "k2_bias", "deviations"),
    [
        # KL(q || p) = s^2 / 2. d = s^2 / 2 - s x is N(s^2 / 2, s^2), so k1 deviates by s, E[k2] = (s^4 / 4 +
        # s^2) / 2 =
        # (1 + s^2 / 4) KL, Var[k2] = s^4 / 2 + s^6 / 4, and Var[k3] = exp(s^2) - 1 - s^2.
        (0.1, 0.005, 0.0025, (0.1, 0.0071, 0.0071)),
        (0.5, 0.125, 0.0625, (0.5, 0.1875, 0.1845)),
        (1.0, 0.5, 0.25, (1.0, 0.866, 0.848)),
    ],
)
def test_closed_form(shift, true_kl, k2_bias, deviations):
    assert shift**2 / 2 == pytest.approx(true_kl)
    (k1, s1), (k2, s2), (k3, s3) = (quadrature(shift, name) for name in ("k1", "k2", "k3"))
    assert k1 == pytest.approx(true_kl, rel=1e-9)
    assert k3 == pytest.approx(true_kl, rel=1e-9)
    assert k2 / true_kl - 1 == pytest.approx(k2_bias, rel=1e-8)
    assert (s1, s2, s3) == pytest.approx(deviations, abs=5e-4)
    assert s1 == pytest.approx(shift, rel=1e-9)
    assert s2 == pytest.approx(math.sqrt(shift**4 / 2 + shift**6 / 4), rel=1e-8)
    assert s3 == pytest.approx(math.sqrt(math.exp(shift**2) - 1 - shift**2), rel=1e-8)


def test_samples_agree_with_the_closed_form():
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_q, log_p = -x.square() / 2, -(x - 0.5).square() / 2
    for name, mean, deviation in (("k1", 0.125, 0.5), ("k2", 0.1328125, 0.1875), ("k3", 0.125, 0.1845)):
        values = kl_estimate(log_q, log_p, name)
        assert float(values.mean()) == pytest.approx(mean, abs=4 * deviation / math.sqrt(len(x)))
        assert float(values.std()) == pytest.approx(deviation, rel=0.02)


def test_golden_values():
    # d = log 2: k1 = 0.693147, k2 = 0.240227, k3 = 1/2 - 1 + 0.693147 = 0.193147
    logprobs, reference = (
        torch.tensor([math.log(0.5)], dtype=torch.float64),
        torch.tensor([math.log(0.25)], dtype=torch.float64),
    )
    assert kl_estimate(logprobs, reference, "k1").item() == pytest.approx(math.log(2))
    assert kl_estimate(logprobs, reference, "k2").item() == pytest.approx(math.log(2) ** 2 / 2)
    assert kl_estimate(logprobs, reference, "k3").item() == pytest.approx(math.log(2) - 0.5)


def test_k3_keeps_its_digits_near_zero():
    # d = 1e-4 in float32: d^2 / 2 - d^3 / 6 = 4.99983e-9, which exp(-d) - 1 + d would round to a multiple of
    # 6e-8
    value = kl_estimate(torch.tensor([1e-4]), torch.tensor([0.0]), "k3").item()
    assert value == pytest.approx(5e-9, rel=0.05)


def expected_gradient(
    estimator: str, corrected: bool, sampler: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """Return the exact expectation of the estimator's gradient over 5 tokens.

    The gradients of both directions of the divergence are returned too.
    """
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.randn(5, generator=generator, dtype=torch.float64), -1)
    log_q = torch.log_softmax(logits, -1)
    drawn_from = log_q.detach() if sampler is None else torch.log_softmax(sampler, -1)
    values = kl_estimate(log_q, reference, estimator)
    if corrected:
        values = (log_q - drawn_from).exp() * values
    reverse, forward = (
        (log_q.exp() * (log_q - reference)).sum(),
        (reference.exp() * (reference - log_q)).sum(),
    )
    scalars = ((drawn_from.exp() * values).sum(), reverse, forward)
    return tuple(torch.autograd.grad(scalar, logits, retain_graph=True)[0] for scalar in scalars)


def test_gradients_of_the_plain_estimators():
    gradient, reverse, forward = expected_gradient("k1", corrected=False)
    torch.testing.assert_close(gradient, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    gradient, reverse, forward = expected_gradient("k2", corrected=False)
    torch.testing.assert_close(gradient, reverse)
    gradient, reverse, forward = expected_gradient("k3", corrected=False)
    torch.testing.assert_close(gradient, forward)
    assert (gradient - reverse).abs().max() > 0.01


@pytest.mark.parametrize("sampler", [None, torch.tensor([0.3, -1.0, 0.5, 2.0, 0.0], dtype=torch.float64)])
def test_the_bias_correction_makes_k1_and_k3_right_on_and_off_policy(sampler):
    for estimator in ("k1", "k3"):
        gradient, reverse, _ = expected_gradient(estimator, corrected=True, sampler=sampler)
        torch.testing.assert_close(gradient, reverse)
    gradient, reverse, _ = expected_gradient("k2", corrected=True, sampler=sampler)
    assert (gradient - reverse).abs().max() > 0.01


def test_the_reference_gets_no_gradient():
    logprobs, reference = torch.tensor([-1.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)
    for estimator in ("k1", "k2", "k3"):
        kl_estimate(logprobs, reference, estimator).sum().backward()
    assert reference.grad is None
    assert logprobs.grad is not None
