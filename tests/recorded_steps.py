"""A CUDA graph's stand-in for machines without a GPU: records the operations of a step and replays them on
the same memory.

As with a CUDA graph, a replay knows nothing of the host: Python values are those of the recording, and every
tensor lies where it lay then. What a capture would not survive (waiting for a value, shapes that depend on
values) raises while it is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "unique_consecutive",
    "_unique2",
    "bincount",
    "item",
    "equal",
}
"""Operations whose result, or its shape, depends on values: the host has to wait for them."""
FROM_THE_HOST = {"lift_fresh", "lift_fresh_copy"}
"""Tensors made of Python values: a copy from the host's memory, which may hold something else at a replay."""


class RecordedSteps:
    """See `r1rl.compute.graphs.Capture`."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.captured = 0
        self.replayed = 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        if self.fault is not None:
            step()
            return step
        recording = Recording()
        try:
            with recording:
                step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.fault = str(error)
            step()
            return step
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            recording.replay()

        return replay


class Recording(TorchDispatchMode):
    """The operations of one run, with their arguments and results kept alive."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in WAITING or name in FROM_THE_HOST:
            raise RuntimeError(f"{name} can't be captured")
        if name in ("index", "index_put_") and any(t is not None and t.dtype is torch.bool for t in args[1]):
            raise RuntimeError("an index of booleans can't be captured")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Run the recorded operations again.

        Results that are views of an argument, or the argument itself, need no copy.
        """
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            owned = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
            for new, old in zip(tensors(again), tensors(result), strict=True):
                if old.untyped_storage().data_ptr() not in owned:
                    old.copy_(new)


def tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
