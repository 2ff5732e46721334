"""The folders that ship beside the package: built-in rewards and recipes, from a checkout or from an
installed wheel.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from r1rl.errors import UserError

PACKAGE = Path(__file__).resolve().parent.parent


def bundled_path(name: Literal["rewards", "recipes"]) -> Path:
    """Return the folder `rewards/` or `recipes/`: the checkout's own, or else the copy in the wheel's
    `r1rl/_bundled/`.
    """
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    installed = PACKAGE / "_bundled" / name
    if installed.is_dir():
        return installed
    raise UserError(
        f"This installation of r1rl has no {name} folder (looked in {checkout / name} and {installed}): "
        f"install it again."
    )


def find_recipe(name: str) -> Path:
    """Return the recipe's file, from the working directory or else from the bundled recipes.

    A bundled recipe may be named `recipes/zero_rl/tiny.yaml` or `zero_rl/tiny`.
    """
    path = Path(name)
    if path.is_file():
        return path
    bundled = bundled_path("recipes")
    inside = name.removeprefix("recipes/")
    for candidate in (bundled / inside, bundled / f"{inside}.yaml"):
        if not path.is_absolute() and candidate.is_file():
            return candidate
    known = sorted(
        f"recipes/{file.relative_to(bundled)}"
        for file in bundled.rglob("*.yaml")
        if file.parent.name != "accelerate"
    )
    if path.is_dir():
        raise UserError(f"{name} is a folder; name a recipe file in it.")
    here = [
        str(path.with_name(file))
        for file in get_close_matches(path.name, _yaml_files(path.parent), n=3, cutoff=0.8)
    ]
    near = (
        here
        or get_close_matches(name, known, n=3)
        or [recipe for recipe in known if path.stem and path.stem in recipe]
    )
    folders = ", ".join(sorted({f"{Path(recipe).parent}/" for recipe in known}))
    all_of_them = (
        f"the bundled ones: {folders}, all in {bundled.parent}. Start with recipes/zero_rl/tiny.yaml"
    )
    listing = f"near it: {', '.join(near)}" if near else all_of_them
    raise UserError(f"there is no recipe {name} here or among the bundled ones; {listing}.")


def _yaml_files(folder: Path) -> list[str]:
    return (
        sorted(file.name for file in folder.iterdir() if file.suffix in (".yaml", ".yml"))
        if folder.is_dir()
        else []
    )
