r"""The policy loss of one token: surrogate, importance correction, KL term and entropy bonus.

    l_t = - c_t s_t + beta KL_t - entropy_coefficient H_t
    loss = sum_t w_t l_t                                           w_t: r1rl.objective.aggregation
    rho_t = pi(o_t) / pi_old(o_t)

s_t     the surrogate: r1rl.objective.surrogates, from rho, log pi and the advantage of the token's sequence
rho     importance_level token: as above. sequence: exp(1/|o| sum_t log rho_t), the same for all tokens of a
        sequence; its gradient flows through all of them (GSPO 2507.18071, equation 7)
c_t     sg[min(pi_old(o_t) / pi_sampler(o_t), importance_cap)], truncated importance sampling: the sampler
        computes slightly other probabilities than the trainer from the same weights (Yao et al., "Your
        efficient RL framework secretly brings you off-policy RL training", 2025)
KL_t    r1rl.objective.kl
H_t     the entropy of the policy at t

sg is "no gradient". Without old logprobs the policy is the one that sampled: rho = 1, with the gradient of
log pi.

Deviations from the papers:
- KL term and entropy bonus have the weights w_t of the surrogate. GSPO leaves the KL term out; it is per
  token here.
- `kl_bias_correction` uses the ratio of the token, also with ratios of the sequence: only that makes it
  unbiased.

Legend: N completion tokens of a micro-batch without padding, sequence after sequence; R sequences (rows) of
the micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r1rl.monitor import metric_names as names
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.kl import kl_estimate
from r1rl.objective.loss_metrics import LossMetrics
from r1rl.objective.surrogates import SURROGATES, Surrogate


@dataclass(frozen=True, slots=True)
class LossInputs:
    """The completion tokens of a micro-batch as the loss sees them, without the policy's logprobs."""

    sequence_N: Tensor
    """Row 0 .. R-1 of each token; the tokens of a row are adjacent and the rows in order."""
    lengths_R: Tensor
    """Completion tokens per row."""
    advantages_R: Tensor
    weights_R: Tensor
    """`r1rl.objective.aggregation.loss_weights`. Tokens with weight 0 are not trained: they count neither in
    the loss nor in the metrics, and their logprobs below may be NaN.
    """
    old_logprobs_N: Tensor | None = None
    """Trainer's logprobs of the policy that sampled; None: it is the policy itself."""
    sampler_logprobs_N: Tensor | None = None
    """Rollout engine's logprobs, where they differ from the trainer's."""
    reference_logprobs_N: Tensor | None = None
    """Needed when beta is not 0."""


def policy_loss(
    logprobs_N: Tensor,
    entropy_N: Tensor | None,
    inputs: LossInputs,
    config: AlgorithmConfig,
    surrogate: Surrogate | None = None,
) -> tuple[Tensor, LossMetrics]:
    """Return this micro-batch's part of the loss (a scalar with gradient) and its detached metrics; nothing
    waits for the device.

    `entropy_N` is needed when `config.entropy_coefficient` is not 0 and shows in the metrics whenever it is
    given. `surrogate`: the recipe's; None: the built-in one that `config` names.
    """
    surrogate = surrogate or SURROGATES[config.surrogate]
    advantages_N = inputs.advantages_R.to(logprobs_N.dtype)[inputs.sequence_N]
    weights_N = inputs.weights_R.to(logprobs_N.dtype)[inputs.sequence_N]
    own_N, trained_N = logprobs_N.detach(), weights_N > 0
    old_N = (
        own_N if inputs.old_logprobs_N is None else _where_trained(trained_N, inputs.old_logprobs_N, own_N)
    )
    metrics = LossMetrics.start(trained_N)

    log_ratio_N = logprobs_N - old_N
    ratio_N = importance_ratio(log_ratio_N, inputs, config)
    if surrogate.uses_ratio:
        metrics.extremes("ratio", ratio_N)
    loss_N = -surrogate.function(logprobs_N, ratio_N, advantages_N, config, metrics)
    if inputs.sampler_logprobs_N is not None:
        sampler_N = _where_trained(trained_N, inputs.sampler_logprobs_N, own_N)
        correction_N = sampler_correction(old_N, sampler_N, config.importance_cap, metrics)
        loss_N = loss_N if correction_N is None else correction_N * loss_N
    if config.beta != 0.0:
        if inputs.reference_logprobs_N is None:
            raise ValueError("beta is not 0, so the loss needs the reference's logprobs")
        reference_N = _where_trained(trained_N, inputs.reference_logprobs_N, own_N)
        kl_N = kl_estimate(logprobs_N, reference_N, config.kl_estimator)
        metrics.mean(names.KL, kl_N)
        loss_N = loss_N + config.beta * (log_ratio_N.exp() * kl_N if config.kl_bias_correction else kl_N)
    if entropy_N is not None:
        metrics.mean(names.ENTROPY, entropy_N)
    if config.entropy_coefficient != 0.0:
        if entropy_N is None:
            raise ValueError("entropy_coefficient is not 0, so the loss needs the policy's entropy")
        loss_N = loss_N - config.entropy_coefficient * entropy_N
    return (weights_N * loss_N).sum(), metrics


def _where_trained(trained_N: Tensor, values_N: Tensor, own_N: Tensor) -> Tensor:
    """Return the values, replaced by the policy's own where a token is not trained: 0 times NaN would spoil
    the gradient.
    """
    return torch.where(trained_N, values_N.to(own_N.dtype), own_N)


def importance_ratio(log_ratio_N: Tensor, inputs: LossInputs, config: AlgorithmConfig) -> Tensor:
    """Return rho at each token [N]: its own ratio, or the length-normalised ratio of its sequence."""
    if config.importance_level == "token":
        return log_ratio_N.exp()
    # Not index_add: its order of summation on a GPU is not fixed. `unsafe` skips a check of the lengths that
    # waits for the device.
    sum_R = torch.segment_reduce(log_ratio_N, "sum", lengths=inputs.lengths_R, unsafe=True)
    return (sum_R / inputs.lengths_R.clamp(min=1)).exp()[inputs.sequence_N]


def sampler_correction(
    old_logprobs_N: Tensor, sampler_logprobs_N: Tensor, cap: float | None, metrics: LossMetrics
) -> Tensor | None:
    """Return c_t [N] without gradient, or None when `cap` is None; the difference to the sampler is measured
    in either case.
    """
    difference_N = old_logprobs_N.detach() - sampler_logprobs_N
    metrics.mean(names.LOGPROB_DIFF_MEAN, difference_N.abs())
    metrics.maximum(names.LOGPROB_DIFF_MAX, difference_N.abs())
    if cap is None:
        return None
    weight_N = difference_N.exp()
    metrics.mean(names.CAPPED_SHARE, weight_N > cap)
    return weight_N.clamp(max=cap)
