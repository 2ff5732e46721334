"""The few things that processes tell each other. With one process every function returns its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

T = TypeVar("T")


def own_share(accelerator: Accelerator, items: Sequence[T]) -> list[T]:
    """This process's items: every `num_processes`-th one, so that process r of W holds slots r, r + W, ..."""
    return list(items[accelerator.process_index :: accelerator.num_processes])


def gather_shares(accelerator: Accelerator, share: list[T]) -> list[T]:
    """The inverse of `own_share` on every process. Shares may differ by one in length; items are pickled."""
    if accelerator.num_processes == 1:
        return list(share)
    shares: list[list[T]] = gather_object([share])
    merged = [item for group in zip(*shares, strict=False) for item in group]
    shortest = min(len(one) for one in shares)
    return merged + [one[shortest] for one in shares if len(one) > shortest]


def sum_over_processes(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Elementwise sum over processes; the input is not changed."""
    return accelerator.reduce(values, reduction="sum") if accelerator.num_processes > 1 else values


def max_over_processes(accelerator: Accelerator, value: int) -> int:
    """The largest value that any process has."""
    if accelerator.num_processes == 1:
        return value
    return int(accelerator.gather(torch.tensor([value], device=accelerator.device)).max())
