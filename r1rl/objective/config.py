"""The `algorithm` section of a recipe. The names that its keys may have are those of the objective's tables.

Nothing here imports torch at run time: `r1rl --help` and the check of a recipe read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from r1rl.config.fields import choice, option
from r1rl.config.intervals import COUNT, NOT_NEGATIVE, POSITIVE
from r1rl.objective.advantages import BASELINES, SCALES
from r1rl.objective.aggregation import AGGREGATIONS
from r1rl.objective.kl import KL_ESTIMATORS
from r1rl.objective.surrogates import SURROGATES


@dataclass(kw_only=True, slots=True)
class AlgorithmConfig:
    """The objective. docs/algorithms.md gives the equation and the paper of each choice."""

    surrogate: str = choice("clip", SURROGATES, own="my_loss.py:my_surrogate")
    aggregation: str = choice("dapo", AGGREGATIONS)
    importance_level: Literal["token", "sequence"] = option(
        "token", "sequence: one length-normalised ratio per completion (GSPO)"
    )
    baseline: str = choice("group", BASELINES, "what is subtracted from the reward")
    scale: str = choice("group", SCALES, "what the advantage is divided by")
    advantage: str | None = option(
        None,
        "an estimator of your own in the place of baseline and scale, such as my_advantage.py:estimator; "
        "null: "
        "baseline and scale",
        path="code",
    )
    std_correction: Literal["population", "sample"] = option(
        "sample", "divide by G (DeepSeekMath) or by G - 1 (TRL)"
    )
    advantage_epsilon: float = option(1e-4, "added to the standard deviation", within=NOT_NEGATIVE)
    epsilon_low: float = option(0.2, "the ratio is clipped below 1 - epsilon_low", within=POSITIVE)
    epsilon_high: float = option(
        0.2, "the ratio is clipped above 1 + epsilon_high; DAPO uses 0.28", within=POSITIVE
    )
    delta: float | None = option(
        None,
        "upper bound on the ratio when the advantage is negative (two-sided clip); above 1 + epsilon_high",
        within=POSITIVE,
    )
    beta: float = option(
        0.0, "weight of the KL divergence to the frozen reference; 0 loads no reference", within=NOT_NEGATIVE
    )
    kl_estimator: str = choice("k3", KL_ESTIMATORS)
    kl_bias_correction: bool = option(
        False,
        "multiply the KL estimate by the ratio to the sampling policy (DeepSeek-V3.2): k1 and k3 then have "
        "the gradient of the KL divergence",
    )
    entropy_coefficient: float = option(0.0, "weight of the entropy bonus")
    num_iterations: int = option(1, "mu: passes over each rollout", within=COUNT)
    num_minibatches: int = option(1, "optimizer steps per pass", within=COUNT)
    importance_cap: float | None = option(
        2.0,
        "truncated importance sampling: cap on trainer/sampler probability; null turns the correction off. "
        "Used only where the sampler's logprobs differ from the trainer's",
        within=POSITIVE,
    )
    mask_truncated: bool = option(False, "leave completions that hit the length limit out of the loss")
    dynamic_sampling: bool = option(False, "replace groups whose outcome has no variance by fresh prompts")
    max_refills: int = option(4, "dynamic sampling: at most so many extra rollouts per step", within=COUNT)
    variance_tolerance: float = option(
        1e-6,
        "a group whose rewards (advantages) or outcomes (dynamic sampling) spread by no more than this "
        "counts as having no variance",
        within=NOT_NEGATIVE,
    )
