"""Trials of surrogates and advantage estimators of the user's own, on small tensors on the CPU, before a
model is loaded.

Each check has its sentence, which begins with the recipe's key and the file. Global random numbers are left
as they were.

Legend: N = 12 tokens, two for each of six advantages; P groups of G rewards.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from r1rl.errors import RecipeError
from r1rl.objective.advantages import Estimator
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.loss_metrics import LossMetrics
from r1rl.objective.surrogates import Surrogate

ADVANTAGES = (-2.0, -0.5, 0.0, 0.0, 0.7, 1.5)
LOG_RATIOS = (0.0, 0.05, -0.05, 0.4, -0.4, 1.2)
"""The logarithms of ratios within and beyond the usual clip range of 0.2."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The values of a surrogate, and their gradient with respect to the log-probabilities."""

    values_N: Tensor
    gradient_N: Tensor


def try_surrogate(surrogate: Surrogate, config: AlgorithmConfig, place: str) -> None:
    """Raise RecipeError, beginning with `place`, if the surrogate raises, changes its inputs, returns
    anything but finite values [N] that the log-probabilities have a gradient through, mixes tokens, or
    contradicts the properties that it declares.
    """
    advantages_N = torch.tensor(ADVANTAGES).repeat_interleave(2)
    logprobs_N = -torch.linspace(0.1, 3.0, advantages_N.numel())
    off_policy_N = torch.tensor(LOG_RATIOS).repeat(2)
    with torch.random.fork_rng(devices=[]):
        first = _evaluate(surrogate, config, place, logprobs_N, torch.zeros_like(logprobs_N), advantages_N)
        later = _evaluate(surrogate, config, place, logprobs_N, off_policy_N, advantages_N)
        part = _evaluate(surrogate, config, place, logprobs_N[:5], off_policy_N[:5], advantages_N[:5])
    if not bool(first.gradient_N.any()):
        raise RecipeError(
            f"{place} has no gradient with respect to the log-probabilities at any token, so nothing would "
            f"be "
            f"learnt: make its value depend on logprobs_N or ratio_N."
        )
    if not torch.allclose(part.values_N, later.values_N[:5]):
        raise RecipeError(
            f"{place} gives a token another value when other tokens stand beside it, so gradients would "
            f"depend "
            f"on how a batch is cut into micro-batches: compute each token from its own inputs."
        )
    with_N = surrogate.has_gradient(advantages_N)
    if not isinstance(with_N, Tensor) or with_N.shape != advantages_N.shape or with_N.dtype != torch.bool:
        raise RecipeError(f"{place}: has_gradient must return a bool tensor, one value for each advantage.")
    without_N = ~with_N
    if any(bool(outcome.gradient_N[without_N].any()) for outcome in (first, later)):
        raise RecipeError(
            f"{place} has a gradient where its has_gradient says that there is none: such sequences would "
            f"not "
            f"be trained. Leave has_gradient out, or mend it."
        )
    if not surrogate.uses_ratio and not torch.allclose(first.values_N, later.values_N):
        raise RecipeError(f"{place} depends on the ratio, but declares uses_ratio=False: leave that out.")


def _evaluate(
    surrogate: Surrogate,
    config: AlgorithmConfig,
    place: str,
    logprobs_N: Tensor,
    log_ratio_N: Tensor,
    advantages_N: Tensor,
) -> Outcome:
    """Call the surrogate as the loss does. Raises RecipeError for what needs no second call to see."""
    own_N = logprobs_N.clone().requires_grad_()
    ratio_N = (own_N - (logprobs_N - log_ratio_N)).exp()
    metrics = LossMetrics.start(torch.ones_like(advantages_N, dtype=torch.bool))
    inputs = (own_N, ratio_N, advantages_N.clone())
    before, own_config = [value.detach().clone() for value in inputs], copy.deepcopy(config)
    try:
        values_N = surrogate.function(*inputs, own_config, metrics)
    except Exception as error:
        raise RecipeError(
            f"{place} raised on a trial of {len(logprobs_N)} tokens: {type(error).__name__}: {error}"
        ) from error
    changed = [not torch.equal(old, value.detach()) for old, value in zip(before, inputs, strict=True)]
    if any(changed) or own_config != config:
        raise RecipeError(f"{place} changes its inputs: work on copies, without functions such as mul_.")
    _check_tensor(values_N, logprobs_N, place, f"[N], one value for each of the {len(logprobs_N)} tokens")
    if not bool(values_N.isfinite().all()):
        raise RecipeError(f"{place} returned values that are not finite on a trial: {_few(values_N)}.")
    if not values_N.requires_grad:
        raise RecipeError(
            f"{place} returned a tensor without gradient: compute it from logprobs_N or ratio_N, without "
            f"detach() or torch.no_grad() on the way."
        )
    (gradient_N,) = torch.autograd.grad(values_N.sum(), own_N, allow_unused=True)
    gradient_N = torch.zeros_like(own_N) if gradient_N is None else gradient_N
    if not bool(gradient_N.isfinite().all()):
        raise RecipeError(f"{place} has a gradient that is not finite on a trial: {_few(gradient_N)}.")
    return Outcome(values_N.detach(), gradient_N)


def try_estimator(estimator: Estimator, config: AlgorithmConfig, num_generations: int, place: str) -> None:
    """Raise RecipeError, beginning with `place`, if the estimator raises, changes its input, or returns
    anything but finite advantages [P, G] that are 0 where no reward applied.
    """
    mixed_G = torch.arange(num_generations, dtype=torch.float64) % 3 / 2
    first_G = torch.arange(num_generations) == 0
    groups = [
        mixed_G,
        torch.ones_like(mixed_G),
        mixed_G.masked_fill(first_G, math.nan),
        torch.ones_like(mixed_G).masked_fill(~first_G, math.nan),
        torch.full_like(mixed_G, math.nan),
    ]
    whole_PG = torch.stack(groups)
    with torch.random.fork_rng(devices=[]):
        for rewards_PG in (whole_PG, whole_PG[:1], whole_PG[1:2], whole_PG[4:]):
            _try_rewards(estimator, config, rewards_PG, place)


def _try_rewards(estimator: Estimator, config: AlgorithmConfig, rewards_PG: Tensor, place: str) -> None:
    given_PG, own_config = rewards_PG.clone(), copy.deepcopy(config)
    shown = f"for the rewards {rewards_PG.tolist()}"
    try:
        advantages_PG = estimator(given_PG, own_config)
    except Exception as error:
        raise RecipeError(f"{place} raised {shown}: {type(error).__name__}: {error}") from error
    if not torch.equal(given_PG.nan_to_num(-1.0), rewards_PG.nan_to_num(-1.0)) or own_config != config:
        raise RecipeError(f"{place} changes its inputs: work on copies, without functions such as sub_.")
    _check_tensor(advantages_PG, rewards_PG, place, f"[P, G], here {list(rewards_PG.shape)}")
    known_PG = ~rewards_PG.isnan()
    if not bool(advantages_PG[known_PG].isfinite().all()):
        raise RecipeError(
            f"{place} returned {advantages_PG.tolist()} {shown}: advantages must be finite numbers, also for "
            f"groups whose rewards are all equal and where rewards are unknown (nan)."
        )
    if bool((advantages_PG[~known_PG] != 0).any()):
        raise RecipeError(
            f"{place} returned {advantages_PG.tolist()} {shown}: where no reward applied (nan), the "
            f"advantage "
            f"must be 0."
        )


def _check_tensor(value: object, like: Tensor, place: str, wanted: str) -> None:
    """Raise RecipeError if a value is not a tensor of floating-point numbers of the shape of `like`."""
    if not isinstance(value, Tensor):
        raise RecipeError(f"{place} must return a tensor {wanted}, not a {type(value).__name__}.")
    if value.shape != like.shape or not value.is_floating_point():
        raise RecipeError(
            f"{place} must return a tensor {wanted}, of floating-point numbers; it returned shape "
            f"{list(value.shape)} of {str(value.dtype).removeprefix('torch.')}."
        )


def _few(values: Tensor) -> str:
    return ", ".join(f"{value:g}" for value in values.detach().flatten()[:6].tolist())
