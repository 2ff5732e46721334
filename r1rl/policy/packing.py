"""The sequences that share a forward pass, and their places in it.

Packed sequences lie in one row [1, T] without padding. A prompt is computed once for those of its completions
that are in the pass, and positions go on from the prompt's:

    | prompt 1 | completion 1.1 | completion 1.2 | prompt 2 | completion 2.1 | ...

Passes hold at most `micro_batch_tokens` positions and are made equally costly (`r1rl.policy.costs`), the
costliest first. There are as few of them as can be: each keeps the host busy as long, however little is in
it. Padded sequences are for models whose attention can't be replaced: a row per sequence, cut from the
sequences sorted by length, so that padding and number of passes are as small as they can be. In either layout
a sequence is fed without its last token, which predicts nothing; the same sequences always give the same
passes; and no choice here changes the gradient.

Legend: B sequences of the batch, R rows and T positions of a micro-batch, N its completion tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from r1rl.attention.packed import Segment
from r1rl.attention.rectangles import RowsPlan
from r1rl.attention.varlen import VarlenKernel, VarlenPlan
from r1rl.compute.trials import Trial
from r1rl.config.schema import UpdateConfig
from r1rl.policy.batching import MicroBatch, TrainBatch
from r1rl.policy.costs import PassCosts

PASS_OVERHEAD = 256
"""The cost of a padded pass besides its tokens, in tokens: padding a little is cheaper than another pass."""
MOST_GROWTH = 1.01
"""The largest growth of all packed positions, as a factor, that fewer passes are worth."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The way in which sequences lie in a forward pass of this model on this device."""

    packed: bool
    shares_prompts: bool
    costs: PassCosts
    kernel: VarlenKernel | None = None
    """The function for packed attention; None: rectangles."""
    reason: str = ""
    """The reason why sequences are padded, as a sentence; empty if packed, or if the recipe asks for it."""
    trials: tuple[Trial, ...] = ()
    """The trials of packed attention, accepted or refused."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The sequences that stay together in a pass: completions that share their prompt, or a single one."""

    sequences: tuple[int, ...]
    tokens: int
    """The number of positions in the pass."""
    cost: float


def make_micro_batches(
    batch: TrainBatch, sequences: Sequence[int], layout: Layout, config: UpdateConfig, at_least: int = 0
) -> list[MicroBatch]:
    """Return micro-batches that hold each of the sequences once; those without completion tokens are left
    out.

    `at_least`: spread over so many passes, where there are so many units (packed only).
    """
    lengths = batch.lengths_B.tolist()
    sequences = [sequence for sequence in sequences if lengths[sequence] > 0]
    if not layout.packed:
        fed = [len(batch.prompt_ids[sequence]) + lengths[sequence] - 1 for sequence in sequences]
        return [
            lay_out_padded(batch, [sequences[place] for place in places]) for places in cut_rows(fed, config)
        ]
    return [
        lay_out_packed(batch, chosen, layout.kernel)
        for chosen in make_passes(batch, sequences, layout, config, at_least)
    ]


def filler(batch: TrainBatch, layout: Layout) -> MicroBatch:
    """Return a micro-batch of the shortest sequence alone.

    With weights of 0 it changes nothing: it is for a process that has fewer micro-batches than others and
    must still take part in a pass that synchronises gradients.
    """
    lengths = batch.lengths_B.tolist()
    shortest = min(
        (sequence for sequence in range(batch.num_sequences) if lengths[sequence] > 0),
        key=lambda sequence: len(batch.prompt_ids[sequence]) + lengths[sequence],
    )
    if not layout.packed:
        return lay_out_padded(batch, [shortest])
    return lay_out_packed(batch, [make_unit(batch, [shortest], layout)], layout.kernel)


# ---------------------------------------------------------------------------------------------------------
# packed


def make_passes(
    batch: TrainBatch, sequences: Sequence[int], layout: Layout, config: UpdateConfig, at_least: int
) -> list[list[Unit]]:
    """Make passes of whole groups, or of parts of groups where that saves passes for hardly any more
    positions.
    """
    units = make_units(batch, sequences, layout, config)
    passes = fill_passes(units, config, at_least)
    most = MOST_GROWTH * sum(unit.tokens for unit in units)
    for parts in (2, 4, len(sequences)) if layout.shares_prompts else ():
        if len(passes) <= max(1, at_least):
            break
        units = make_units(batch, sequences, layout, config, parts)
        if sum(unit.tokens for unit in units) > most:
            break
        passes = min(passes, fill_passes(units, config, at_least), key=len)
    return passes


def make_units(
    batch: TrainBatch, sequences: Sequence[int], layout: Layout, config: UpdateConfig, parts: int = 1
) -> list[Unit]:
    """Group the sequences by prompt, in `parts` pieces of each group, or more where those would not fit into
    a pass.

    A sequence that is longer than the budget is a unit of its own.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for sequence in sequences:
        by_prompt.setdefault(batch.prompt_ids[sequence], []).append(sequence)
    lengths = batch.lengths_B.tolist()
    most = config.micro_batch_sequences or len(sequences)
    units = []
    for prompt, members in by_prompt.items():
        piece: list[int] = []
        tokens = len(prompt)
        size = min(most, math.ceil(len(members) / parts))
        for sequence in members:
            added = lengths[sequence] - 1
            if piece and (
                not layout.shares_prompts or tokens + added > config.micro_batch_tokens or len(piece) == size
            ):
                units.append(make_unit(batch, piece, layout))
                piece, tokens = [], len(prompt)
            piece.append(sequence)
            tokens += added
        units.append(make_unit(batch, piece, layout))
    return units


def make_unit(batch: TrainBatch, sequences: Sequence[int], layout: Layout) -> Unit:
    """Return completions of one prompt as a unit, with their cost."""
    lengths = batch.lengths_B[list(sequences)].tolist()
    prompt = len(batch.prompt_ids[sequences[0]])
    return Unit(
        tuple(sequences), prompt + sum(lengths) - len(lengths), layout.costs.sequences(prompt, lengths)
    )


def fill_passes(units: Sequence[Unit], config: UpdateConfig, at_least: int = 0) -> list[list[Unit]]:
    """Return as few passes as the limits allow, or `at_least` so many, of nearly equal cost, the costliest
    first.
    """
    if not units:
        return []
    most = config.micro_batch_sequences or sum(len(unit.sequences) for unit in units)
    tokens, sequences = sum(unit.tokens for unit in units), sum(len(unit.sequences) for unit in units)
    count = max(at_least, math.ceil(tokens / config.micro_batch_tokens), math.ceil(sequences / most))
    while (passes := spread(units, count, config.micro_batch_tokens, most)) is None:
        count += 1
    return sorted(
        (chosen for chosen in passes if chosen), key=lambda chosen: -sum(unit.cost for unit in chosen)
    )


def spread(
    units: Sequence[Unit], count: int, most_tokens: float, most_sequences: float
) -> list[list[Unit]] | None:
    """Spread the units over `count` bins, the costliest first, each to the cheapest bin that has room.

    Return None where none has. The costliest bin costs at most 4/3 of what is possible (Graham 1969). A unit
    that is over the limits goes alone.
    """
    bins: list[list[Unit]] = [[] for _ in range(count)]
    cost, tokens, sequences = [0.0] * count, [0] * count, [0] * count
    for unit in sorted(units, key=lambda unit: (-unit.cost, unit.sequences)):
        fitting = [
            place
            for place in range(count)
            if not bins[place]
            or (
                tokens[place] + unit.tokens <= most_tokens
                and sequences[place] + len(unit.sequences) <= most_sequences
            )
        ]
        if not fitting:
            return None
        chosen = min(fitting, key=lambda place: (cost[place], len(bins[place]), place))
        bins[chosen].append(unit)
        cost[chosen] += unit.cost
        tokens[chosen] += unit.tokens
        sequences[chosen] += len(unit.sequences)
    return bins


def lay_out_packed(batch: TrainBatch, units: Sequence[Unit], kernel: VarlenKernel | None) -> MicroBatch:
    """Lay the units one after the other: a prompt, then the completions that follow it."""
    tokens, positions, predictors, segments = [], [], [], []
    place = 0
    for unit in units:
        prompt = batch.prompt_ids[unit.sequences[0]]
        start, after_prompt = place, place + len(prompt)
        tokens.append(torch.tensor(prompt, dtype=torch.int64))
        positions.append(torch.arange(len(prompt)))
        place = after_prompt
        for sequence in unit.sequences:
            first, fed = int(batch.starts_B[sequence]), int(batch.lengths_B[sequence]) - 1
            tokens.append(batch.completion_ids_K[first : first + fed])
            positions.append(torch.arange(len(prompt), len(prompt) + fed))
            predictors.append(torch.cat([torch.tensor([after_prompt - 1]), torch.arange(place, place + fed)]))
            if len(unit.sequences) > 1 and fed:
                segments.append(Segment(place, fed, start, len(prompt)))
            place += fed
        segments.append(Segment(start, (after_prompt if len(unit.sequences) > 1 else place) - start))
    segments.sort(key=lambda segment: segment.start)
    return MicroBatch(
        **_loss_side(batch, [sequence for unit in units for sequence in unit.sequences]),
        input_ids_RT=torch.cat(tokens)[None],
        positions_RT=torch.cat(positions)[None],
        predictors_N=torch.cat(predictors),
        plan=RowsPlan.of(segments) if kernel is None else VarlenPlan.of(segments, kernel),
    )


# ---------------------------------------------------------------------------------------------------------
# padded


def cut_rows(lengths: Sequence[int], config: UpdateConfig) -> list[list[int]]:
    """Group the places in `lengths` so that padded tokens + PASS_OVERHEAD per group are as few as possible.

    The groups are cuts of the sorted lengths. A group's rows times its longest row stay within
    `micro_batch_tokens`, and its rows within `micro_batch_sequences`; a sequence that is longer than the
    budget goes alone.
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


def lay_out_padded(batch: TrainBatch, sequences: Sequence[int]) -> MicroBatch:
    """Lay out one row per sequence, padded on the right."""
    lengths_R = batch.lengths_B[list(sequences)]
    prompt_lengths_R = torch.tensor(
        [len(batch.prompt_ids[sequence]) for sequence in sequences], dtype=torch.int64
    )
    width = int((prompt_lengths_R + lengths_R).max()) - 1
    input_ids_RT = torch.zeros(len(sequences), width, dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        prompt = batch.prompt_ids[sequence]
        start, length = int(batch.starts_B[sequence]), int(batch.lengths_B[sequence])
        input_ids_RT[row, : len(prompt)] = torch.tensor(prompt, dtype=torch.int64)
        input_ids_RT[row, len(prompt) : len(prompt) + length - 1] = batch.completion_ids_K[
            start : start + length - 1
        ]
    loss_side = _loss_side(batch, sequences)
    sequence_N = loss_side["sequence_N"]
    within_N = loss_side["tokens_N"] - batch.starts_B[list(sequences)][sequence_N]
    predictors_N = sequence_N * width + prompt_lengths_R[sequence_N] - 1 + within_N
    return MicroBatch(**loss_side, input_ids_RT=input_ids_RT, predictors_N=predictors_N)


def _loss_side(batch: TrainBatch, sequences: Sequence[int]) -> dict[str, Any]:
    """Return the parts of a micro-batch that describe its completion tokens, alike in any layout."""
    index_R = torch.tensor(sequences, dtype=torch.int64)
    lengths_R = batch.lengths_B[index_R]
    sequence_N = torch.repeat_interleave(torch.arange(len(sequences)), lengths_R)
    within_N = torch.arange(int(lengths_R.sum())) - (lengths_R.cumsum(0) - lengths_R)[sequence_N]
    tokens_N = batch.starts_B[index_R][sequence_N] + within_N
    return {
        "sequences": tuple(sequences),
        "targets_N": batch.completion_ids_K[tokens_N],
        "sequence_N": sequence_N,
        "lengths_R": lengths_R,
        "tokens_N": tokens_N,
    }
