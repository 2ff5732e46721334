"""`r1rl check RECIPE`: finds the command that a recipe is for, looks at everything that needs no weights, and
estimates the memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from r1rl.check.recipe import check_one
from r1rl.config.load import command_of
from r1rl.memory.launch import find_launch
from r1rl.pipeline.check import check_pipeline
from r1rl.pipeline.recipe import PipelineRecipe

FILE_WIDTH = 140
"""Columns of what is printed to a file."""


def run(
    recipe: Any,
    recipe_path: Path,
    gpus: str | None = None,
    accelerate: str | None = None,
    model_config: str | None = None,
) -> None:
    """Check a recipe and print what was found. Raises a UserError for what would keep its command from
    starting.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, FILE_WIDTH))
    launch, source = find_launch(recipe_path, gpus, accelerate)
    if isinstance(recipe, PipelineRecipe):
        check_pipeline(console, recipe, recipe_path, launch, source, model_config)
    else:
        console.print(f"[bold]{escape(str(recipe_path))}[/]")
        check_one(console, recipe, recipe_path, {}, launch, source, model_config)
    console.print(f"Ready: r1rl {command_of(recipe)} {escape(str(recipe_path))}")
