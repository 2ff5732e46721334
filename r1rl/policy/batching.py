"""The way from completions to the inputs of a forward pass and of the loss.

    batch = build_train_batch(prompts, completions, advantages)        this process's sequences, on the CPU
    micro_batches = make_micro_batches(batch, rows, layout, config)    sequences that share a forward pass:
                                                                       r1rl.policy.packing
    inputs = loss_inputs(batch, micro_batch, weights)                  the values that the loss needs

Only completion tokens are trained, the EOS token included; the prompt is context. The forward pass and the
loss meet a micro-batch as flat completion tokens (`predictors_N`, `targets_N`), whatever lies around them.

Legend: B sequences of the batch, K completion tokens of the batch, R rows and T positions of a micro-batch, N
its completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from r1rl.attention.rectangles import RowsPlan
from r1rl.attention.varlen import VarlenPlan
from r1rl.objective.losses import LossInputs
from r1rl.types import Completion


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
    """The place in the flat values at which each sequence begins."""
    truncated_B: Tensor
    advantages_B: Tensor
    sampler_logprobs_K: Tensor | None = None
    old_logprobs_K: Tensor | None = None
    reference_logprobs_K: Tensor | None = None
    lagged: bool = False
    """The completions are of the policy before the last update (`rollout.one_step_off`)."""

    @property
    def num_sequences(self) -> int:
        """The number of sequences, B."""
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
    """Return the batch of B sequences: `prompt_ids[b]` continued by `completions[b]`. The inputs are copied.

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
    """Return the inputs of the loss for this micro-batch; `weights_B` is
    `r1rl.objective.aggregation.loss_weights`, or zeros for a filler.
    """
    index_R = torch.tensor(micro_batch.sequences, dtype=torch.int64)
    tokens_N = micro_batch.tokens_N
    return LossInputs(
        sequence_N=micro_batch.sequence_N,
        lengths_R=micro_batch.lengths_R,
        advantages_R=batch.advantages_B[index_R],
        weights_R=weights_B[index_R],
        old_logprobs_N=_picked(batch.old_logprobs_K, tokens_N),
        sampler_logprobs_N=_picked(batch.sampler_logprobs_K, tokens_N),
        reference_logprobs_N=_picked(batch.reference_logprobs_K, tokens_N),
    )


def collect_token_values(
    batch: TrainBatch, micro_batches: Sequence[MicroBatch], values: Sequence[Tensor]
) -> Tensor:
    """Return the values per token of several micro-batches in the order of the batch [K], on the CPU; NaN
    where no micro-batch has any.

    For the logprobs of the old policy and of the reference: `dataclasses.replace(batch, old_logprobs_K=...)`.
    """
    values_K = torch.full((batch.completion_ids_K.numel(),), torch.nan, dtype=torch.float32)
    if micro_batches:
        places = torch.cat([micro_batch.tokens_N for micro_batch in micro_batches])
        values_K[places] = torch.cat([value.detach() for value in values]).float().cpu()
    return values_K


def concatenate(batches: Sequence[TrainBatch]) -> TrainBatch:
    """Return one batch of all sequences, in order. All batches have the same kinds of logprobs."""
    lengths_B = torch.cat([batch.lengths_B for batch in batches])

    def join(parts: Sequence[Tensor | None]) -> Tensor | None:
        there = [part for part in parts if part is not None]
        if there and len(there) < len(parts):
            raise ValueError("some batches have logprobs that others lack")
        return torch.cat(there) if there else None

    return TrainBatch(
        prompt_ids=tuple(prompt for batch in batches for prompt in batch.prompt_ids),
        completion_ids_K=torch.cat([batch.completion_ids_K for batch in batches]),
        lengths_B=lengths_B,
        starts_B=lengths_B.cumsum(0) - lengths_B,
        truncated_B=torch.cat([batch.truncated_B for batch in batches]),
        advantages_B=torch.cat([batch.advantages_B for batch in batches]),
        sampler_logprobs_K=join([batch.sampler_logprobs_K for batch in batches]),
        old_logprobs_K=join([batch.old_logprobs_K for batch in batches]),
        reference_logprobs_K=join([batch.reference_logprobs_K for batch in batches]),
        lagged=batches[0].lagged,
    )


def select(batch: TrainBatch, rows: Sequence[int]) -> TrainBatch:
    """Return the batch of these sequences, in the order of `rows`."""
    index_B = torch.tensor(rows, dtype=torch.int64)
    lengths_B = batch.lengths_B[index_B]
    starts_B = lengths_B.cumsum(0) - lengths_B
    row_K = torch.repeat_interleave(torch.arange(len(rows)), lengths_B)
    tokens_K = (batch.starts_B[index_B] - starts_B)[row_K] + torch.arange(len(row_K))
    return TrainBatch(
        prompt_ids=tuple(batch.prompt_ids[row] for row in rows),
        completion_ids_K=batch.completion_ids_K[tokens_K],
        lengths_B=lengths_B,
        starts_B=starts_B,
        truncated_B=batch.truncated_B[index_B],
        advantages_B=batch.advantages_B[index_B],
        sampler_logprobs_K=_picked(batch.sampler_logprobs_K, tokens_K),
        old_logprobs_K=_picked(batch.old_logprobs_K, tokens_K),
        reference_logprobs_K=_picked(batch.reference_logprobs_K, tokens_K),
        lagged=batch.lagged,
    )


def move_micro_batch(micro_batch: MicroBatch, device: torch.device) -> MicroBatch:
    """Return a copy whose tensors are on the device, without waiting for the copy; `tokens_N` stays on the
    CPU.
    """
    return replace(
        micro_batch,
        input_ids_RT=_sent(micro_batch.input_ids_RT, device),
        predictors_N=_sent(micro_batch.predictors_N, device),
        targets_N=_sent(micro_batch.targets_N, device),
        sequence_N=_sent(micro_batch.sequence_N, device),
        lengths_R=_sent(micro_batch.lengths_R, device),
        positions_RT=_sent_if_any(micro_batch.positions_RT, device),
        plan=None if micro_batch.plan is None else micro_batch.plan.sent_by(lambda one: _sent(one, device)),
    )


def move_loss_inputs(inputs: LossInputs, device: torch.device) -> LossInputs:
    """Return a copy whose tensors are on the device, without waiting for the copy."""
    return LossInputs(
        sequence_N=_sent(inputs.sequence_N, device),
        lengths_R=_sent(inputs.lengths_R, device),
        advantages_R=_sent(inputs.advantages_R, device),
        weights_R=_sent(inputs.weights_R, device),
        old_logprobs_N=_sent_if_any(inputs.old_logprobs_N, device),
        sampler_logprobs_N=_sent_if_any(inputs.sampler_logprobs_N, device),
        reference_logprobs_N=_sent_if_any(inputs.reference_logprobs_N, device),
    )


def _picked(values_K: Tensor | None, places: Tensor) -> Tensor | None:
    return None if values_K is None else values_K[places]


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    tensor = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
    return tensor.to(device, non_blocking=True)


def _sent_if_any(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else _sent(tensor, device)
