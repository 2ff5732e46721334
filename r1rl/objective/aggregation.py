r"""Aggregation: how the losses l_bt of single tokens add up to the loss of one optimizer step.

    loss = sum_b w_b sum_t l_bt        over the trained tokens of the minibatch, in all micro-batches and processes

    aggregation   w_b                          source
    grpo          1 / (B |o_b|)                DeepSeekMath 2402.03300, equation 3: mean over tokens, then over sequences
    dr_grpo       1 / (B max_completion_length)   Dr. GRPO 2503.20783: a constant instead of the length
    dapo          S / (B N_rollout)            DAPO 2503.14476, equation 8: every token of the rollout weighs the same
    bnpo          1 / N                        every token of the minibatch weighs the same

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

Legend: B sequences of a minibatch on this process.
"""

from __future__ import annotations

import torch
from torch import Tensor

from r1rl.config.schema import AlgorithmConfig


def trained_sequences(lengths_B: Tensor, truncated_B: Tensor, config: AlgorithmConfig) -> Tensor:
    """Bool [B]: sequences whose completion tokens are in the loss. `lengths_B` counts completion tokens, the
    EOS token included.
    """
    has_tokens_B = lengths_B > 0
    return has_tokens_B & ~truncated_B if config.mask_truncated else has_tokens_B


def sequences_needed(advantages_B: Tensor, trained_B: Tensor, config: AlgorithmConfig) -> Tensor:
    """Bool [B]: sequences that can change the gradient; leaving the others out of forward and backward
    changes nothing.

    The surrogates are multiples of the advantage (online_rft: of whether it is positive). Only a KL term or
    an entropy bonus asks for the sequences whose advantage is zero.
    """
    if config.beta != 0.0 or config.entropy_coefficient != 0.0:
        return trained_B
    matters_B = advantages_B > 0 if config.surrogate == "online_rft" else advantages_B != 0
    return trained_B & matters_B


def count_trained(lengths_B: Tensor, trained_B: Tensor) -> Tensor:
    """[sequences, trained tokens] as float64 [2] on the CPU: exact, and summable over minibatches and
    processes.
    """
    return torch.tensor([lengths_B.numel(), int(lengths_B[trained_B].sum())], dtype=torch.float64)


def loss_weights(
    lengths_B: Tensor,
    trained_B: Tensor,
    minibatch_counts: Tensor,
    rollout_counts: Tensor,
    config: AlgorithmConfig,
    max_completion_length: int,
) -> Tensor:
    """w_b as float64 [B]: the weight of each token of sequence b; 0 where the sequence is not trained.

    Both counts are `count_trained` summed over all processes, of this minibatch and of the whole rollout, the
    sequences that are not forwarded included.
    """
    sequences, tokens = minibatch_counts.tolist()
    rollout_sequences, rollout_tokens = rollout_counts.tolist()
    lengths_B = lengths_B.double()
    if config.aggregation == "grpo":
        weights_B = 1.0 / (sequences * lengths_B.clamp(min=1.0))
    elif config.aggregation == "dr_grpo":
        weights_B = torch.full_like(lengths_B, 1.0 / (sequences * max_completion_length))
    elif config.aggregation == "dapo":
        weights_B = torch.full_like(lengths_B, rollout_sequences / (sequences * max(rollout_tokens, 1.0)))
    else:
        weights_B = torch.full_like(lengths_B, 1.0 / max(tokens, 1.0))
    return weights_B.masked_fill(~trained_B, 0.0)
