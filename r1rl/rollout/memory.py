"""How much memory a rollout may take."""

from __future__ import annotations

import os
import sys

import torch

SHARE = 0.8
"""Of the free memory; the rest is for activations, and for the layer that is copied while the cache grows."""
LOGITS_BYTES = 32
"""Per row and vocabulary entry: float32 logits, probabilities and the sorted copies of top-p."""


def rows_that_fit(bytes_per_row: int, vocabulary: int, device: torch.device) -> int:
    """How many rows of this cache size, with their logits, fit into free memory; at least one."""
    return max(1, int(free_bytes(device) * SHARE) // (bytes_per_row + LOGITS_BYTES * vocabulary))


def free_bytes(device: torch.device) -> int:
    """Memory that can be allocated now, including what torch's allocator holds without using it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize
