"""The token loop of the native engine.

Prompts are prefilled once, packed without padding, and their keys and values copied to the rows of their
completions. The rows decode together and the host looks at their tokens every few steps. Finished rows are
dropped (the last rows move into their places) and waiting completions start in the rows that became free.
When memory runs out, half of the rows give up their places; they go on later, from the tokens that they have.

Legend: P prompts, G completions per prompt, R rows that decode, V vocabulary, S steps between two looks.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from transformers import PreTrainedModel

from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.allocation import Allocator
from r1rl.rollout.native.forward import PREFILL_TOKENS, Prefilled
from r1rl.rollout.native.memory import release_cached
from r1rl.rollout.native.rows import Row
from r1rl.rollout.native.workspace import Workspace
from r1rl.rollout.requests import Finished, GroupCollector
from r1rl.rollout.sampler import stream_key
from r1rl.rollout.stopping import Stopping
from r1rl.types import FinishReason

logger = logging.getLogger(__name__)

SMALLEST_PREFILL = 256
"""The prompt tokens of one prefill that are tried before a rollout gives up for want of memory."""


@dataclass(frozen=True, slots=True)
class Job:
    """A sequence to prefill, and the completions that go on from there."""

    tokens: Sequence[int]
    rows: list[Row]


def equal_neighbours(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the places of the prompts, those of equal ones that follow each other together: a prompt that is
    asked for once for each of its completions is prefilled once for all of them.
    """
    runs = groupby(range(len(prompts)), key=lambda place: prompts[place])
    return [list(run) for _, run in runs]


class Decoding:
    """The state of one call of `generate`: waiting completions, and rows that decode."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        stopping: Stopping,
        groups: GroupCollector,
        allocator: Allocator,
        look_every: int,
    ) -> None:
        """Line the completions up. `limits`: of each prompt, how many tokens each of its completions may
        have.
        """
        self.prompts = prompts
        self.sampling = sampling
        self.seeds = seeds
        self.stopping = stopping
        self.groups = groups
        self.allocator = allocator
        self.look_every = look_every
        self.column_limit = max(map(len, prompts), default=0) + sampling.max_completion_length
        self.total_rows = sum(map(len, limits))
        self.max_rows = 0  # decided when the first prompts have shown what a token takes
        self.prefill_tokens = PREFILL_TOKENS
        self.jobs = deque(
            Job(
                prompts[indices[0]],
                [
                    Row(index, generation, len(prompts[index]), limit)
                    for index in indices
                    for generation, limit in enumerate(limits[index])
                ],
            )
            for indices in equal_neighbours(prompts)
        )
        self.prefilled: Prefilled | None = None
        self.waiting: list[Row] = []
        self.rows: list[Row] = []
        self.space: Workspace | None = None
        self.unlooked = 0  # steps since the last look
        self.finished: list[Finished] = []  # not handed over yet

    @property
    def is_running(self) -> bool:
        """The state before every completion is finished."""
        return bool(self.rows or self.waiting or self.jobs)

    @property
    def live(self) -> list[Row]:
        """The rows that have not ended."""
        return [row for row in self.rows if not row.ended]

    def close(self) -> None:
        """Hand the last completions over, and give the memory back to where it came from."""
        self._hand_over()
        if self.space is not None:
            self.allocator.give_back(self.space)
            self.space = None

    def advance(self, model: PreTrainedModel) -> None:
        """Draw up to `look_every` tokens per row, hand over what is finished and fill free rows."""
        admitting, failed = True, False
        try:
            self._admit(model)
            admitting = False
            self._decode(model)
        except torch.OutOfMemoryError:
            failed = (
                True  # dealt with below: here the error's traceback still holds the tensors of what failed
            )
        self._hand_over()  # while the device is busy with the steps that it was just given
        self._look()
        if self.allocator.device.type == "cpu":
            self._hand_over()  # there is nothing to wait for
        if failed:
            self._give_way(admitting)
        elif self._is_smaller(len(self.live)):
            self._compact()

    # Starting completions

    def _admit(self, model: PreTrainedModel) -> None:
        """Start waiting completions in free rows, an eighth of the rows at a time, so that prefills are worth
        their call.
        """
        while self.waiting or self.jobs:
            live = len(self.live)
            if self.space is not None and live and self.max_rows - live < max(1, self.max_rows // 8):
                return
            if not self.waiting:
                self._prefill(model, self.max_rows - live if self.space else None)
            else:
                self._start(self.max_rows - live)

    def _prefill(self, model: PreTrainedModel, free: int | None) -> None:
        """Compute the keys and values of the next prompts.

        They are enough for `free` rows, and at most `prefill_tokens` long, but for a single prompt.
        """
        chosen: list[Job] = []
        tokens = rows = 0
        for job in self.jobs:
            if chosen and (
                tokens + len(job.tokens) > self.prefill_tokens or (free is not None and rows >= free)
            ):
                break
            chosen.append(job)
            tokens, rows = tokens + len(job.tokens), rows + len(job.rows)
        ordered = sorted(chosen, key=lambda job: len(job.tokens))
        sequences = [job.tokens for job in ordered]
        self.prefilled = self.allocator.prefill(model, sequences, self.prefill_tokens)
        if self.space is None:
            wanted = self.max_rows or self.total_rows
            self.space, self.max_rows = self.allocator.make(
                model, self.prefilled, wanted, self.column_limit, self.sampling, self.stopping
            )
        for _ in chosen:
            self.jobs.popleft()
        for place, job in enumerate(ordered):
            for row in job.rows:
                row.place = place
            self.waiting += job.rows

    def _start(self, free: int) -> None:
        """Make waiting completions rows of the batch."""
        assert self.prefilled is not None and self.space is not None
        self._compact()
        starting = self.waiting[:free]
        keys = [stream_key(self.seeds[row.prompt], row.generation) for row in starting]
        self.space.start(
            len(self.rows),
            starting,
            self.prefilled,
            keys,
            [self.prompts[row.prompt] for row in starting],
            self.sampling,
        )
        for row in starting:
            row.drawn += 1
        self.rows += starting
        self.waiting = self.waiting[free:]
        if not self.waiting:
            self.prefilled = None

    # Decoding

    def _decode(self, model: PreTrainedModel) -> None:
        """Draw tokens until the next look; the last is not yet fed to the model, since its row may have
        ended.
        """
        assert self.space is not None
        live = self.live
        width = max(row.length for row in live)
        for step in range(min(self.look_every, max(row.limit - row.drawn for row in live))):
            self.space.step(model, self.sampling, len(self.rows), min(width + step, self.column_limit))
            self.unlooked += 1

    # Ending completions

    def _look(self) -> None:
        """Find the completions that have ended, and hand them to the collector."""
        if self.space is None:
            return
        tensors = self.space.tensors
        flags = tensors.flagged_R[: len(self.rows)].tolist()
        for row in self.live:
            row.drawn = min(row.drawn + self.unlooked, row.limit)
        self.unlooked = 0
        ends = self._find_ends(
            [index for index, flag in enumerate(flags) if flag and not self.rows[index].ended]
        )
        for index, row in enumerate(self.rows):
            if row.drawn == row.limit and not row.ended:
                ends.setdefault(index, (row.drawn, FinishReason.LENGTH))
            row.looked = row.drawn
        if any(flags):
            tensors.flagged_R.zero_()
        if ends:
            self._finish(ends)

    def _find_ends(self, flagged: list[int]) -> dict[int, tuple[int, FinishReason]]:
        """Return where and why rows have ended among these, which have drawn a token that may end them."""
        if not flagged:
            return {}
        assert self.space is not None
        rows = [self.rows[index] for index in flagged]
        first = [max(0, row.looked - self.stopping.window) for row in rows]
        count = max(row.drawn - start for row, start in zip(rows, first, strict=True))
        ends = {}
        for index, row, start, tokens in zip(
            flagged, rows, first, self.space.tensors.fetch(flagged, first, count), strict=True
        ):
            end = self.stopping.end(tokens[: row.drawn - start], row.looked - start)
            if end is not None:
                ends[index] = end[0] + start, end[1]
        return ends

    def _finish(self, ends: dict[int, tuple[int, FinishReason]]) -> None:
        """Record these rows' completions as finished."""
        assert self.space is not None
        indices = list(ends)
        tokens, logprobs = self.space.tensors.fetch_all(indices, max(count for count, _ in ends.values()))
        finished: list[Finished] = []
        for index, row_tokens, row_logprobs in zip(indices, tokens, logprobs, strict=True):
            row, (count, reason) = self.rows[index], ends[index]
            row.ended = True
            finished.append((row.prompt, row.generation, row_tokens[:count], row_logprobs[:count], reason))
        self.space.tensors.freeze(indices)
        self.finished += finished

    def _hand_over(self) -> None:
        """Hand completions that ended at the last look to the collector, which makes their texts."""
        if self.finished:
            self.groups.add(self.finished)
            self.finished = []

    def _is_smaller(self, rows: int) -> bool:
        """Return true if decoding `rows` rows is less work than decoding the batch, ended rows included."""
        return self.space is not None and self.space.batch_size(rows) < self.space.batch_size(len(self.rows))

    def _compact(self) -> None:
        """Drop the rows that have ended: rows at the end move into their places, the others stay where they
        are.
        """
        assert self.space is not None
        going = [index for index, row in enumerate(self.rows) if not row.ended]
        kept = len(going)
        if kept == len(self.rows):
            return
        staying = {index for index in going if index < kept}
        places = [index for index in range(kept) if index not in staying]
        movers = [index for index in going if index >= kept]
        width = max((self.rows[index].length for index in movers), default=0)
        self.space.compact(movers, places, kept, width)
        order = list(range(kept))
        for place, mover in zip(places, movers, strict=True):
            order[place] = mover
        self.rows = [self.rows[index] for index in order]
        if not self.waiting and not self.jobs:
            self.space.release_rows(kept)

    # Running out of memory

    def _give_way(self, admitting: bool) -> None:
        """Free everything and halve the rows.

        All are prefilled again, with the tokens that they have, and go on from there.
        """
        rows = len(self.live) or self.max_rows or self.total_rows
        if rows == 1 and not (admitting and self.prefill_tokens > SMALLEST_PREFILL):
            raise UserError(
                f"rollout: the device's memory does not hold one completion of up to {self.column_limit} "
                f"tokens, prompt included: "
                "lower rollout.max_completion_length or data.max_prompt_tokens, or take a smaller model or "
                "a larger device."
            )
        if admitting:
            self.prefill_tokens = max(SMALLEST_PREFILL, self.prefill_tokens // 2)
        self.max_rows = max(1, rows // 2)
        self._return_waiting()
        self._return_rows()
        self.space = None
        release_cached(self.allocator.device)
        logger.warning(
            "The rollout ran out of memory with %d rows and goes on with %d; no completion is lost. "
            "`rollout.max_rows: %d` starts so.",
            rows, self.max_rows, self.max_rows,
        )  # fmt: skip

    def _return_rows(self) -> None:
        """Make completions that decode jobs again."""
        live = [index for index, row in enumerate(self.rows) if not row.ended]
        if live:
            assert self.space is not None
            tokens, logprobs = self.space.tensors.fetch_all(
                live, max(self.rows[index].drawn for index in live)
            )
            for index, row_tokens, row_logprobs in zip(
                reversed(live), reversed(tokens), reversed(logprobs), strict=True
            ):
                row = self.rows[index]
                row.tokens, row.logprobs = row_tokens[: row.drawn], row_logprobs[: row.drawn]
                self.jobs.appendleft(Job([*self.prompts[row.prompt], *row.tokens], [row]))
        self.rows = []

    def _return_waiting(self) -> None:
        """Make completions jobs again whose prompts are prefilled, but which have not started; free the
        prefill's memory.
        """
        together: dict[int, list[Row]] = {}
        for row in self.waiting:
            together.setdefault(row.place, []).append(row)
        for rows in reversed(together.values()):
            self.jobs.appendleft(Job([*self.prompts[rows[0].prompt], *rows[0].tokens], rows))
        self.waiting, self.prefilled = [], None
