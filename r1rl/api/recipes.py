"""From what a caller in Python has for a recipe (a path, a mapping, a recipe, and changes to it) to a checked recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import yaml

from r1rl.config.bundled import find_recipe
from r1rl.config.load import dump_recipe, parse_recipe, read_recipe
from r1rl.config.nodes import RecipeLoader

RecipeLike = str | Path | Mapping[str, Any] | Any
"""A recipe's file (also a bundled one by its name, such as recipes/zero_rl/tiny.yaml), a mapping with its keys, or a
recipe that was loaded before.
"""
IN_PYTHON = "the recipe"
"""The name that messages give to a recipe without a file."""


def resolve_recipe(
    recipe: RecipeLike, changes: Mapping[str, Any], defaults: Mapping[str, Any], command: str = "check"
) -> tuple[Any, Path]:
    """Return the checked recipe and the path from which its files are looked for.

    `changes` replaces keys: dotted names, or mappings for the keys of a section, as {"rollout": {"num_prompts": 8}}.
    `defaults` are values of top-level keys that the recipe may leave out. The recipe is one of `command`, or for
    "check" of the command that knows its keys. Raises RecipeError with all errors of the recipe.
    """
    text, path = _text_of(recipe)
    try:
        written = yaml.load(text, RecipeLoader)
    except yaml.YAMLError:
        written = None  # `parse_recipe` says what is wrong
    known = written if isinstance(written, Mapping) else {}
    missing = {key: value for key, value in defaults.items() if key not in known and key not in changes}
    overrides = [f"{key}={json.dumps(value)}" for key, value in _dotted({**missing, **changes})]
    return parse_recipe(command, text, path, overrides), path


def _text_of(recipe: RecipeLike) -> tuple[str, Path]:
    if isinstance(recipe, str | Path):
        path = find_recipe(str(recipe))
        return read_recipe(path), path
    if is_dataclass(recipe) and not isinstance(recipe, type):
        return dump_recipe(recipe), Path(IN_PYTHON)
    if isinstance(recipe, Mapping):
        return yaml.safe_dump(_plain(recipe), sort_keys=False), Path(IN_PYTHON)
    raise TypeError(f"a recipe is a path, a mapping or a loaded recipe, not {type(recipe).__name__}")


def _plain(value: Any) -> Any:
    """Return the value with mappings as dicts, sequences as lists and paths as text, which YAML can write."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _dotted(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for every value that is no mapping, and for empty mappings."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(value)
