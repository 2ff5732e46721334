"""The rows of supervised training: made once, shared by the processes, and counted as steps."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from datasets import Dataset, load_from_disk

from r1rl.compute.distributed import from_main_process
from r1rl.errors import UserError

Found = TypeVar("Found")
Recipe = TypeVar("Recipe", bound=Any)
"""A recipe with `batch_size`, `epochs` and `max_steps`: a dataclass."""


def check_batch(batch_size: int, micro_batch_size: int, num_processes: int) -> None:
    """Refuse a batch that can't be shared out evenly among the processes."""
    unit = num_processes * micro_batch_size
    if batch_size % unit:
        raise UserError(
            f"batch_size is {batch_size}, which {num_processes} processes x micro_batch_size "
            f"{micro_batch_size} do not divide: "
            f"make it a multiple of {unit}, or start another number of processes."
        )


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Rows that the main process has made, for all processes."""

    count: int
    made: list[Dataset]
    """The rows, in the main process; nothing elsewhere."""

    @classmethod
    def make(
        cls, accelerator: Accelerator, make: Callable[[], tuple[Dataset, Found]]
    ) -> tuple[SharedRows, Found]:
        """Have the main process make the rows; return them, and what else it found, in every process."""
        made: list[Dataset] = []

        def make_and_keep() -> tuple[int, Found]:
            rows, found = make()
            made.append(rows)
            return len(rows), found

        count, found = from_main_process(accelerator, make_and_keep)
        return cls(count, made), found

    def share(self, accelerator: Accelerator, folder: Path) -> Dataset:
        """Return the rows in every process, read from a file of the main process so that they are in memory
        once.
        """
        if accelerator.num_processes == 1:
            return self.made[0]
        if accelerator.is_main_process:
            self.made[0].save_to_disk(str(folder))
        accelerator.wait_for_everyone()
        rows = load_from_disk(str(folder))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            shutil.rmtree(folder)  # the mapped memory stays
        return rows


def with_max_steps(recipe: Recipe, num_rows: int) -> Recipe:
    """Return the recipe with the optimizer steps that its epochs need, unless it says how many; the last step
    may reach into the next epoch.
    """
    steps = math.ceil(recipe.epochs * num_rows / recipe.batch_size - 1e-9)
    return replace(recipe, max_steps=recipe.max_steps or steps)
