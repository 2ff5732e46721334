"""The measured speed of the machine: operations a second of a large matrix product, bytes a second of a large
copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of a square matrix product."""
    size = 8192 if device.type == "cuda" else 768
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2.0 * size**3 / best_seconds(lambda: left @ right)


def measured_bandwidth(device: torch.device) -> float:
    """Return the bytes a second that a copy reads and writes."""
    count = 2**30 if device.type == "cuda" else 2**25
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * count / best_seconds(lambda: target.copy_(source))


def best_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest time of several runs, after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        started = _now()
        work()
        seconds.append(_now() - started)
    return min(seconds[1:])


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
