"""The number of rows that decode at once, and the memory that they decode in.

A row takes its share of the cache, known exactly once a prompt has been prefilled, and its share of a decode
step's logits and activations, measured on a few rows where the device counts its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1rl.compute.graphs import batch_bucket, width_bucket
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.cache import RowCache
from r1rl.rollout.native.forward import PLAIN, Prefilled, prefill
from r1rl.rollout.native.memory import (
    KEEP_SHARE,
    LOGITS_BYTES,
    SHARE,
    Cost,
    PeakMeter,
    free_bytes,
    measure_cost,
    release_cached,
    total_bytes,
)
from r1rl.rollout.native.method import StepMethod
from r1rl.rollout.native.rows import Row, RowTensors
from r1rl.rollout.native.workspace import Workspace
from r1rl.rollout.stopping import Stopping

TRIAL_ROWS = (8, 40)
"""The numbers of rows whose decode step is measured."""


class Allocator:
    """The maker of an engine's workspaces.

    One whose steps are captured is kept for the next rollout, if it is small.
    """

    def __init__(self, device: torch.device, max_rows: int, method: StepMethod = PLAIN) -> None:
        """Serve one engine. `max_rows` 0: as many as fit. `method`: of decode steps."""
        self.device = device
        self.max_rows = max_rows
        self.method = method
        self._kept: Workspace | None = None
        self._prefill_bytes = 0
        self._step_costs: dict[tuple[object, ...], Cost] = {}

    def prefill(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], chunk_tokens: int
    ) -> Prefilled:
        """Prefill prompts, see `r1rl.rollout.native.forward.prefill`.

        What it took is remembered, since later prefills run beside a full cache.
        """
        with self.meter() as meter:
            prefilled = prefill(model, prompts, chunk_tokens)
        self._prefill_bytes = max(self._prefill_bytes, meter.peak)
        return prefilled

    def meter(self) -> PeakMeter:
        """Return a meter of the engine's device."""
        return PeakMeter(self.device)

    def make(
        self,
        model: PreTrainedModel,
        prefilled: Prefilled,
        wanted: int,
        column_limit: int,
        sampling: Sampling,
        stopping: Stopping,
    ) -> tuple[Workspace, int]:
        """Return a workspace for rows of up to `column_limit` tokens, and how many of the `wanted` rows may
        use it at once.
        """
        keep_seen = sampling.repetition_penalty != 1.0
        rows = min(wanted, self.max_rows or wanted)
        kept, self._kept = self._kept, None
        if kept is not None and kept.fits(rows, column_limit, sampling.max_completion_length, keep_seen):
            kept.reset(stopping.may_end_V)
            return kept, rows
        if kept is not None:
            del kept
            release_cached(self.device)
        if not self.max_rows:
            rows = min(rows, self._rows_that_fit(model, prefilled, column_limit, sampling, stopping))
        return self.make_space(rows, column_limit, sampling, stopping.may_end_V.to(self.device)), rows

    def make_space(self, rows: int, column_limit: int, sampling: Sampling, may_end_V: Tensor) -> Workspace:
        """Return a new workspace for so many rows."""
        if self.method.capture is None:
            cache = RowCache(rows, column_limit)
        else:
            # Captured steps refer to the buffers' addresses, so these have their full size from the start.
            rows = min(batch_bucket(rows), self.max_rows or batch_bucket(rows))
            cache = RowCache(rows, width_bucket(column_limit))
            cache.reserve(cache.column_limit)
        tensors = RowTensors(
            rows, sampling.max_completion_length, may_end_V, sampling.repetition_penalty != 1.0
        )
        return Workspace(cache, tensors, self.method)

    def give_back(self, space: Workspace) -> None:
        """Take a workspace back after its rollout: keep it if that pays and takes little, else free its
        memory.
        """
        if space.graphs is not None and space.bytes <= KEEP_SHARE * total_bytes(self.device):
            self._kept = space

    def forget(self) -> None:
        """Free the workspace that was kept: the weights that its captured steps read have moved."""
        self._kept = None

    def _rows_that_fit(
        self,
        model: PreTrainedModel,
        prefilled: Prefilled,
        column_limit: int,
        sampling: Sampling,
        stopping: Stopping,
    ) -> int:
        law = sampling.law
        if law not in self._step_costs:
            self._step_costs[law] = self._measure_step(model, prefilled, sampling, stopping)
        # A step that is captured runs once before, in memory of its own.
        step = self._step_costs[law].times(2 if self.method.capture else 1)
        records = 24 * sampling.max_completion_length  # a token, its log-probability and its random number
        cost = step.plus(Cost(self._prefill_bytes, prefilled.cache.bytes_per_token * column_limit + records))
        return cost.rows_in(int(SHARE * free_bytes(self.device)))

    def _measure_step(
        self, model: PreTrainedModel, prefilled: Prefilled, sampling: Sampling, stopping: Stopping
    ) -> Cost:
        """Return what a decode step takes besides the cache."""
        if not self.meter().counts:
            return Cost(0, LOGITS_BYTES * prefilled.logits_PV.shape[1])
        may_end_V = stopping.may_end_V.to(self.device)
        sampling = replace(sampling, max_completion_length=2)
        length = prefilled.lengths[0]
        width = length + 2

        def step(rows: int) -> None:
            cache = RowCache(rows, width)
            cache.reserve(width)
            tensors = RowTensors(rows, 2, may_end_V, sampling.repetition_penalty != 1.0)
            space = Workspace(cache, tensors, replace(self.method, capture=None))
            space.start(0, [Row(0, 0, length, 2)] * rows, prefilled, [0] * rows, [[0]] * rows, sampling)
            space.step(model, sampling, rows, width - 1)

        measured = measure_cost(step, self.meter, *TRIAL_ROWS)
        return Cost(measured.fixed, max(0, measured.per_row - prefilled.cache.bytes_per_token * width))
