"""The folders that ship beside the package: built-in rewards and recipes, from a checkout or from an installed wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from r1rl.errors import UserError

PACKAGE = Path(__file__).resolve().parent


def bundled_path(name: Literal["rewards", "recipes"]) -> Path:
    """The folder `rewards/` or `recipes/`: the checkout's own, else the copy that the wheel carries in `r1rl/_bundled/`."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    installed = PACKAGE / "_bundled" / name
    if installed.is_dir():
        return installed
    raise UserError(f"This installation of r1rl has no {name} folder (looked in {checkout / name} and {installed}): install it again.")
