r"""Estimators of the KL divergence from the policy to the reference, one value per sampled token.

With x drawn from the policy q, the reference p and d = log q(x) - log p(x) (Schulman, "Approximating KL
divergence", 2020):

    k1 = d                    unbiased, high variance, may be negative
    k2 = d^2 / 2              biased, low variance
    k3 = exp(-d) - 1 + d      unbiased, low variance, never negative (DeepSeekMath 2402.03300, equation 4)

A good value is not a good gradient. As a term of a loss, differentiated through log q at tokens drawn from q:

    k1   grad = grad log q              zero in expectation: no regularisation at all, only noise
    k2   grad = d grad log q            the gradient of KL(q || p): right
    k3   grad = (1 - p/q) grad log q    the gradient of KL(p || q), the other direction; the same to first order in d

With `kl_bias_correction` the estimate is multiplied by q / q_old, the ratio to the policy that sampled
(DeepSeek-V3.2 2512.02556, its unbiased KL estimate). Then k1 and k3 have the value and the gradient of KL(q
|| p) for every q, on and off policy; k2 has the gradient of its biased value.

Deviations from the papers: none. Legend: N completion tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def kl_estimate(
    logprobs_N: Tensor, reference_logprobs_N: Tensor, estimator: Literal["k1", "k2", "k3"]
) -> Tensor:
    """The estimate in nats at each token [N]; gradients flow through `logprobs_N` only."""
    difference_N = logprobs_N - reference_logprobs_N.detach()
    if estimator == "k1":
        return difference_N
    if estimator == "k2":
        return 0.5 * difference_N.square()
    # expm1 keeps the digits that exp(-d) - 1 would lose near d = 0, where the policy spends its time.
    return torch.expm1(-difference_N) + difference_N
