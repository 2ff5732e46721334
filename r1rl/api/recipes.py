"""The step from a caller's recipe in Python (a path, a mapping, a recipe, and changes to it) to a checked
recipe.
"""

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
"""A recipe's file (also a bundled one by its name, such as recipes/zero_rl/tiny.yaml), a mapping with its
keys, or a recipe that was loaded before.
"""
IN_PYTHON = "the recipe"
"""The name that messages give to a recipe without a file."""


def resolve_recipe(
    recipe: RecipeLike, changes: Mapping[str, Any], defaults: Mapping[str, Any], command: str = "check"
) -> tuple[Any, Path]:
    """Return the checked recipe and the path from which its files are looked for.

    `changes` replaces keys: dotted names, or mappings for the keys of a section, as {"rollout":
    {"num_prompts": 8}}. `defaults` are values of top-level keys that the recipe may leave out. The recipe is
    one of `command`, or for "check" of the command that knows its keys. Raises RecipeError with all errors of
    the recipe.
    """
    if isinstance(recipe, Mapping):  # merged first: the keys say which command the recipe is for
        recipe, changes, defaults = _merged({**defaults, **recipe}, changes), {}, {}
    text, path = _text_of(recipe)
    written = set(_keys(text))
    missing = {key: value for key, value in defaults.items() if key not in written}
    overrides = [f"{key}={json.dumps(value)}" for key, value in _dotted({**missing, **changes})]
    return parse_recipe(command, text, path, overrides), path


def _merged(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping with changed keys; sections keep the keys that no change names."""
    merged = _plain(recipe)
    for key, value in _dotted(changes):
        *sections, last = key.split(".")
        place = merged
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return merged


def _keys(text: str) -> list[str]:
    """Return the top-level keys of a recipe; none if it can't be read, which `parse_recipe` then says."""
    try:
        written = yaml.load(text, RecipeLoader)
    except yaml.YAMLError:
        return []
    return list(written) if isinstance(written, Mapping) else []


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
