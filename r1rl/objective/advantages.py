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

An estimator of the user's own takes the place of baseline and scale (`algorithm.advantage:
my_advantage.py:estimator`); it is tried on small rewards before a model is loaded (`r1rl.objective.trial`):

    def estimator(rewards_PG, config):      # float64, NaN where no reward applied
        return ...                          # finite advantages [P, G], 0 where no reward applied

Nothing here imports torch at run time, as in `r1rl.objective.surrogates`.
Legend: P prompts of all processes, G completions per prompt; K known rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from r1rl.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from r1rl.objective.config import AlgorithmConfig

Estimator: TypeAlias = "Callable[[Tensor, AlgorithmConfig], Tensor]"
"""A function (rewards_PG in float64, NaN where none applied; config) -> finite advantages_PG, 0 there."""


@dataclass(frozen=True, slots=True)
class Rewards:
    """The rewards of a batch and what baselines and scales need of them."""

    values_PG: Tensor
    """Float64; 0 where unknown."""
    known_PG: Tensor
    """Bool."""
    count_P1: Tensor
    """The known rewards of each group."""
    mean_P1: Tensor
    """Their mean; 0 for a group without any."""
    equal_P1: Tensor
    """Bool: groups without variance (`zero_variance_groups`)."""

    @classmethod
    def of(cls, rewards_PG: Tensor, tolerance: float) -> Rewards:
        """Return the statistics of rewards [P, G] of which NaN are unknown."""
        known_PG = ~rewards_PG.isnan()
        values_PG = rewards_PG.double().masked_fill(~known_PG, 0.0)
        count_P1 = known_PG.sum(dim=1, keepdim=True)
        mean_P1 = values_PG.sum(dim=1, keepdim=True) / count_P1.clamp(min=1)
        equal_P1 = zero_variance_groups(rewards_PG, tolerance)[:, None]
        return cls(values_PG, known_PG, count_P1, mean_P1, equal_P1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A baseline and its properties."""

    function: Callable[[Rewards], Tensor]
    """The function rewards -> r - b [P, G]."""
    help: str
    needs_group: bool = True
    """It compares the completions of a group, so a group must have two at least."""
    whitens: bool = False
    """It is followed by a division by the deviation of r - b, not of r, over the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A scale and its properties."""

    function: Callable[[Tensor, Tensor, Rewards, AlgorithmConfig], Tensor]
    """The function (r - b, what a batch's deviation is taken of, rewards, config) -> (r - b) / s [P, G]."""
    help: str
    needs_group: bool = False
    """It compares the completions of a group, so a group must have two at least."""
    of_batch: bool = False
    """It needs the rewards of the whole batch."""


def no_baseline(rewards: Rewards) -> Tensor:
    """Return r (REINFORCE)."""
    return rewards.values_PG


def group_baseline(rewards: Rewards) -> Tensor:
    """Return r minus the mean of the group (GRPO, DeepSeekMath 2402.03300, section 4.1.2)."""
    unscored_PG = ~rewards.known_PG | rewards.equal_P1
    return (rewards.values_PG - rewards.mean_P1).masked_fill(unscored_PG, 0.0)


def leave_one_out(rewards: Rewards) -> Tensor:
    """Return r minus the mean of the group's other rewards (RLOO, 2402.14740)."""
    # r_i - sum of the others / (n - 1) = n / (n - 1) (r_i - mean)
    return group_baseline(rewards) * rewards.count_P1 / (rewards.count_P1 - 1).clamp(min=1)


BASELINES = {
    "group": Baseline(function=group_baseline, help="the group's mean"),
    "leave_one_out": Baseline(function=leave_one_out, help="the mean of the others (RLOO)"),
    "reinforce_plus_plus": Baseline(
        function=group_baseline,
        help="the group's mean, followed by whitening over the batch (REINFORCE++ with baseline)",
        whitens=True,
    ),
    "none": Baseline(function=no_baseline, help="nothing", needs_group=False),
}
"""The baselines by the name that a recipe gives them."""


def no_scale(advantages_PG: Tensor, scaled_PG: Tensor, rewards: Rewards, config: AlgorithmConfig) -> Tensor:
    """Return the advantages as they are (Dr. GRPO, 2503.20783)."""
    return advantages_PG


def group_scale(
    advantages_PG: Tensor, scaled_PG: Tensor, rewards: Rewards, config: AlgorithmConfig
) -> Tensor:
    """Return the advantages over the standard deviation of their group's rewards (GRPO)."""
    deviations_PG = (rewards.values_PG - rewards.mean_P1).masked_fill(~rewards.known_PG, 0.0)
    squares_P1 = deviations_PG.square().sum(dim=1, keepdim=True)
    std_P1 = (squares_P1 / (rewards.count_P1 - _correction(config)).clamp(min=1)).sqrt()
    return (advantages_PG / (std_P1 + config.advantage_epsilon)).masked_fill(rewards.equal_P1, 0.0)


def batch_scale(
    advantages_PG: Tensor, scaled_PG: Tensor, rewards: Rewards, config: AlgorithmConfig
) -> Tensor:
    """Return the advantages over the standard deviation of the batch's K known values of `scaled_PG`; zeros
    where these do not differ (Lite PPO, 2508.08221).
    """
    values_K = scaled_PG[rewards.known_PG]
    if values_K.numel() < 2 or not bool(values_K.max() - values_K.min() > config.variance_tolerance):
        return advantages_PG.new_zeros(advantages_PG.shape)
    return advantages_PG / (values_K.std(correction=_correction(config)) + config.advantage_epsilon)


SCALES = {
    "group": Scale(function=group_scale, help="the group's standard deviation", needs_group=True),
    "batch": Scale(function=batch_scale, help="the batch's", of_batch=True),
    "none": Scale(function=no_scale, help="nothing"),
}
"""The scales by the name that a recipe gives them."""


def zero_variance_groups(outcomes_PG: Tensor, tolerance: float) -> Tensor:
    """Return bool [P]: the groups whose largest and smallest known value differ by at most `tolerance`.

    NaN is an unknown value. A group with fewer than two known values has no variance.
    """
    unknown_PG = outcomes_PG.isnan()
    highest_P = outcomes_PG.masked_fill(unknown_PG, -math.inf).amax(dim=1)
    lowest_P = outcomes_PG.masked_fill(unknown_PG, math.inf).amin(dim=1)
    return ~(highest_P - lowest_P > tolerance)


def group_advantages(
    rewards_PG: Tensor, config: AlgorithmConfig, estimator: Estimator | None = None
) -> Tensor:
    """Return advantages [P, G] in the dtype of the rewards; computed in float64, the input is not changed.

    The rewards must be those of all processes: a scale, or an estimator of the user's own, may compare all
    groups. NaN means that no reward applied. `estimator`: the user's own; None: baseline and scale. Raises
    `RecipeError` for REINFORCE++ with a scale other than `batch`, which would contradict its whitening, and
    for an estimator that does not return finite advantages [P, G].
    """
    rewards_PG = rewards_PG.detach()
    if estimator is not None:
        return _own_advantages(rewards_PG, config, estimator)
    baseline, scale = BASELINES[config.baseline], SCALES[config.scale]
    if baseline.whitens and not scale.of_batch:
        raise RecipeError(
            f"algorithm.baseline is {config.baseline}, which divides by the batch's standard deviation, "
            f"but algorithm.scale is {config.scale}: write algorithm.scale: batch"
        )
    rewards = Rewards.of(rewards_PG, config.variance_tolerance)
    advantages_PG = baseline.function(rewards)
    scaled_PG = advantages_PG if baseline.whitens else rewards.values_PG
    advantages_PG = scale.function(advantages_PG, scaled_PG, rewards, config)
    return advantages_PG.masked_fill(~rewards.known_PG, 0.0).to(rewards_PG.dtype)


def _own_advantages(rewards_PG: Tensor, config: AlgorithmConfig, estimator: Estimator) -> Tensor:
    """Return the advantages of an estimator of the user's own. It worked on small rewards, but these may be
    others: one advantage that is not finite would spoil the whole step.
    """
    advantages_PG = estimator(rewards_PG.double().clone(), config).detach()
    if advantages_PG.shape != rewards_PG.shape or not bool(advantages_PG.isfinite().all()):
        raise RecipeError(
            f"algorithm.advantage: {config.advantage} returned values that are not finite, or of shape "
            f"{list(advantages_PG.shape)} for rewards of shape {list(rewards_PG.shape)}."
        )
    return advantages_PG.masked_fill(rewards_PG.isnan(), 0.0).to(rewards_PG.dtype)


def _correction(config: AlgorithmConfig) -> int:
    return 1 if config.std_correction == "sample" else 0
