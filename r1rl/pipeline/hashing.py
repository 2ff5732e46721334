"""The inputs of a stage's result, as one value for each key of its recipe: settings as they are, files by
their content.

    inputs of a stage    command              "grpo"
                         max_steps            60
                         model.path           "sha256:3f0c..."     the weights, configuration and tokenizer
                         rewards.0.function   "my_reward.py:brevity sha256:91ab..."
                         stage cold_start     "sha256:77d0..."     the fingerprint of a stage that it needs
    fingerprint          SHA-256 of all that

A file that is moved or renamed is the same input; one whose content changes is another. Three things are no
inputs: the place of the output, the launch of the processes, and the version of r1rl. The last is recorded
with each stage instead: were it an input, each commit, also one that changes a help text, would run days of
training again. A hub name is its text and its revision: pin the revision.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from r1rl import models
from r1rl.config.load import DATA_SUFFIXES
from r1rl.config.walk import walk
from r1rl.errors import RecipeError
from r1rl.pipeline.recipe import PLACED
from r1rl.runs.run_directory import RunDirectory

HASH = "sha256:"
SETTLED_SECONDS = 2.0
"""Seconds after its last change from which on a file's hash is remembered: another change within the clock's
resolution would go unseen.
"""
NOT_CONTENT = (".md",)
"""Suffixes of files in a model's folder that say something about the model and are no part of it."""


class Hashes:
    """Hashes of files, remembered by size and time of change in a file of their own."""

    def __init__(self, memory: Path | None = None) -> None:
        self.memory = memory
        self.known: dict[str, list[Any]] = {}
        if memory is not None and memory.is_file():
            self.known = json.loads(memory.read_text(encoding="utf-8"))

    def of(self, path: Path) -> str:
        """Return the hash of a file, or of the files of a folder and their names; folders and hidden files in
        it are left out.
        """
        if path.is_file():
            return HASH + self._file(path)
        files = sorted(
            file
            for file in path.iterdir()
            if file.is_file() and file.name[0] != "." and file.suffix not in NOT_CONTENT
        )
        listing = "".join(f"{file.name}\0{self._file(file)}\n" for file in files)
        return HASH + hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()

    def save(self) -> None:
        """Keep what was hashed for the next time."""
        if self.memory is not None:
            RunDirectory(self.memory.parent).write_json(self.memory, self.known)

    def _file(self, path: Path) -> str:
        key, stat = str(path.resolve()), path.stat()
        version = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        if key in self.known and self.known[key][:3] == version:
            return str(self.known[key][3])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.known.pop(key, None)
        if time.time() - stat.st_mtime > SETTLED_SECONDS:
            self.known[key] = [*version, digest]
        return digest


@dataclasses.dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a stage, and the files and folders behind those that are hashes."""

    values: dict[str, Any]
    files: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """One hash of all inputs."""
        return (
            HASH + hashlib.sha256(json.dumps(self.values, sort_keys=True, default=str).encode()).hexdigest()
        )


def recipe_inputs(command: str, recipe: Any, recipe_path: Path, hashes: Hashes) -> Inputs:
    """Return the inputs that a recipe names. Raises RecipeError for a run directory without a checkpoint."""
    values: dict[str, Any] = {"command": command}
    files: dict[str, str] = {}
    for key, value, kind in walk(recipe):
        if key in PLACED:
            continue
        values[key] = value
        file = _file_behind(key, value, kind, recipe_path.parent)
        if file is not None:
            prefix = f"{file.name}:{value.rpartition(':')[2]} " if kind == "code" else ""
            values[key] = prefix + hashes.of(file)
            files[key] = str(file)
    return Inputs(values, files)


def _file_behind(key: str, value: Any, kind: str | None, base_dir: Path) -> Path | None:
    """Return the file or folder that a value names, None if it names none."""
    if not isinstance(value, str) or not value or "\n" in value:
        return None
    if kind == "code":
        place = value.rpartition(":")[0]
        return _existing(place, base_dir) if place.endswith(".py") else None
    if kind == "any":
        try:
            return _existing(models.resolve(value), base_dir)
        except RecipeError as error:
            raise RecipeError(f"{key}: {error}") from error
    if kind == "data" or (kind == "free" and "/" not in value):
        return _existing(value, base_dir) if value.endswith(DATA_SUFFIXES) else None
    return _existing(models.resolve(value), base_dir) if kind == "free" else None


def _existing(path: str, base_dir: Path) -> Path | None:
    """Return the path, relative to the working directory or else to the recipe's folder, if something is
    there.
    """
    for candidate in (Path(path).expanduser(), base_dir / path):
        try:
            if candidate.exists():
                return candidate
        except OSError:  # a text too long for a file's name
            return None
    return None
