"""The part of a training run that each command says for itself: how its recipe is prepared, what its step is,
and what it shows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from accelerate import Accelerator

from r1rl import models
from r1rl.compute.accelerator import make_accelerator
from r1rl.monitor.curves import PANELS, Panel
from r1rl.monitor.progress import COLUMNS, Column, ShownCompletion
from r1rl.runs.contract import Measured, Prepared, RunParts, RunRecipe, StepRecord
from r1rl.runs.inputs import Given
from r1rl.runs.start import RunStart

Recipe = TypeVar("Recipe", bound=RunRecipe)
Checked = TypeVar("Checked", bound=Prepared)
Parts = TypeVar("Parts", bound=RunParts)
Result = TypeVar("Result", bound=StepRecord)


class TrainingJob(ABC, Generic[Recipe, Checked, Parts, Result]):
    """The work of a command that trains in steps; `r1rl.runs.training_run` gives it its life."""

    columns: ClassVar[Sequence[Column]] = COLUMNS
    """The figures of a step on the terminal."""
    panels: ClassVar[Sequence[Panel]] = PANELS
    """The panels of curves.png."""
    loads_with: str = "AutoModelForCausalLM"
    """The class of transformers that loads the checkpoints, or more than one."""

    def __init__(self, start: RunStart[Recipe], checked: Checked, parts: Parts) -> None:
        self.recipe = start.recipe
        self.checked = checked
        self.parts = parts
        self.state = start.state
        self.directory = start.directory
        self.accelerator = start.accelerator
        self.display = start.display
        self.trials = start.trials

    # How it is prepared

    @classmethod
    @abstractmethod
    def preflight(cls, recipe: Recipe, recipe_path: Path, given: Given) -> Checked:
        """Read the data, resolve the rewards and check all else that needs neither launch nor model."""

    @classmethod
    @abstractmethod
    def settle(
        cls, recipe: Recipe, checked: Checked, accelerator: Accelerator, given: Given
    ) -> tuple[Recipe, Checked]:
        """Check the recipe against the launch, and decide what the recipe leaves open, before there is a run
        directory.
        """

    @classmethod
    @abstractmethod
    def build(cls, start: RunStart[Recipe], checked: Checked) -> Parts:
        """Load the model (from `start.checkpoint` when a run goes on) and connect everything."""

    @classmethod
    def pinned(cls, recipe: Recipe) -> Recipe:
        """Return the recipe with a checkpoint in the place of each run directory that a model comes from."""
        return _with_model(recipe, path=models.pinned(recipe.model.path))

    @classmethod
    def make_accelerator(cls, recipe: Recipe, checked: Checked) -> Accelerator:
        """Join the launch's processes, in the recipe's precision."""
        return make_accelerator(recipe.model, recipe.logging, recipe.output_dir)

    # What it does and shows

    @abstractmethod
    def step(self) -> Result:
        """Do one step and count it in `state`."""

    @abstractmethod
    def greeting(self) -> str:
        """Say in a few sentences what the run is about to do."""

    @abstractmethod
    def completion_rows(self, result: Result) -> list[dict[str, Any]]:
        """Return this process's records for completions/step-*.jsonl, each with its `slot`."""

    @abstractmethod
    def shown_completions(self, result: Result) -> list[ShownCompletion]:
        """Return the completions that people read beside the figures."""

    @abstractmethod
    def measure(self, during: bool) -> Measured | None:
        """Measure the model as it is on held-out data; None if there is none. `during`: between two steps,
        where less data is to do. Every process calls this.
        """

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Return the figures of the held-out data for summary.json."""

    @abstractmethod
    def conclude(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Print the figures of the held-out data that a person wants to see at the end."""

    def messages(self, result: Result) -> list[str]:
        """Return sentences about what went wrong in a step."""
        return []

    def prefetched(self) -> dict[str, Any] | None:
        """Return what this process has made for the next step already, as plain values that a checkpoint
        keeps.
        """
        return None


def _with_model(recipe: Any, **changes: Any) -> Any:
    """Return the recipe, a dataclass, with other values in its section `model`."""
    return replace(recipe, model=replace(recipe.model, **changes))
