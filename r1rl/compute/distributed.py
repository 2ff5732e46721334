"""The few things that processes tell each other. With one process every function returns its input."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from torch import Tensor

from r1rl.errors import UserError

T = TypeVar("T")


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether the model is sharded by FSDP2, so that each process has a part of weights, gradients and
    optimizer.
    """
    return accelerator.distributed_type is DistributedType.FSDP


def own_share(accelerator: Accelerator, items: Sequence[T]) -> list[T]:
    """Return this process's items: every `num_processes`-th one, so that process r of W holds slots r, r + W,
    ...
    """
    return list(items[accelerator.process_index :: accelerator.num_processes])


def gather_shares(accelerator: Accelerator, share: Sequence[T]) -> list[T]:
    """Return on every process all items that `own_share` distributed, in their order.

    Items are pickled; shares may differ by one in length.
    """
    if accelerator.num_processes == 1:
        return list(share)
    shares: list[list[T]] = gather_object([list(share)])
    longest = max(len(one) for one in shares)
    return [one[place] for place in range(longest) for one in shares if place < len(one)]


def from_main_process(accelerator: Accelerator, make: Callable[[], T]) -> T:
    """Return on every process the result of `make` in the main process.

    A `UserError` that it raises there is raised everywhere.
    """
    made: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            made[0] = make()
        except UserError as error:
            made[1] = error
    if accelerator.num_processes > 1:
        broadcast_object_list(made)
    if made[1] is not None:
        raise made[1]
    return made[0]


def reduce_sum(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Return the elementwise sum over processes, on the device of the input (the transport may be a GPU).

    The input is not changed.
    """
    return _reduce(accelerator, values, torch.distributed.ReduceOp.SUM)


def reduce_max(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Return the elementwise maximum over processes, on the device of the input, which is not changed."""
    return _reduce(accelerator, values, torch.distributed.ReduceOp.MAX)


def max_over_processes(accelerator: Accelerator, value: int) -> int:
    """Return the largest value that any process has."""
    return int(reduce_max(accelerator, torch.tensor(value)))


def _reduce(
    accelerator: Accelerator, values: Tensor, operation: torch.distributed.ReduceOp.RedOpType
) -> Tensor:
    if accelerator.num_processes == 1:
        return values
    moved = values.to(accelerator.device, copy=True)
    torch.distributed.all_reduce(moved, op=operation)
    return moved.to(values.device)


def leave_together(accelerator: Accelerator) -> None:
    """End a job: close the trackers, and let no process leave while another still needs its connections.

    Gloo's threads let go of the last exchange shortly after it, for which they need the interpreter. A
    process that tears the group down at once, holding the interpreter, waits for them forever; so it pauses
    for a moment.
    """
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        time.sleep(0.2)
    accelerator.end_training()
