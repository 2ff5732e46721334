"""The sharing out of sequences among processes for the update, so that none waits long for the others.

Completions differ in length, and groups without signal cost nothing, so the processes' own rollouts are
unequally costly to train. Each minibatch's groups are therefore shared out anew by their counted cost
(`r1rl.policy.costs`); the minibatch stays the same set of sequences, so its gradient stays the same. What
travels is token ids, logprobs and advantages.

Legend: B sequences of a process, K their completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from r1rl.objective.aggregation import sequences_needed, trained_sequences
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.surrogates import Surrogate
from r1rl.policy.batching import TrainBatch, concatenate, select
from r1rl.policy.packing import Layout, Unit, spread


def share_out(
    accelerator: Accelerator,
    batch: TrainBatch,
    algorithm: AlgorithmConfig,
    layout: Layout,
    surrogate: Surrogate | None = None,
) -> tuple[TrainBatch, list[Tensor]]:
    """Return this process's sequences, and for each of `num_minibatches` minibatches the rows in it.

    The minibatches of a process's rollout are contiguous, each a whole number of groups; those of all
    processes together are one optimizer step. `surrogate`: see `sequences_needed`.
    """
    rows_of = list(torch.arange(batch.num_sequences).chunk(algorithm.num_minibatches))
    if accelerator.num_processes == 1:
        return batch, rows_of
    batches: list[TrainBatch] = gather_object([batch])
    first = torch.tensor([0] + [other.num_sequences for other in batches]).cumsum(0)
    whole = concatenate(batches)
    trained_B = trained_sequences(whole.lengths_B, whole.truncated_B, algorithm)
    needed_B = sequences_needed(whole.advantages_B, trained_B, algorithm, surrogate)
    own: list[list[int]] = []
    for number in range(algorithm.num_minibatches):
        shares = [
            torch.arange(other.num_sequences).chunk(algorithm.num_minibatches)[number] for other in batches
        ]
        members = torch.cat([rows + offset for rows, offset in zip(shares, first[:-1], strict=True)]).tolist()
        own.append(
            divide(whole, members, needed_B, layout, accelerator.num_processes)[accelerator.process_index]
        )
    ends = torch.tensor([len(rows) for rows in own]).cumsum(0).tolist()
    return select(whole, [row for rows in own for row in rows]), [
        torch.arange(end - len(rows), end) for rows, end in zip(own, ends, strict=True)
    ]


def divide(
    batch: TrainBatch, members: Sequence[int], needed_B: Tensor, layout: Layout, shares: int
) -> list[list[int]]:
    """Divide `members` into so many shares of nearly equal cost: by whole groups, or by parts of groups where
    that balances better although each part computes the prompt again. The same input gives the same shares in
    every process.
    """
    best: list[list[Unit]] = []
    lowest = float("inf")
    largest = max((len(group) for group in groups_of(batch, members)), default=1)
    for parts in sorted({1, 2, 4, largest}):
        units = [
            Unit(tuple(piece), 0, cost_of([row for row in piece if needed_B[row]], batch, layout))
            for group in groups_of(batch, members)
            for piece in split(group, parts)
        ]
        bins = spread(units, shares, float("inf"), float("inf"))
        assert bins is not None  # there is no limit that could keep a unit out
        highest = max(sum(unit.cost for unit in chosen) for chosen in bins)
        if highest < 0.98 * lowest:
            best, lowest = bins, highest
    return [sorted(row for unit in chosen for row in unit.sequences) for chosen in best]


def groups_of(batch: TrainBatch, members: Sequence[int]) -> list[list[int]]:
    """Return the groups: neighbouring members with the same prompt."""
    groups: list[list[int]] = []
    for row in members:
        if not groups or batch.prompt_ids[groups[-1][-1]] != batch.prompt_ids[row]:
            groups.append([])
        groups[-1].append(row)
    return groups


def split(group: Sequence[int], parts: int) -> list[Sequence[int]]:
    """Split the group into at most so many pieces of nearly equal length."""
    size = -(-len(group) // parts)
    return [group[start : start + size] for start in range(0, len(group), size)]


def cost_of(rows: Sequence[int], batch: TrainBatch, layout: Layout) -> float:
    """Return the cost of training these completions of one prompt."""
    lengths = batch.lengths_B[list(rows)].tolist()
    if not rows:
        return 0.0
    prompt = len(batch.prompt_ids[rows[0]])
    if layout.shares_prompts:
        return layout.costs.sequences(prompt, lengths)
    return sum(layout.costs.sequences(prompt, [length]) for length in lengths)
