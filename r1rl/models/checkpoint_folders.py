"""The checkpoints of a run directory, read off the names of folders alone.

A whole checkpoint is `runs/<name>/checkpoints/step-000100/`. It is written under another name and renamed
when it is finished.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

CHECKPOINT_NAME = re.compile(r"step-\d+")
CHECKPOINTS = "checkpoints"
"""The folder of a run directory that they are in."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder in which the checkpoint of a step is kept."""
    return folder / f"step-{step:06d}"


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in a `checkpoints` folder, or None."""
    return max(whole_checkpoints(folder), key=step_of, default=None)


def whole_checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints in a folder, oldest first."""
    return sorted(
        (path for path in folder.glob("step-*") if CHECKPOINT_NAME.fullmatch(path.name)), key=step_of
    )


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("step-"))


def set_aside_after(folder: Path, step: int) -> list[Path]:
    """Rename the checkpoints of later steps, when a run goes back to an earlier one: they are kept, but no
    longer its own.
    """
    later = [path for path in whole_checkpoints(folder) if step_of(path) > step]
    for path in later:
        shutil.rmtree(path.with_suffix(".set-aside"), ignore_errors=True)
        path.rename(path.with_suffix(".set-aside"))
    return later
