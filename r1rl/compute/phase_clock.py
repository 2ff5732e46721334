"""The time that the phases of a training step take, in this process and in the slowest one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from r1rl.compute.distributed import reduce_max


class PhaseClock:
    """The clock of one step. `seconds` holds this process's time for each phase and may be corrected before
    `slowest` is asked.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the time of a phase, with the work that it left for the GPU; several phases of one name add
        up.
        """
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            # Not the whole device: another thread may be sampling, or capturing a step, which that would
            # spoil.
            torch.cuda.current_stream().synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def split(self, phase: str, part: str, seconds: float) -> None:
        """Count so many of a phase's seconds as those of its part `part`, under a name of their own."""
        self.seconds[phase] -= seconds
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def stop(self) -> float:
        """End the step, and return its seconds, which are also its phase `step`."""
        self.seconds["step"] = time.perf_counter() - self._started
        return self.seconds["step"]

    def slowest(self) -> dict[str, float]:
        """Return each phase's time in the slowest process, which is the cost of a step. Every process must
        call it.
        """
        values = reduce_max(self.accelerator, torch.tensor(list(self.seconds.values()), dtype=torch.float64))
        return dict(zip(self.seconds, values.tolist(), strict=True))
