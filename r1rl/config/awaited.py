"""Files that a recipe reads and that an earlier run has yet to make: the rest is checked without them, and
they are named.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1rl.config.walk import walk

Awaited = Mapping[str, str]
"""The keys whose files do not exist yet, and for each the reason."""

MODEL_KEY = re.compile(r"(model|teacher|models\.\d+)\.path")
AWAITED_MODEL = "awaited/model"
"""The path that stands for a model that does not exist yet. It looks like a hub's name and is never looked
for.
"""


def of_earlier_runs(recipe: Any) -> dict[str, str]:
    """Return the keys that name something in the recipe's own output_dir which is not there yet."""
    folder = f"{recipe.output_dir}/"
    paths = ((key, value) for key, value, kind in walk(recipe) if kind is not None and isinstance(value, str))
    return {
        key: f"{value} is not there yet, an earlier run makes it"
        for key, value in paths
        if value.startswith(folder) and _lost(value)
    }


def without_models(recipe: Any, awaited: Awaited) -> Any:
    """Return the recipe with AWAITED_MODEL for every model that does not exist yet."""
    changed = copy.deepcopy(recipe)
    for key in awaited:
        if MODEL_KEY.fullmatch(key):
            set_key(changed, key, AWAITED_MODEL)
    return changed


def set_key(recipe: Any, key: str, value: str) -> None:
    """Set a dotted key of a recipe."""
    *parents, last = key.split(".")
    for part in parents:
        recipe = (
            recipe[int(part)]
            if isinstance(recipe, list)
            else recipe[part]
            if isinstance(recipe, dict)
            else getattr(recipe, part)
        )
    if dataclasses.is_dataclass(recipe):
        setattr(recipe, last, value)
    else:
        recipe[int(last) if isinstance(recipe, list) else last] = value


def _lost(path: str) -> bool:
    return not Path(path).expanduser().exists()
