"""`r1rl check RECIPE`: look at everything that needs no weights, and estimate the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from r1rl.check.recipe import check_one
from r1rl.config.commands import command_of, resolve
from r1rl.errors import UserError
from r1rl.memory.launch import find_launch
from r1rl.preflight.context import CheckContext, Part

FILE_WIDTH = 140
"""Columns of the output where it is printed to a file."""


def run(
    recipe: Any,
    recipe_path: Path,
    gpus: str | None = None,
    accelerate: str | None = None,
    model_config: str | None = None,
) -> None:
    """Check a recipe of any command and print what was found. Raises a UserError for what would keep its
    command from starting.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, FILE_WIDTH))
    command = command_of(recipe)
    context = CheckContext(
        recipe_path, *find_launch(recipe_path, gpus, accelerate), model_config=model_config
    )
    if command.parts is None:
        console.print(f"[bold]{escape(str(recipe_path))}[/]")
        check_one(console, recipe, context)
    else:
        for part in resolve(command.parts)(recipe, context):
            check_part(console, part)
    console.print(f"Ready: r1rl {command.name} {escape(str(recipe_path))}")


def check_part(console: Console, part: Part) -> None:
    """Check one part of a recipe that is made of several. Raises a UserError that names the part."""
    console.rule(Text(part.title), align="left")
    try:
        check_one(console, part.recipe, part.context)
    except UserError as error:
        raise type(error)(f"{part.name}: {error}") from error
