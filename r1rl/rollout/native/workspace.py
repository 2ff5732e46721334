"""The memory that rows decode in, and the decode step that works on it.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1rl.compute.graphs import StepGraphs, batch_bucket, width_bucket
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.cache import RowCache
from r1rl.rollout.native.forward import PLAIN, Prefilled, decode_step, start_rows
from r1rl.rollout.native.method import StepMethod
from r1rl.rollout.native.rows import Row, RowTensors


class Workspace:
    """The cache and the tensors of the rows. Nothing is allocated once the method has captured its steps."""

    def __init__(self, cache: RowCache, tensors: RowTensors, method: StepMethod = PLAIN) -> None:
        self.cache = cache
        self.tensors = tensors
        self.method = method
        self.graphs = None if method.capture is None else StepGraphs(method.capture)

    @property
    def bytes(self) -> int:
        """The memory of the cache, which is most of it."""
        return self.cache.bytes

    def fits(self, rows: int, columns: int, completion_length: int, keep_seen: bool) -> bool:
        """Return true if so many rows of that length can decode in it without its tensors being made anew."""
        return (
            self.cache.row_capacity >= rows
            and self.cache.columns >= columns
            and self.tensors.completion_length >= completion_length
            and (self.tensors.seen_RV is not None) == keep_seen
        )

    def batch_size(self, rows: int) -> int:
        """Return how many rows a step computes when `rows` are in use."""
        return rows if self.graphs is None else min(batch_bucket(rows), self.cache.row_capacity)

    def start(
        self,
        first: int,
        rows: Sequence[Row],
        prefilled: Prefilled,
        keys: Sequence[int],
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
    ) -> None:
        """Add rows after the first `first` ones and draw their first token.

        It can be repeated after it ran out of memory.
        """
        places = [row.place for row in rows]
        self.cache.rows = first
        start_rows(self.cache, prefilled, places)
        self.tensors.start(first, rows, keys, prompts)
        logits_RV = prefilled.logits_PV[torch.tensor(places, device=prefilled.logits_PV.device)]
        self.tensors.draw(slice(first, first + len(rows)), logits_RV, sampling)

    def step(self, model: PreTrainedModel, sampling: Sampling, rows: int, width: int) -> None:
        """Feed the token that each of the first `rows` rows drew last, and draw the next.

        `width`: columns in use by then. It can be repeated after it ran out of memory.
        """
        if self.graphs is None:
            self._step(model, sampling, rows, width)
            return
        rows = self.batch_size(rows)
        width = (
            min(width_bucket(width), self.cache.columns)
            if self.method.reads_whole_rows
            else self.cache.columns
        )
        self.graphs.run((rows, width, sampling.law), partial(self._step, model, sampling, rows, width))

    def _step(self, model: PreTrainedModel, sampling: Sampling, rows: int, width: int) -> None:
        tokens_R, positions_R = self.tensors.last_R[:rows], self.tensors.positions_R[:rows]
        logits_RV = decode_step(model, self.cache, tokens_R, positions_R, width, self.method)
        self.method.draw(self.tensors, slice(0, rows), logits_RV, sampling)

    def compact(self, sources: Sequence[int], destinations: Sequence[int], rows: int, width: int) -> None:
        """Keep the first `rows` rows after moving row `sources[i]` to `destinations[i]`; `width` columns are
        in use.
        """
        self.cache.compact(sources, destinations, rows, width)
        self.tensors.compact(sources, destinations, rows)

    def release_rows(self, rows: int) -> None:
        """Let the next growth free all but `rows` rows, unless captured steps refer to them."""
        if self.graphs is None:
            self.cache.row_capacity = rows

    def reset(self, may_end_V: Tensor) -> None:
        """Make it ready for another rollout."""
        self.cache.rows = 0
        self.tensors.compact([], [], 0)
        self.tensors.may_end_V.copy_(may_end_V)
