"""Experiment trackers of a run, through accelerate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml
from accelerate import Accelerator

from r1rl.runs.contract import RunRecipe
from r1rl.runs.run_directory import RunDirectory


def start_trackers(accelerator: Accelerator, recipe: RunRecipe, directory: RunDirectory) -> None:
    """Start the trackers that the recipe names; they write into the run directory."""
    if recipe.logging.trackers:
        accelerator.project_configuration.logging_dir = str(directory.path)
        accelerator.init_trackers("r1rl", config=flatten(asdict(recipe)))


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return a recipe as `section.key: value`, the form that experiment trackers take."""
    if isinstance(tree, dict) and tree:
        return {
            name: value
            for key, child in tree.items()
            for name, value in flatten(child, f"{prefix}{key}.").items()
        }
    scalar = (
        tree
        if isinstance(tree, (int, float, str, bool))
        else yaml.safe_dump(tree, default_flow_style=True).strip()
    )
    return {prefix.removesuffix("."): scalar}
