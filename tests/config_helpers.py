"""Loading a recipe from text, for the tests of r1rl.config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from r1rl.config.load import load_recipe
from r1rl.errors import RecipeError

MINIMAL = """\
run_name: test
data: {source: countdown}
rewards:
  - function: countdown
"""


def load(path: Path, text: str, *overrides: str, command: str = "grpo") -> Any:
    """Write the text to the path and load it as a recipe of the command."""
    path.write_text(text, encoding="utf-8")
    return load_recipe(command, path, overrides)


def message(path: Path, text: str, *overrides: str, command: str = "grpo") -> str:
    """Return the message that a user reads who loads this text; fail if it is a valid recipe."""
    with pytest.raises(RecipeError) as caught:
        load(path, text, *overrides, command=command)
    return str(caught.value)
