"""The token loop of the native engine.

Prompts are prefilled once, packed without padding, and their keys and values copied to the rows of their completions. The
rows decode together and the host looks at their tokens every few steps. Finished rows are dropped (the last rows move into
their places) and waiting completions start in the rows that became free.

Legend: P prompts, G completions per prompt, R rows that decode, V vocabulary, S steps between two looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1rl.rollout.cache import RowCache
from r1rl.rollout.forward import Prefilled, decode_step, prefill, start_rows
from r1rl.rollout.memory import rows_that_fit
from r1rl.rollout.requests import GroupCollector
from r1rl.rollout.sampler import sample, stream_key, uniforms
from r1rl.rollout.stopping import Stopping
from r1rl.sampling import Sampling
from r1rl.types import FinishReason

PREFILL_TOKENS = 8192
"""Prompt tokens of one prefill: enough to fill the machine, few enough that its activations are small beside the cache."""


@dataclass(slots=True)
class Row:
    """A completion that decodes. `place` is that of its prompt in the prefill that it starts from."""

    place: int
    prompt: int
    generation: int
    prompt_length: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of prompt and completion."""
        return self.prompt_length + len(self.tokens)


class Decoding:
    """The state of one call of `generate`: waiting completions, rows that decode, and their tensors on the device."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        sampling: Sampling,
        seeds: Sequence[int],
        stopping: Stopping,
        groups: GroupCollector,
        max_rows: int,
        look_every: int,
        device: torch.device,
    ) -> None:
        """`max_rows` 0: as many as fit into memory, worked out when the first prompts have shown what a token takes."""
        self.prompts = prompts
        self.num_generations = num_generations
        self.sampling = sampling
        self.seeds = seeds
        self.stopping = stopping
        self.groups = groups
        self.max_rows = max_rows
        self.look_every = look_every
        self.device = device
        self.may_end_V = stopping.may_end_V.to(device)
        self.column_limit = max(map(len, prompts), default=0) + sampling.max_completion_length
        self.queue = deque(range(len(prompts)))
        self.prefilled: Prefilled | None = None
        self.waiting: deque[Row] = deque()
        self.rows: list[Row] = []
        self.cache: RowCache | None = None
        self.keys_R = torch.zeros(0, dtype=torch.long, device=device)
        self.tokens_R = torch.zeros(0, dtype=torch.long, device=device)
        self.positions_R = torch.zeros(0, dtype=torch.long, device=device)
        """Where `tokens_R`, drawn last and not yet in the cache, belong."""
        self.logits_RV: Tensor | None = None
        self.seen_RV: Tensor | None = None

    @property
    def is_running(self) -> bool:
        """True until every completion is finished."""
        return bool(self.rows or self.waiting or self.queue)

    def advance(self, model: PreTrainedModel) -> None:
        """Draws up to `look_every` tokens per row, hands over what is finished and fills free rows."""
        self._admit(model)
        remaining = self.sampling.max_completion_length - max(len(row.tokens) for row in self.rows)
        tokens_RS, logprobs_RS = self._decode(model, min(self.look_every, remaining))
        self._look(tokens_RS, logprobs_RS)
        if self.rows:
            self._forward(model)

    # Starting completions

    def _admit(self, model: PreTrainedModel) -> None:
        """Starts waiting completions in free rows, an eighth of the rows at a time, so that prefills are worth their call."""
        while self.waiting or self.queue:
            free = self.max_rows - len(self.rows) if self.max_rows else None
            if free is not None and self.rows and free < max(1, self.max_rows // 8):
                return
            if not self.waiting:
                self._prefill(model, free)
            else:
                self._start([self.waiting.popleft() for _ in range(min(len(self.waiting), self.max_rows - len(self.rows)))])

    def _prefill(self, model: PreTrainedModel, free: int | None) -> None:
        """Computes the keys and values of the next prompts: enough for the free rows, at most PREFILL_TOKENS (but one prompt)."""
        chosen = [self.queue.popleft()]
        tokens = len(self.prompts[chosen[0]])
        while self.queue and (free is None or len(chosen) * self.num_generations < free):
            tokens += len(self.prompts[self.queue[0]])
            if tokens > PREFILL_TOKENS:
                break
            chosen.append(self.queue.popleft())
        chosen.sort(key=lambda prompt: len(self.prompts[prompt]))
        self.prefilled = prefill(model, [self.prompts[prompt] for prompt in chosen])
        self.waiting.extend(
            Row(place, prompt, generation, len(self.prompts[prompt]))
            for place, prompt in enumerate(chosen)
            for generation in range(self.num_generations)
        )
        if self.cache is None:
            total = len(self.prompts) * self.num_generations
            if not self.max_rows:
                bytes_per_row = self.prefilled.cache.bytes_per_token * self.column_limit
                self.max_rows = rows_that_fit(bytes_per_row, self.prefilled.logits_PV.shape[1], self.device)
            self.max_rows = min(self.max_rows, total)
            self.cache = RowCache(self.max_rows, self.column_limit)

    def _start(self, rows: list[Row]) -> None:
        """Makes these completions, all of the last prefill, rows of the batch."""
        assert self.prefilled is not None and self.cache is not None
        places = [row.place for row in rows]
        start_rows(self.cache, self.prefilled, places)
        self.rows.extend(rows)
        keys_R = torch.tensor([stream_key(self.seeds[row.prompt], row.generation) for row in rows], device=self.device)
        positions_R = torch.tensor([row.prompt_length - 1 for row in rows], device=self.device)
        logits_RV = self.prefilled.logits_PV[torch.tensor(places, device=self.device)]
        self.keys_R = torch.cat([self.keys_R, keys_R])
        self.positions_R = torch.cat([self.positions_R, positions_R])
        self.tokens_R = torch.cat([self.tokens_R, torch.zeros_like(positions_R)])
        self.logits_RV = logits_RV if self.logits_RV is None else torch.cat([self.logits_RV, logits_RV])
        if self.sampling.repetition_penalty != 1.0:
            seen_RV = torch.zeros(logits_RV.shape, dtype=torch.bool, device=self.device)
            for index, row in enumerate(rows):
                seen_RV[index, torch.tensor(self.prompts[row.prompt], device=self.device)] = True
            self.seen_RV = seen_RV if self.seen_RV is None else torch.cat([self.seen_RV, seen_RV])
        if not self.waiting:
            self.prefilled = None

    # Decoding

    def _decode(self, model: PreTrainedModel, steps: int) -> tuple[Tensor, Tensor]:
        """Draws `steps` tokens per row; the last is not yet fed to the model, since its row may have ended."""
        first_R = torch.tensor([len(row.tokens) for row in self.rows], device=self.device)
        uniforms_RS = uniforms(self.keys_R, first_R, steps)
        width = max(row.length for row in self.rows)
        tokens, logprobs = [], []
        for step in range(steps):
            if step:
                self._step(model, width + step)
            assert self.logits_RV is not None
            self.tokens_R, logprobs_R = sample(self.logits_RV, self.sampling, uniforms_RS[:, step], self.seen_RV)
            self.positions_R = self.positions_R + 1
            if self.seen_RV is not None:
                self.seen_RV.scatter_(1, self.tokens_R[:, None], True)
            tokens.append(self.tokens_R)
            logprobs.append(logprobs_R)
        return torch.stack(tokens, 1), torch.stack(logprobs, 1)

    def _step(self, model: PreTrainedModel, width: int) -> None:
        """Feeds the tokens drawn last."""
        assert self.cache is not None
        self.logits_RV = decode_step(model, self.cache, self.tokens_R, self.positions_R, width)

    def _forward(self, model: PreTrainedModel) -> None:
        """The forward after a look: only rows that go on."""
        self._step(model, max(row.length for row in self.rows))

    # Ending completions

    def _look(self, tokens_RS: Tensor, logprobs_RS: Tensor) -> None:
        """Hands the new tokens to their rows, and the completions that have ended to the collector."""
        flagged = self.may_end_V[tokens_RS].any(1).tolist()
        finished, going = [], []
        for index, (row, tokens, logprobs) in enumerate(zip(self.rows, tokens_RS.tolist(), logprobs_RS.tolist(), strict=True)):
            known = len(row.tokens)
            row.tokens += tokens
            row.logprobs += logprobs
            end = self.stopping.end(row.tokens, known) if flagged[index] else None
            if end is None and len(row.tokens) == self.sampling.max_completion_length:
                end = len(row.tokens), FinishReason.LENGTH
            if end is None:
                going.append(index)
            else:
                finished.append((row.prompt, row.generation, row.tokens[: end[0]], row.logprobs[: end[0]], end[1]))
        if finished:
            self._drop(going)
            self.groups.add(finished)

    def _drop(self, going: list[int]) -> None:
        """Keeps the rows `going`: those at the end move into the places that became free, the others stay where they are."""
        assert self.cache is not None
        kept = len(going)
        staying = {index for index in going if index < kept}
        places = [index for index in range(kept) if index not in staying]
        movers = [index for index in going if index >= kept]
        width = max((self.rows[index].length for index in movers), default=0)
        self.cache.compact(movers, places, kept, width)
        if not self.waiting and not self.queue:
            self.cache.row_capacity = kept
        order = list(range(kept))
        for place, mover in zip(places, movers, strict=True):
            order[place] = mover
        self.rows = [self.rows[index] for index in order]
        order_R = torch.tensor(order, dtype=torch.long, device=self.device)
        self.keys_R, self.tokens_R, self.positions_R = self.keys_R[order_R], self.tokens_R[order_R], self.positions_R[order_R]
        self.seen_RV = None if self.seen_RV is None else self.seen_RV[order_R]
        self.logits_RV = None
