r"""Aggregation: how the losses l_bt of single tokens add up to the loss of one optimizer step.

    loss = sum_b w_b sum_t l_bt      over the trained tokens of all micro-batches and processes of a minibatch

    aggregation   w_b                               source
    grpo          1 / (B |o_b|)                     DeepSeekMath 2402.03300, equation 3: mean over tokens,
                                                    then over sequences
    dr_grpo       1 / (B max_completion_length)     Dr. GRPO 2503.20783: a constant instead of the length
    dapo          S / (B N_rollout)                 DAPO 2503.14476, equation 8: every token of the rollout
                                                    weighs the same
    bnpo          1 / N                             every token of the minibatch weighs the same

B sequences and N trained tokens in the minibatch; S sequences and N_rollout trained tokens in the whole
rollout. The weights are known before the first forward pass, so the gradients of the micro-batches add up to
the gradient of the minibatch, whatever the micro-batches and the number of processes. Every process counts
its own part (`count_trained`), the counts are summed over the processes, and each process weighs its own
sequences (`loss_weights`). The gradients of the processes must then be *added*: where a wrapper averages them
(DDP does), the loss is multiplied by the number of processes.

Deviations from the papers:
- DAPO's equation divides by the tokens of one group; here, as in its public code, by those of the batch. As
  in TRL, this batch is the rollout, scaled to the share B / S of one minibatch; with one minibatch per pass,
  dapo and bnpo are the same.
- TRL's bnpo divides by the tokens of one micro-batch of one process, which makes the gradient depend on how
  the batch is cut; here it is the minibatch over all processes, which is TRL's with one micro-batch and one
  process.
- Dr. GRPO's equation sums without a constant; its code divides by the length limit, as here.
- `mask_truncated` removes the tokens of a truncated completion from N; in grpo and dr_grpo the sequence still
  counts in B (TRL).

Nothing here imports torch at run time, as in `r1rl.objective.surrogates`.
Legend: B sequences of a minibatch on this process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from r1rl.objective.surrogates import SURROGATES, Surrogate

if TYPE_CHECKING:
    from torch import Tensor

    from r1rl.objective.config import AlgorithmConfig


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts, over all processes, that the weights are made of."""

    sequences: float
    """B, the sequences of the minibatch."""
    tokens: float
    """N, its trained tokens."""
    rollout_sequences: float
    """S, the sequences of the rollout."""
    rollout_tokens: float
    """N_rollout, its trained tokens."""
    max_completion_length: int
    """The length limit, in tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """A way in which tokens add up to the loss."""

    function: Callable[[Tensor, Counts], Tensor]
    """The weights w_b [B] of trained sequences, from their lengths in tokens [B] (float64) and the counts."""
    help: str


def grpo(lengths_B: Tensor, counts: Counts) -> Tensor:
    """Return 1 / (B |o_b|): the mean over a sequence's tokens, then over sequences (DeepSeekMath, equation
    3).
    """
    return 1.0 / (counts.sequences * lengths_B.clamp(min=1.0))


def dr_grpo(lengths_B: Tensor, counts: Counts) -> Tensor:
    """Return 1 / (B max_completion_length) (Dr. GRPO 2503.20783)."""
    return lengths_B.new_full(lengths_B.shape, 1.0 / (counts.sequences * counts.max_completion_length))


def dapo(lengths_B: Tensor, counts: Counts) -> Tensor:
    """Return S / (B N_rollout): the mean over the tokens of the rollout (DAPO 2503.14476, equation 8)."""
    weight = counts.rollout_sequences / (counts.sequences * max(counts.rollout_tokens, 1.0))
    return lengths_B.new_full(lengths_B.shape, weight)


def bnpo(lengths_B: Tensor, counts: Counts) -> Tensor:
    """Return 1 / N: the mean over the tokens of the minibatch (TRL's bnpo, see the module's docstring)."""
    return lengths_B.new_full(lengths_B.shape, 1.0 / max(counts.tokens, 1.0))


AGGREGATIONS = {
    "grpo": Aggregation(function=grpo, help="mean over tokens, then sequences"),
    "dr_grpo": Aggregation(function=dr_grpo, help="sum over a constant"),
    "dapo": Aggregation(function=dapo, help="mean over all tokens of the batch"),
    "bnpo": Aggregation(function=bnpo, help="over those of the minibatch"),
}
"""The aggregations by the name that a recipe gives them."""


def trained_sequences(lengths_B: Tensor, truncated_B: Tensor, config: AlgorithmConfig) -> Tensor:
    """Return bool [B]: the sequences whose completion tokens are in the loss. `lengths_B` counts completion
    tokens, the EOS token included.
    """
    has_tokens_B = lengths_B > 0
    return has_tokens_B & ~truncated_B if config.mask_truncated else has_tokens_B


def sequences_needed(
    advantages_B: Tensor, trained_B: Tensor, config: AlgorithmConfig, surrogate: Surrogate | None = None
) -> Tensor:
    """Return bool [B]: the sequences that can change the gradient; leaving the others out of forward and
    backward changes nothing.

    The surrogate says by the advantages which sequences it has a gradient for; only a KL term or an entropy
    bonus asks for the others. `surrogate`: the recipe's; None: the built-in one that `config` names.
    """
    if config.beta != 0.0 or config.entropy_coefficient != 0.0:
        return trained_B
    return trained_B & (surrogate or SURROGATES[config.surrogate]).has_gradient(advantages_B)


def count_trained(lengths_B: Tensor, trained_B: Tensor) -> Tensor:
    """Return [sequences, trained tokens] as float64 [2] on the CPU: exact, and summable over minibatches and
    processes.
    """
    counts = [lengths_B.numel(), int(lengths_B[trained_B].sum())]
    return lengths_B.new_tensor(counts, device="cpu").double()


def loss_weights(
    lengths_B: Tensor,
    trained_B: Tensor,
    minibatch_counts: Tensor,
    rollout_counts: Tensor,
    config: AlgorithmConfig,
    max_completion_length: int,
) -> Tensor:
    """Return w_b as float64 [B]: the weight of each token of sequence b; 0 where the sequence is not trained.

    Both counts are `count_trained` summed over all processes, of this minibatch and of the whole rollout, the
    sequences that are not forwarded included.
    """
    sequences, tokens = minibatch_counts.tolist()
    rollout_sequences, rollout_tokens = rollout_counts.tolist()
    counts = Counts(sequences, tokens, rollout_sequences, rollout_tokens, max_completion_length)
    weights_B = AGGREGATIONS[config.aggregation].function(lengths_B.double(), counts)
    return weights_B.masked_fill(~trained_B, 0.0)
