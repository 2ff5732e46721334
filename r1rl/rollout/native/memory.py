"""Memory of a rollout: how much it may take, and how much it takes, measured where the device counts it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

SHARE = 0.9
"""The share of the free memory that a rollout may take.

The rest is for fragmentation, and for the layer that is copied while the cache grows.
"""
KEEP_SHARE = 0.1
"""The share of the device's memory that a rollout may keep until the next one, so that its captured steps
need not be made again.
"""
LOGITS_BYTES = 32
"""The bytes per row and vocabulary entry where nothing counts memory: float32 logits, probabilities and the
sorted copies of top-p.
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """The bytes that a number of rows takes: `fixed + rows * per_row`."""

    fixed: int
    per_row: int

    def rows_in(self, budget: int) -> int:
        """Return how many rows a budget in bytes pays; at least one."""
        return max(1, (budget - self.fixed) // max(1, self.per_row))

    def plus(self, other: Cost) -> Cost:
        """Return the cost of both together."""
        return Cost(self.fixed + other.fixed, self.per_row + other.per_row)

    def times(self, count: int) -> Cost:
        """Return the cost of so many of it at the same time."""
        return Cost(self.fixed * count, self.per_row * count)


class PeakMeter:
    """The meter of what a block of code takes at its peak beyond what was taken before, on devices that count
    memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.counts = device.type == "cuda"
        self.peak = 0
        """The bytes; 0 where memory isn't counted."""
        self._before = 0

    def __enter__(self) -> PeakMeter:
        if self.counts:
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        if self.counts:
            self.peak = torch.cuda.max_memory_allocated(self.device) - self._before


def measure_cost(run: Callable[[int], None], meter: Callable[[], PeakMeter], small: int, large: int) -> Cost:
    """Return what `run(rows)` takes at its peak, from two numbers of rows."""
    peaks = []
    for rows in (small, large):
        with meter() as measured:
            run(rows)
        peaks.append(measured.peak)
    per_row = max(0, peaks[1] - peaks[0]) // (large - small)
    return Cost(max(0, peaks[0] - small * per_row), per_row)


def free_bytes(device: torch.device) -> int:
    """Return the memory that can be allocated now, with what torch's allocator holds without using it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize


def total_bytes(device: torch.device) -> int:
    """Return the memory of the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "cpu" and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize


def release_cached(device: torch.device) -> None:
    """Give memory that torch's allocator holds without using it back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
