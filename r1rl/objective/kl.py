r"""Estimators of the KL divergence from the policy to the reference, one value per sampled token.

With x drawn from the policy q, the reference p and d = log q(x) - log p(x) (Schulman, "Approximating KL
divergence", 2020):

    k1 = d                    unbiased, high variance, may be negative
    k2 = d^2 / 2              biased, low variance
    k3 = exp(-d) - 1 + d      unbiased, low variance, never negative (DeepSeekMath 2402.03300, equation 4)

A good value is not a good gradient. As a term of a loss, differentiated through log q at tokens drawn from q:

    k1   grad = grad log q              zero in expectation: no regularisation at all, only noise
    k2   grad = d grad log q            that of KL(q || p): right
    k3   grad = (1 - p/q) grad log q    that of KL(p || q), the other direction; equal to first order in d

With `kl_bias_correction` the estimate is multiplied by q / q_old, the ratio to the policy that sampled
(DeepSeek-V3.2 2512.02556, its unbiased KL estimate). Then k1 and k3 have the value and the gradient of KL(q
|| p) for every q, on and off policy; k2 has the gradient of its biased value.

Deviations from the papers: none. Nothing here imports torch at run time, as in `r1rl.objective.surrogates`.
Legend: N completion tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class KLEstimator:
    """An estimator and its properties."""

    function: Callable[[Tensor], Tensor]
    """The estimate at each token, in nats, from d = log q - log p [N]."""
    help: str
    pulls: bool = True
    """Its expected gradient, as a term of the loss, is not zero."""


def k1(difference_N: Tensor) -> Tensor:
    """Return d."""
    return difference_N


def k2(difference_N: Tensor) -> Tensor:
    """Return d^2 / 2."""
    return 0.5 * difference_N.square()


def k3(difference_N: Tensor) -> Tensor:
    """Return exp(-d) - 1 + d (DeepSeekMath 2402.03300, equation 4)."""
    # expm1 keeps the digits that exp(-d) - 1 would lose near d = 0, where the policy spends its time.
    return (-difference_N).expm1() + difference_N


KL_ESTIMATORS = {
    "k1": KLEstimator(function=k1, help="log ratio", pulls=False),
    "k2": KLEstimator(function=k2, help="half its square"),
    "k3": KLEstimator(function=k3, help="unbiased and non-negative (Schulman)"),
}
"""The estimators by the name that a recipe gives them."""


def kl_estimate(logprobs_N: Tensor, reference_logprobs_N: Tensor, estimator: str) -> Tensor:
    """Return the estimate in nats at each token [N]; gradients flow through `logprobs_N` only."""
    return KL_ESTIMATORS[estimator].function(logprobs_N - reference_logprobs_N.detach())
