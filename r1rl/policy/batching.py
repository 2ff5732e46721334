"""From completions to what a forward pass and the loss see of them.

    batch = build_train_batch(prompts, completions, advantages)           the sequences of this process, on the CPU
    micro_batches = make_micro_batches(batch, rows, layout, config)       r1rl.policy.packing: sequences that share a forward pass
    inputs = loss_inputs(batch, micro_batch, weights)                     what the loss must know about its tokens

Only completion tokens are trained, the EOS token included; the prompt is context. The forward pass and the
loss meet a micro-batch as flat completion tokens (`predictors_N`, `targets_N`), whatever lies around them.

Legend: B sequences of the batch, K completion tokens of the batch, R rows and T positions of a micro-batch, N
its completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from r1rl.attention.rectangles import RowsPlan
from r1rl.attention.varlen import VarlenPlan
from r1rl.objective.losses import LossInputs
from r1rl.types import Completion

Record = TypeVar("Record", "MicroBatch", LossInputs)


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """The sequences that one process trains after a rollout. Values per completion token are flat, sequence
    after sequence.
    """

    prompt_ids: tuple[tuple[int, ...], ...]
    completion_ids_K: Tensor
    lengths_B: Tensor
    """Completion tokens per sequence."""
    starts_B: Tensor
    """Where each sequence begins in the flat values."""
    truncated_B: Tensor
    advantages_B: Tensor
    sampler_logprobs_K: Tensor | None = None
    old_logprobs_K: Tensor | None = None
    reference_logprobs_K: Tensor | None = None
    lagged: bool = False
    """The completions are of the policy before the last update (`rollout.one_step_off`)."""

    @property
    def num_sequences(self) -> int:
        """B."""
        return len(self.prompt_ids)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some sequences of a `TrainBatch`, laid out for one forward pass."""

    sequences: tuple[int, ...]
    """Sequences of the batch, in the order of their completion tokens here; "row" r of the loss is
    `sequences[r]`.
    """
    input_ids_RT: Tensor
    """Padded: a row per sequence, padded on the right with anything. Packed: one row, [1, T], without
    padding.
    """
    predictors_N: Tensor
    """The place in the R * T positions whose hidden state predicts each completion token."""
    targets_N: Tensor
    """The completion tokens, sequence after sequence."""
    sequence_N: Tensor
    """The row of each completion token."""
    lengths_R: Tensor
    """Completion tokens per row."""
    tokens_N: Tensor
    """The place of each completion token among the flat values of the batch. Stays on the CPU, where the
    batch is.
    """
    positions_RT: Tensor | None = None
    """Packed: the position of each token in its sequence."""
    plan: VarlenPlan | RowsPlan | None = None
    """Packed: which tokens belong together."""

    @property
    def num_tokens(self) -> int:
        """Positions in the forward pass, padding included."""
        return self.input_ids_RT.numel()


def build_train_batch(
    prompt_ids: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    advantages_B: Tensor,
    with_sampler_logprobs: bool = False,
    lagged: bool = False,
) -> TrainBatch:
    """The batch of B sequences: `prompt_ids[b]` continued by `completions[b]`. The inputs are copied.

    Raises ValueError for a prompt without tokens (nothing would predict the first completion token) and where
    the numbers of prompts, completions, advantages or logprobs do not match.
    """
    if not len(prompt_ids) == len(completions) == advantages_B.numel():
        raise ValueError(
            f"{len(prompt_ids)} prompts, {len(completions)} completions and {advantages_B.numel()} advantages"
        )
    if not all(len(ids) for ids in prompt_ids):
        raise ValueError("a prompt has no tokens")
    lengths_B = torch.tensor([len(completion.token_ids) for completion in completions], dtype=torch.int64)
    sampler_logprobs_K = None
    if with_sampler_logprobs:
        for completion in completions:
            if len(completion.logprobs) != len(completion.token_ids):
                raise ValueError(
                    f"{len(completion.logprobs)} logprobs for a completion of {len(completion.token_ids)} "
                    f"tokens"
                )
        sampler_logprobs_K = torch.tensor(
            [value for completion in completions for value in completion.logprobs], dtype=torch.float32
        )
    return TrainBatch(
        prompt_ids=tuple(tuple(ids) for ids in prompt_ids),
        completion_ids_K=torch.tensor(
            [token for completion in completions for token in completion.token_ids], dtype=torch.int64
        ),
        lengths_B=lengths_B,
        starts_B=lengths_B.cumsum(0) - lengths_B,
        truncated_B=torch.tensor([completion.is_truncated for completion in completions], dtype=torch.bool),
        advantages_B=advantages_B.detach().flatten().double().cpu().clone(),
        sampler_logprobs_K=sampler_logprobs_K,
        lagged=lagged,
    )


def loss_inputs(batch: TrainBatch, micro_batch: MicroBatch, weights_B: Tensor) -> LossInputs:
    """What the loss needs for this micro-batch; `weights_B` is `r1rl.objective.aggregation.loss_weights`, or
    zeros for a filler.
    """
    index_R = torch.tensor(micro_batch.sequences, dtype=torch.int64)

    def pick(values_K: Tensor | None) -> Tensor | None:
        return None if values_K is None else values_K[micro_batch.tokens_N]

    return LossInputs(
        sequence_N=micro_batch.sequence_N,
        lengths_R=micro_batch.lengths_R,
        advantages_R=batch.advantages_B[index_R],
        weights_R=weights_B[index_R],
        old_logprobs_N=pick(batch.old_logprobs_K),
        sampler_logprobs_N=pick(batch.sampler_logprobs_K),
        reference_logprobs_N=pick(batch.reference_logprobs_K),
    )


def collect_token_values(
    batch: TrainBatch, micro_batches: Sequence[MicroBatch], values: Sequence[Tensor]
) -> Tensor:
    """Values per token of several micro-batches, put back in the order of the batch [K], on the CPU; NaN
    where no micro-batch has any.

    For the logprobs of the old policy and of the reference: `dataclasses.replace(batch, old_logprobs_K=...)`.
    """
    values_K = torch.full((batch.completion_ids_K.numel(),), torch.nan, dtype=torch.float32)
    if micro_batches:
        places = torch.cat([micro_batch.tokens_N for micro_batch in micro_batches])
        values_K[places] = torch.cat([value.detach() for value in values]).float().cpu()
    return values_K


def move(record: Record, device: torch.device) -> Record:
    """A copy of the record whose tensors are on the device, without waiting for the copy. `tokens_N` stays
    where it is.
    """

    def send(tensor: Tensor) -> Tensor:
        tensor = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
        return tensor.to(device, non_blocking=True)

    moved: dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, Tensor) and item.name != "tokens_N":
            moved[item.name] = send(value)
        elif isinstance(value, VarlenPlan | RowsPlan):
            moved[item.name] = value.sent_by(send)
    return replace(record, **moved)
