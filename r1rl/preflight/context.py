"""The surroundings of a check, and the parts of a recipe that is made of other recipes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1rl.config.awaited import Awaited
from r1rl.memory.work import Launch


@dataclass(frozen=True, slots=True)
class CheckContext:
    """The facts beside a recipe that its check and its memory estimate depend on."""

    recipe_path: Path
    launch: Launch
    launch_source: str
    """The place that the launch was read from, in words."""
    awaited: Awaited = field(default_factory=dict)
    """The keys whose files do not exist yet, and for each the reason. A model among them has been replaced by
    `r1rl.config.awaited.AWAITED_MODEL`.
    """
    model_config: str | None = None
    """A config.json that stands in for the model's own."""


@dataclass(frozen=True, slots=True)
class Part:
    """One recipe of a recipe that is made of several, such as a stage of a pipeline."""

    name: str
    """The words that an error of this part begins with."""
    title: str
    """The heading of its findings."""
    recipe: Any
    context: CheckContext
