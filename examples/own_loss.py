"""A loss of one's own, named by its path in a recipe:

    algorithm: {surrogate: examples/own_loss.py:asymmetric_clip}

    r1rl grpo recipes/zero_rl/tiny.yaml algorithm.surrogate=examples/own_loss.py:asymmetric_clip

r1rl maximises the surrogate s_t of each completion token; the signs, weights, KL term and entropy bonus
around it are the recipe's. The function is tried on small tensors before a model is loaded, so a mistake
costs seconds.

Legend: N completion tokens of a micro-batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.loss_metrics import LossMetrics
from r1rl.objective.surrogates import Surrogate, nonzero


def clip(
    logprobs_N: Tensor, ratio_N: Tensor, advantages_N: Tensor, config: AlgorithmConfig, metrics: LossMetrics
) -> Tensor:
    """Return min(rho A, clip(rho, 1 - epsilon_low, 1 + epsilon_high) A), which is PPO's (1707.06347, equation
    7).

    A plain function is enough. Nothing is assumed of it: sequences with an advantage of zero are forwarded
    too.
    """
    clipped_N = ratio_N.clamp(1 - config.epsilon_low, 1 + config.epsilon_high)
    return torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)


NEGATIVE_SHARE = 0.5


def _asymmetric(
    logprobs_N: Tensor, ratio_N: Tensor, advantages_N: Tensor, config: AlgorithmConfig, metrics: LossMetrics
) -> Tensor:
    """Return the clipped surrogate with negative advantages at half their size.

    Right answers are then imitated more strongly than wrong ones are avoided. `metrics` takes values per
    token; their mean is reported with the step's metrics.
    """
    metrics.mean("negative_tokens", advantages_N < 0)
    weighed_N = advantages_N.where(advantages_N > 0, NEGATIVE_SHARE * advantages_N)
    return clip(logprobs_N, ratio_N, weighed_N, config, metrics)


asymmetric_clip = Surrogate(function=_asymmetric, has_gradient=nonzero, takes_delta=False)
"""A record says what r1rl can make use of: here that sequences whose advantage is zero need no forward pass.
"""
