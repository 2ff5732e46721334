"""From completions to micro-batches: what one forward pass sees, and which of its tokens are trained.

    batch = build_train_batch(prompts, completions, advantages)           the sequences of this process, on the CPU
    micro_batches = make_micro_batches(batch, rows, config.update)        rows that share a forward pass
    inputs = loss_inputs(batch, micro_batch, weights)                     what the loss must know about its tokens

Only completion tokens are trained, the EOS token included; the prompt is context, and padding is neither. A row of a micro-batch is
prompt + completion without its last token, which predicts nothing. The forward pass and the loss meet a micro-batch as flat completion
tokens (`predictors_N`, `targets_N`) and never see rows or padding: another layout of `input_ids_RT` changes nothing for them.

Rows are cut from the sequences sorted by length, so that the padding and the number of passes are as small as they can be. The same
sequences always give the same micro-batches. No choice here changes the gradient.

Legend: B sequences of the batch, K completion tokens of the batch, R rows and T positions of a micro-batch, N its completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from r1rl.config.schema import UpdateConfig
from r1rl.grpo.losses import LossInputs
from r1rl.types import Completion

Record = TypeVar("Record", "MicroBatch", LossInputs)

PASS_OVERHEAD = 256
"""What a forward and backward pass costs besides its tokens, in tokens: padding a little is cheaper than another pass."""


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """The sequences that one process trains after a rollout. Values per completion token are flat, sequence after sequence."""

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

    @property
    def num_sequences(self) -> int:
        """B."""
        return len(self.prompt_ids)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some sequences of a `TrainBatch`, laid out for one forward pass."""

    sequences: tuple[int, ...]
    """Row r holds sequence `sequences[r]` of the batch."""
    input_ids_RT: Tensor
    """Padded on the right; what the padding holds has no effect."""
    predictors_N: Tensor
    """The place in the R * T positions whose hidden state predicts each completion token."""
    targets_N: Tensor
    """The completion tokens, row after row."""
    sequence_N: Tensor
    """The row of each completion token."""
    lengths_R: Tensor
    """Completion tokens per row."""
    tokens_N: Tensor
    """The place of each completion token among the flat values of the batch. Stays on the CPU, where the batch is."""

    @property
    def num_tokens(self) -> int:
        """Positions in the forward pass, padding included."""
        return self.input_ids_RT.numel()


def build_train_batch(
    prompt_ids: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    advantages_B: Tensor,
    with_sampler_logprobs: bool = False,
) -> TrainBatch:
    """The batch of B sequences: `prompt_ids[b]` continued by `completions[b]`. The inputs are copied.

    Raises ValueError for a prompt without tokens (nothing would predict the first completion token) and where the numbers of
    prompts, completions, advantages or logprobs do not match.
    """
    if not len(prompt_ids) == len(completions) == advantages_B.numel():
        raise ValueError(f"{len(prompt_ids)} prompts, {len(completions)} completions and {advantages_B.numel()} advantages")
    if not all(len(ids) for ids in prompt_ids):
        raise ValueError("a prompt has no tokens")
    lengths_B = torch.tensor([len(completion.token_ids) for completion in completions], dtype=torch.int64)
    sampler_logprobs_K = None
    if with_sampler_logprobs:
        for completion in completions:
            if len(completion.logprobs) != len(completion.token_ids):
                raise ValueError(f"{len(completion.logprobs)} logprobs for a completion of {len(completion.token_ids)} tokens")
        sampler_logprobs_K = torch.tensor([value for completion in completions for value in completion.logprobs], dtype=torch.float32)
    return TrainBatch(
        prompt_ids=tuple(tuple(ids) for ids in prompt_ids),
        completion_ids_K=torch.tensor([token for completion in completions for token in completion.token_ids], dtype=torch.int64),
        lengths_B=lengths_B,
        starts_B=lengths_B.cumsum(0) - lengths_B,
        truncated_B=torch.tensor([completion.is_truncated for completion in completions], dtype=torch.bool),
        advantages_B=advantages_B.detach().flatten().double().cpu().clone(),
        sampler_logprobs_K=sampler_logprobs_K,
    )


def make_micro_batches(batch: TrainBatch, rows: Sequence[int], config: UpdateConfig) -> list[MicroBatch]:
    """Micro-batches that hold each sequence of `rows` once, the longest first. Sequences without completion tokens are left out."""
    completion_lengths = batch.lengths_B.tolist()
    rows = [row for row in rows if completion_lengths[row] > 0]
    lengths = [len(batch.prompt_ids[row]) + completion_lengths[row] - 1 for row in rows]
    return [lay_out(batch, [rows[place] for place in places]) for places in cut_rows(lengths, config)]


def filler(batch: TrainBatch) -> MicroBatch:
    """The shortest sequence, alone. With weights of 0 it changes nothing: it is for a process that has fewer micro-batches than
    others and must still take part in a pass that synchronises gradients."""
    lengths = batch.lengths_B.tolist()
    rows = [row for row in range(batch.num_sequences) if lengths[row] > 0]
    return lay_out(batch, [min(rows, key=lambda row: len(batch.prompt_ids[row]) + lengths[row])])


def cut_rows(lengths: Sequence[int], config: UpdateConfig) -> list[list[int]]:
    """Places in `lengths`, grouped: padded tokens + PASS_OVERHEAD per group are minimal among all cuts of the sorted lengths.

    A group's rows times its longest row stay within `micro_batch_tokens`, and its rows within `micro_batch_sequences`; a sequence
    that is longer than the budget goes alone.
    """
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    most_rows = config.micro_batch_sequences or len(order)
    cost = [0.0] + [float("inf")] * len(order)
    cut = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        for start in range(end - 1, max(-1, end - 1 - most_rows), -1):
            tokens = (end - start) * lengths[order[start]]
            if tokens > config.micro_batch_tokens and end - start > 1:
                break  # a start further left has more and longer rows
            if cost[start] + tokens + PASS_OVERHEAD < cost[end]:
                cost[end], cut[end] = cost[start] + tokens + PASS_OVERHEAD, start
    groups: list[list[int]] = []
    end = len(order)
    while end > 0:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]


def lay_out(batch: TrainBatch, rows: Sequence[int]) -> MicroBatch:
    """One row per sequence, padded on the right."""
    index_R = torch.tensor(rows, dtype=torch.int64)
    lengths_R = batch.lengths_B[index_R]
    prompt_lengths_R = torch.tensor([len(batch.prompt_ids[row]) for row in rows], dtype=torch.int64)
    width = int((prompt_lengths_R + lengths_R).max()) - 1
    input_ids_RT = torch.zeros(len(rows), width, dtype=torch.int64)
    for place, row in enumerate(rows):
        prompt = batch.prompt_ids[row]
        start, length = int(batch.starts_B[row]), int(batch.lengths_B[row])
        input_ids_RT[place, : len(prompt)] = torch.tensor(prompt, dtype=torch.int64)
        input_ids_RT[place, len(prompt) : len(prompt) + length - 1] = batch.completion_ids_K[start : start + length - 1]
    sequence_N = torch.repeat_interleave(torch.arange(len(rows)), lengths_R)
    within_N = torch.arange(int(lengths_R.sum())) - (lengths_R.cumsum(0) - lengths_R)[sequence_N]
    tokens_N = batch.starts_B[index_R][sequence_N] + within_N
    return MicroBatch(
        sequences=tuple(rows),
        input_ids_RT=input_ids_RT,
        predictors_N=sequence_N * width + prompt_lengths_R[sequence_N] - 1 + within_N,
        targets_N=batch.completion_ids_K[tokens_N],
        sequence_N=sequence_N,
        lengths_R=lengths_R,
        tokens_N=tokens_N,
    )


def loss_inputs(batch: TrainBatch, micro_batch: MicroBatch, weights_B: Tensor) -> LossInputs:
    """What the loss needs for this micro-batch; `weights_B` is `r1rl.grpo.aggregation.loss_weights`, or zeros for a filler."""
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


def collect_token_values(batch: TrainBatch, micro_batches: Sequence[MicroBatch], values: Sequence[Tensor]) -> Tensor:
    """Values per token of several micro-batches, put back in the order of the batch [K], on the CPU; NaN where no micro-batch has any.

    For the logprobs of the old policy and of the reference: `dataclasses.replace(batch, old_logprobs_K=...)`.
    """
    values_K = torch.full((batch.completion_ids_K.numel(),), torch.nan, dtype=torch.float32)
    if micro_batches:
        places = torch.cat([micro_batch.tokens_N for micro_batch in micro_batches])
        values_K[places] = torch.cat([value.detach() for value in values]).float().cpu()
    return values_K


def move(record: Record, device: torch.device) -> Record:
    """A copy of the record whose tensors are on the device, without waiting for the copy. `tokens_N` stays where it is."""

    def send(tensor: Tensor) -> Tensor:
        tensor = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
        return tensor.to(device, non_blocking=True)

    values = {item.name: getattr(record, item.name) for item in fields(record) if item.name != "tokens_N"}
    moved: dict[str, Any] = {name: send(value) for name, value in values.items() if isinstance(value, Tensor)}
    return replace(record, **moved)
