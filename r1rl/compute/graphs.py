"""Decode steps that are captured once and replayed: on a GPU, launching a model's operations takes longer
than computing them.

A step is captured for a number of rows and a number of cache columns, both rounded up to a bucket, so that
few captures serve all that occur. `Capture` says what a step must be like; `CudaCapture` makes CUDA graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol
from weakref import WeakSet

import torch

logger = logging.getLogger(__name__)

SMALLEST_BATCH = 8
SMALLEST_WIDTH = 64
MAX_GRAPHS = 256
"""Captured steps that are kept: some hundred kilobytes each, and a rollout meets a few dozen."""


def bucket(needed: int, smallest: int, parts: int) -> int:
    """Round `needed` up: to multiples of `smallest`, and further on to `parts` steps from one power of two to
    the next.
    """
    step = max(smallest, (1 << max(needed - 1, 0).bit_length() >> 1) // parts)
    return -(-needed // step) * step


def batch_bucket(rows: int) -> int:
    """Return the rows of the captured step that decodes `rows` rows: 8, 16, ... 64, 80, 96, ...

    They are at most a quarter more than needed, or 8.
    """
    return bucket(rows, SMALLEST_BATCH, 4)


def width_bucket(columns: int) -> int:
    """Return the columns that a captured step reads if `columns` are in use: 64, 128, ... 512, 576, ...

    They are at most an eighth more than needed, or 64.
    """
    return bucket(columns, SMALLEST_WIDTH, 8)


class Capture(Protocol):
    """A function that makes a step replayable.

    The step changes tensors in place. It must not wait for the device, allocate memory that outlives it, or
    depend on anything that changes on the host: a replay does exactly what was recorded, on the same memory.
    """

    fault: str | None
    """The reason why steps can't be captured, once it is known."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Run the step once, and return a function that does it again.

        The function is a replay, or the step itself if it can't be captured. An error of the step is raised,
        and then the step has not been done.
        """
        ...


class RunAgain:
    """Captures nothing and runs the step itself each time: what a real capture is compared with."""

    fault: str | None = None

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """See `Capture`."""
        step()
        return step


class CudaCapture:
    """Captures into CUDA graphs that share a pool of memory: they run one after the other, and no result
    stays in the pool.
    """

    def __init__(self, device: torch.device, forbid_waiting: bool = False) -> None:
        """Prepare the capture of steps on a device.

        With `forbid_waiting`, a step that waits for the device, as data-dependent code does, is found before
        it spoils a capture.
        """
        self.device = device
        self.forbid_waiting = forbid_waiting
        self.fault: str | None = None
        self.stream = torch.cuda.Stream(device)
        self.graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        """The captured graphs that are still in use."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """See `Capture`. The first run is the warm-up that capturing needs: libraries and kernels are loaded
        by it.
        """
        if self.fault is not None:
            step()
            return step
        main = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(main)
        try:
            with (
                torch.cuda.stream(self.stream),
                waiting_forbidden() if self.forbid_waiting else nullcontext(),
            ):
                step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not self.forbid_waiting:
                raise
            self.fault = describe(error)
            main.wait_stream(self.stream)
            step()
            return step
        replay = self._record(step)
        main.wait_stream(self.stream)
        return replay

    def _record(self, step: Callable[[], None]) -> Callable[[], None]:
        # torch gives a pool up with the last graph that used it, and captures nothing into it from then on.
        # `others` hold theirs.
        others = list(self.graphs)
        pool = others[0].pool() if others else torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(self.stream):
                # Other threads (rewards, NCCL's watchdog) go on using the GPU meanwhile: only this thread's
                # calls are recorded.
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    step()
                finally:
                    graph.capture_end()
        except torch.OutOfMemoryError:
            return step  # where memory is too short for that as well, the next run says so
        except RuntimeError as error:
            self.fault = describe(error)
            if not self.forbid_waiting:  # past the trial, whose findings are told with the engine
                logger.warning(
                    "From here on decode steps are not captured: %s. The rollout goes on, slower.", self.fault
                )
            return step
        self.graphs.add(graph)
        return graph.replay


@contextmanager
def waiting_forbidden() -> Iterator[None]:
    """Make every operation in this context raise that makes the host wait for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def describe(error: Exception) -> str:
    """Return an error's type and the beginning of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200] or 'no message'}"


class StepGraphs:
    """The captured steps of one set of tensors."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self._replays: dict[Hashable, Callable[[], None]] = {}

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Run the step, by a replay if one with this key was captured."""
        if key in self._replays:
            self._replays[key]()
            return
        if len(self._replays) == MAX_GRAPHS:
            del self._replays[next(iter(self._replays))]
        self._replays[key] = self.capture(step)
