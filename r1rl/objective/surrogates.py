r"""The surrogates: how much a token's log-probability is to be raised or lowered, given its advantage.

    s_t [N], to be maximised, from   log pi(o_t), with gradient
                                     rho_t, the ratio to the old policy, with gradient (r1rl.objective.losses)
                                     A, the advantage of the token's sequence

A surrogate is one entry of `SURROGATES`: a function and the properties that the update asks for. One of the
user's own is the same in a file of the user's, named by its path (`algorithm.surrogate:
my_loss.py:my_surrogate`): a `Surrogate`, or a plain function, of which nothing is assumed. It is tried on
small tensors before a model is loaded (`r1rl.objective.trial`).

    def my_surrogate(logprobs_N, ratio_N, advantages_N, config, metrics):
        return ratio_N * advantages_N

`config` is the recipe's `algorithm` section; `metrics` takes values per token, to be reported
(`r1rl.objective.loss_metrics`). The value at a token may depend on that token's inputs only: then gradients
do not depend on how a batch is cut into micro-batches.

Nothing here imports torch at run time: recipes are checked, and `--help` is printed, without it.
Legend: N completion tokens of a micro-batch; B sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from r1rl.monitor import metric_names as names

if TYPE_CHECKING:
    from torch import Tensor

    from r1rl.objective.config import AlgorithmConfig
    from r1rl.objective.loss_metrics import LossMetrics

SurrogateFunction: TypeAlias = "Callable[[Tensor, Tensor, Tensor, AlgorithmConfig, LossMetrics], Tensor]"
"""A function (logprobs_N, ratio_N, advantages_N, config, metrics) -> s_N."""


def every(advantages_B: Tensor) -> Tensor:
    """Return bool [B]: True for every advantage, also zero."""
    return advantages_B.new_ones(advantages_B.shape).bool()


def nonzero(advantages_B: Tensor) -> Tensor:
    """Return bool [B]: True for advantages other than zero."""
    return advantages_B != 0


def positive(advantages_B: Tensor) -> Tensor:
    """Return bool [B]: True for advantages above zero."""
    return advantages_B > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """A surrogate and its properties. The defaults assume nothing, so they hold for every function."""

    function: SurrogateFunction
    help: str = ""
    has_gradient: Callable[[Tensor], Tensor] = every
    """The sequences that can have a gradient, bool [B], by their advantages [B]: the others are not forwarded
    where neither a KL term nor an entropy bonus needs them.
    """
    uses_ratio: bool = True
    """Its value depends on the ratio. Otherwise the ratio can't correct for the lag of the policy that
    sampled, and `importance_level` has no effect.
    """
    takes_delta: bool = True
    """It reads `algorithm.delta`."""


def clip(
    logprobs_N: Tensor, ratio_N: Tensor, advantages_N: Tensor, config: AlgorithmConfig, metrics: LossMetrics
) -> Tensor:
    """Return min(min(rho, delta) A, clip(rho, 1 - epsilon_low, 1 + epsilon_high) A).

    PPO, 1707.06347, equation 7; GRPO, DeepSeekMath 2402.03300, equation 3; two epsilons: DAPO 2503.14476;
    delta, which bounds the ratio where the advantage is negative: INTELLECT-2 2505.07291. The clip fractions
    count the tokens whose gradient the bound removes.
    """
    lowest, highest = 1.0 - config.epsilon_low, 1.0 + config.epsilon_high
    metrics.mean(names.CLIP_RATIO_LOW, (ratio_N.detach() < lowest) & (advantages_N < 0))
    metrics.mean(names.CLIP_RATIO_HIGH, (ratio_N.detach() > highest) & (advantages_N > 0))
    bounded_N = ratio_N if config.delta is None else ratio_N.clamp(max=config.delta)
    return (bounded_N * advantages_N).minimum(ratio_N.clamp(lowest, highest) * advantages_N)


def cispo(
    logprobs_N: Tensor, ratio_N: Tensor, advantages_N: Tensor, config: AlgorithmConfig, metrics: LossMetrics
) -> Tensor:
    """Return sg[clip(rho, 1 - epsilon_low, 1 + epsilon_high)] A log pi, where sg is "no gradient".

    CISPO, MiniMax-M1 2506.13585, section 3.1, which uses no lower bound in practice: `epsilon_low: 1`. The
    clip fractions count the tokens whose weight the bound limits.
    """
    lowest, highest = 1.0 - config.epsilon_low, 1.0 + config.epsilon_high
    weight_N = ratio_N.detach()
    metrics.mean(names.CLIP_RATIO_LOW, weight_N < lowest)
    metrics.mean(names.CLIP_RATIO_HIGH, weight_N > highest)
    return weight_N.clamp(lowest, highest) * advantages_N * logprobs_N


def online_rft(
    logprobs_N: Tensor, ratio_N: Tensor, advantages_N: Tensor, config: AlgorithmConfig, metrics: LossMetrics
) -> Tensor:
    """Return 1[A > 0] log pi, the likelihood of the completions with a positive advantage.

    Online rejection sampling fine-tuning, DeepSeekMath 2402.03300, appendix A.1. Completions with a positive
    advantage are those above the group's mean; with `baseline: none, scale: none` and a reward of 0 or 1 they
    are the right ones, the paper's indicator.
    """
    return (advantages_N > 0).to(logprobs_N.dtype) * logprobs_N


SURROGATES = {
    "clip": Surrogate(function=clip, help="PPO's clipped ratio", has_gradient=nonzero),
    "cispo": Surrogate(
        function=cispo,
        help="clipped weight on the log-likelihood",
        has_gradient=nonzero,
        takes_delta=False,
    ),
    "online_rft": Surrogate(
        function=online_rft,
        help="likelihood of the completions with positive advantage",
        has_gradient=positive,
        uses_ratio=False,
        takes_delta=False,
    ),
}
"""The built-in surrogates by the name that a recipe gives them."""
