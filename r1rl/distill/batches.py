"""The way from sequences to micro-batches: the inputs of a forward pass, and the places at which student and
teacher are compared.

Only completion tokens are compared, the EOS token included; the prompt is context, and padding is neither. A
row is prompt + completion without its last token: the place before a token is where both models say what they
expect there, and after the last one nothing is expected. Rows are cut from the sequences sorted by length; no
choice here changes the gradient.

Legend: B sequences of this process, R rows and T positions of a micro-batch, N its completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r1rl.distill.recipe import MicroBatchConfig
from r1rl.types import FinishReason, Prompt


@dataclass(frozen=True, slots=True)
class TrainSequence:
    """One completion that the student learns from."""

    slot: int
    """Its prompt's place in the step, over all processes."""
    prompt: Prompt
    completion_ids: Sequence[int]
    """The EOS token included, if there is one. At least one token."""
    text: str
    finish_reason: FinishReason
    on_policy: bool
    """The origin: true if the student wrote it in this step, false if it is from the file."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some sequences, laid out for one forward pass of either model."""

    input_ids_RT: Tensor
    """Padded on the right; under causal attention what the padding holds has no effect."""
    predictors_N: Tensor
    """The place in the R * T positions from which each completion token is predicted."""
    sequence_N: Tensor
    """The sequence (among the B) of each completion token."""

    def on(self, device: torch.device) -> MicroBatch:
        """Return a copy on the device."""
        return MicroBatch(
            self.input_ids_RT.to(device), self.predictors_N.to(device), self.sequence_N.to(device)
        )


def make_micro_batches(sequences: Sequence[TrainSequence], config: MicroBatchConfig) -> list[MicroBatch]:
    """Return micro-batches that hold each sequence once, the longest first.

    Rows times the longest row stay within `micro_batch_tokens`; a sequence that is longer than the budget
    goes alone.
    """
    lengths = [len(one.prompt.token_ids) + len(one.completion_ids) - 1 for one in sequences]
    order = sorted(range(len(sequences)), key=lambda place: (-lengths[place], place))
    most_rows = config.micro_batch_sequences or len(order)
    groups: list[list[int]] = []
    for place in order:
        group = groups[-1] if groups else []
        if (
            not group
            or len(group) == most_rows
            or (len(group) + 1) * lengths[group[0]] > config.micro_batch_tokens
        ):
            groups.append([])
        groups[-1].append(place)
    return [lay_out(sequences, group) for group in groups]


def lay_out(sequences: Sequence[TrainSequence], places: Sequence[int]) -> MicroBatch:
    """Lay out one row for each of these sequences."""
    width = (
        max(len(sequences[place].prompt.token_ids) + len(sequences[place].completion_ids) for place in places)
        - 1
    )
    input_ids_RT = torch.zeros(len(places), width, dtype=torch.int64)
    predictors, owners = [], []
    for row, place in enumerate(places):
        one = sequences[place]
        prompt, completion = len(one.prompt.token_ids), len(one.completion_ids)
        input_ids_RT[row, : prompt + completion - 1] = torch.tensor(
            [*one.prompt.token_ids, *one.completion_ids[:-1]], dtype=torch.int64
        )
        first = row * width + prompt - 1
        predictors.append(torch.arange(first, first + completion))
        owners.append(torch.full((completion,), place))
    return MicroBatch(input_ids_RT, torch.cat(predictors), torch.cat(owners))
