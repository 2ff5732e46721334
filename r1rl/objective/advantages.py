r"""Advantages: how much better a completion was than what could be expected of its prompt.

    A_pg = (r_pg - b_pg) / (s_pg + advantage_epsilon)

baseline b                                                      source
    group                mean of the group's rewards            GRPO, DeepSeekMath 2402.03300, section 4.1.2
    leave_one_out        mean of the group's *other* rewards    RLOO, 2402.14740
    reinforce_plus_plus  mean of the group's rewards, and s is  REINFORCE++ with baseline, 2501.03262
                         the batch's deviation of r - b
    none                 0                                      REINFORCE
scale s
    group                deviation of the group's rewards       GRPO
    batch                deviation of all rewards of the batch  Lite PPO, 2508.08221
    none                 no division                            Dr. GRPO, 2503.20783

Deviations from the papers:
- `std_correction` says whether a deviation divides by n or by n - 1; DeepSeekMath does not say, TRL divides
  by n - 1.
- The epsilon is added to every deviation; the papers leave it out.
- A completion without a reward (NaN: no reward applied to it) is left out of every mean and deviation and
  gets 0.
- A group whose rewards spread by no more than `variance_tolerance` gets exactly 0 where a group's mean or
  deviation is used: without this, the rounding error of a mean, divided by a tiny deviation, would be trained
  on.
- REINFORCE++ whitens over tokens (long completions count more); here each completion counts once. Whitening
  also subtracts the batch's mean of r - b, which is zero by construction.

Legend: P prompts of all processes, G completions per prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor

from r1rl.config.schema import AlgorithmConfig
from r1rl.errors import RecipeError


def zero_variance_groups(outcomes_PG: Tensor, tolerance: float) -> Tensor:
    """Bool [P]: groups whose largest and smallest known value differ by at most `tolerance`.

    NaN is an unknown value. A group with fewer than two known values has no variance.
    """
    unknown_PG = outcomes_PG.isnan()
    highest_P = outcomes_PG.masked_fill(unknown_PG, -torch.inf).amax(dim=1)
    lowest_P = outcomes_PG.masked_fill(unknown_PG, torch.inf).amin(dim=1)
    return ~(highest_P - lowest_P > tolerance)


def group_advantages(rewards_PG: Tensor, config: AlgorithmConfig) -> Tensor:
    """Advantages [P, G] in the dtype of the rewards; computed in float64, the input is not changed.

    The rewards must be those of all processes where `config.scale` is `batch`. NaN means that no reward
    applied. Raises `RecipeError` for REINFORCE++ with a scale other than `batch`, which would contradict its
    whitening.
    """
    if config.baseline == "reinforce_plus_plus" and config.scale != "batch":
        raise RecipeError(
            f"algorithm.baseline is reinforce_plus_plus, which divides by the batch's standard deviation, "
            f"but algorithm.scale is "
            f"{config.scale}: write algorithm.scale: batch"
        )
    rewards_PG = rewards_PG.detach()
    known_PG = ~rewards_PG.isnan()
    values_PG = rewards_PG.double().masked_fill(~known_PG, 0.0)
    count_P1 = known_PG.sum(dim=1, keepdim=True)
    mean_P1 = values_PG.sum(dim=1, keepdim=True) / count_P1.clamp(min=1)
    equal_P1 = zero_variance_groups(rewards_PG, config.variance_tolerance)[:, None]

    if config.baseline == "none":
        advantages_PG = values_PG
    else:
        advantages_PG = (values_PG - mean_P1).masked_fill(~known_PG | equal_P1, 0.0)
        if config.baseline == "leave_one_out":
            # r_i - sum of the others / (n - 1) = n / (n - 1) (r_i - mean)
            advantages_PG = advantages_PG * count_P1 / (count_P1 - 1).clamp(min=1)

    correction = 1 if config.std_correction == "sample" else 0
    if config.scale == "group":
        squares_P1 = (values_PG - mean_P1).masked_fill(~known_PG, 0.0).square().sum(dim=1, keepdim=True)
        std_P1 = (squares_P1 / (count_P1 - correction).clamp(min=1)).sqrt()
        advantages_PG = (advantages_PG / (std_P1 + config.advantage_epsilon)).masked_fill(equal_P1, 0.0)
    elif config.scale == "batch":
        scaled_PG = advantages_PG if config.baseline == "reinforce_plus_plus" else values_PG
        advantages_PG = _divide_by_batch_std(advantages_PG, scaled_PG[known_PG], correction, config)
    return advantages_PG.masked_fill(~known_PG, 0.0).to(rewards_PG.dtype)


def _divide_by_batch_std(
    advantages_PG: Tensor, values_K: Tensor, correction: int, config: AlgorithmConfig
) -> Tensor:
    """Advantages over the deviation of the batch's K known values; zeros where these do not differ."""
    if values_K.numel() < 2 or not bool(values_K.max() - values_K.min() > config.variance_tolerance):
        return torch.zeros_like(advantages_PG)
    return advantages_PG / (values_K.std(correction=correction) + config.advantage_epsilon)
