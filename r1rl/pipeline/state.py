"""The memory of a pipeline about its stages, in pipeline.json, and the lock by which only one pipeline works
in a folder.

The file is replaced in one move after every change, so that a process that is killed leaves the old or the
new one, never half of it. What a stage did is on disk before the file says so; what the file does not know
yet is found in the stage's folder (`r1rl.pipeline.plan`).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from r1rl.errors import UserError
from r1rl.pipeline.stage import Stage
from r1rl.runs.run_directory import RunDirectory

STATE = "pipeline.json"
LOCK = ".lock"
SET_ASIDE = "set-aside"


@dataclass(slots=True)
class Record:
    """The facts that are known of one stage."""

    state: Literal["running", "interrupted", "failed", "finished"]
    """The state of its last attempt. "running": a process works on it, or the pipeline was killed meanwhile.
    """
    fingerprint: str
    inputs: dict[str, Any]
    files: dict[str, str]
    """Paths of those inputs that are hashes of files."""
    started: str
    """Time (UTC) of the first attempt."""
    attempts: int = 1
    """The number of times that its command was started for these inputs."""
    seconds: float = 0.0
    """Seconds over all attempts."""
    former_seconds: float | None = None
    """Seconds of the last time that the stage was finished, whatever its inputs were."""
    finished: str | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    """Path of each output, relative to the stage's folder."""
    summary: dict[str, Any] = field(default_factory=dict)
    """The summary.json that the command left."""
    revision: str = ""
    """The version of r1rl and its git commit."""


class PipelineState:
    """The records of a pipeline's stages and the files that belong to all of them."""

    def __init__(self, folder: Path, recipe_path: str = "") -> None:
        self.folder = folder
        self.recipe_path = recipe_path
        self.path = folder / STATE
        self.records: dict[str, Record] = {}

    @classmethod
    def read(cls, folder: Path, recipe_path: Path) -> PipelineState:
        """Read the state as it was written last; it is empty for a folder that no pipeline has worked in.

        Raises UserError for a folder that something else made, and for a file that this version can't read.
        """
        state = cls(folder, str(recipe_path))
        if not state.path.is_file():
            others = (
                [path.name for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []
            )
            if others:
                raise UserError(
                    f"{folder} exists and was not made by r1rl pipeline (it holds {others[0]}): choose "
                    f"another run_name."
                )
            return state
        try:
            content = json.loads(state.path.read_text(encoding="utf-8"))
            state.records = {name: Record(**record) for name, record in content["stages"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{state.path} can't be read ({error}): another version of r1rl wrote it, or a hand changed "
                f"it."
            ) from error
        return state

    def save(self) -> None:
        """Write pipeline.json."""
        stages = {name: asdict(record) for name, record in self.records.items()}
        RunDirectory(self.folder).write_json(self.path, {"recipe": self.recipe_path, "stages": stages})

    def log_path(self, stage: Stage) -> Path:
        """Return the file that keeps what a stage says while it is not finished: its folder must be empty
        when its command starts.
        """
        return self.folder / f"{stage.name}.log"

    def set_aside(self, stage: Stage) -> Path | None:
        """Move what a stage left to set-aside/<stage>-<number> and return that; None if it left nothing."""
        log = self.log_path(stage)
        if not stage.folder.is_dir() and not log.is_file():
            return None
        number = 1
        while (place := self.folder / SET_ASIDE / f"{stage.name}-{number}").exists():
            number += 1
        place.parent.mkdir(exist_ok=True)
        if stage.folder.is_dir():
            stage.folder.rename(place)
        else:
            place.mkdir()
        if log.is_file():
            log.rename(place / "stage.log")
        return place


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other pipelines out of the folder. Raises UserError if one is at work; the lock of a killed
    process is free.

    The lock belongs to the open file of this process, not to the file's existence: it ends with the process,
    however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "an unknown process"
            raise UserError(
                f"another r1rl pipeline is at work in {folder} ({owner}): wait for it, or choose another "
                f"run_name."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
