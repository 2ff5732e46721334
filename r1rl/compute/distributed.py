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
    """True under FSDP2, where each process has a part of weights, gradients and optimizer; False where each
    has the whole.
    """
    return accelerator.distributed_type is DistributedType.FSDP


def own_share(accelerator: Accelerator, items: Sequence[T]) -> list[T]:
    """This process's items: every `num_processes`-th one, so that process r of W holds slots r, r + W, ..."""
    return list(items[accelerator.process_index :: accelerator.num_processes])


def gather_shares(accelerator: Accelerator, share: Sequence[T]) -> list[T]:
    """The inverse of `own_share`, on every process. Items are pickled; shares may differ by one in length."""
    if accelerator.num_processes == 1:
        return list(share)
    shares: list[list[T]] = gather_object([list(share)])
    longest = max(len(one) for one in shares)
    return [one[place] for place in range(longest) for one in shares if place < len(one)]


def from_main_process(accelerator: Accelerator, make: Callable[[], T]) -> T:
    """What `make` returns in the main process, on every process; a UserError that it raises there is raised
    everywhere.
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
    """Elementwise sum over processes, where the input is (the transport may be a GPU); the input is not
    changed.
    """
    return _reduce(accelerator, values, torch.distributed.ReduceOp.SUM)


def reduce_max(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Elementwise maximum over processes, where the input is; the input is not changed."""
    return _reduce(accelerator, values, torch.distributed.ReduceOp.MAX)


def max_over_processes(accelerator: Accelerator, value: int) -> int:
    """The largest value that any process has."""
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
    """The end of a job: trackers are closed, and nobody leaves while another still needs its connections.

    Gloo's threads let go of the last exchange shortly after it, for which they need the interpreter. A
    process that tears the group down at once, holding the interpreter, waits for them forever; so it pauses
    for a moment.
    """
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        time.sleep(0.2)
    accelerator.end_training()
