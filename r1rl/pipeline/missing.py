"""Files that a stage's recipe names and that are neither there nor made by another stage: found before the
first stage starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1rl.config.load import DATA_SUFFIXES
from r1rl.config.plugins import Wanted, load_code
from r1rl.config.schema import PromptConfig
from r1rl.config.walk import walk
from r1rl.errors import RecipeError, UserError
from r1rl.pipeline.stage import Stage
from r1rl.rewards.loader import load_reward
from r1rl.text.prompts import CHAT, template_text


def check_files(recipe: Any, stage: Stage, stages: Sequence[Stage]) -> None:
    """Check that files exist. Raises RecipeError, naming stage and key, for a data file, model folder,
    template or reward that can't be found.
    """
    try:
        for key, value, kind in walk(recipe):
            made = any(
                str(value).startswith(f"{one.folder}/") or str(value) == str(one.folder) for one in stages
            )
            if (
                kind in ("any", "data")
                and isinstance(value, str)
                and not made
                and not Path(value).expanduser().exists()
            ):
                _refuse_lost_path(key, value, kind)
            if key.rpartition(".")[2] == "function":
                load_reward(value, stage.recipe_path.parent)
            elif kind == "code" and isinstance(value, str) and ":" in value:
                load_code(value, stage.recipe_path.parent, Wanted(key, lambda found: found is not None))
        for section in (getattr(recipe, name, None) for name in type(recipe).__dataclass_fields__):
            if isinstance(section, PromptConfig) and section.template != CHAT:
                template_text(section.template)
    except UserError as error:
        raise RecipeError(f"stage {stage.name} ({stage.recipe_path}): {error}") from error


def _refuse_lost_path(key: str, value: str, kind: str) -> None:
    if value.endswith(DATA_SUFFIXES) and len(value.split()) == 1:
        raise RecipeError(f"{key}: there is no file {value} in {Path.cwd()}.")
    looks_like_folder = value.startswith(("/", "./", "../", "~")) or value.count("/") > 1
    if kind == "any" and looks_like_folder and len(value.split()) == 1 and "{" not in value:
        raise RecipeError(
            f"{key}: there is no file or folder {value} in {Path.cwd()}, and no hub name (OWNER/NAME) looks "
            f"like this."
        )
