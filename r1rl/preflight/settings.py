"""Checks of settings that need neither data nor weights: the model's folder and the packages that a recipe
needs.
"""

from __future__ import annotations

import importlib.util
from difflib import get_close_matches
from pathlib import Path

from r1rl import models
from r1rl.config.schema import LoggingConfig
from r1rl.errors import RecipeError
from r1rl.text.prompts import CHAT, template_text


def check_model_folder(path: str, key: str = "model.path") -> None:
    """Refuse a path that is neither a model's folder nor a possible hub name (OWNER/NAME). Nobody asks the
    hub for the name before the model is loaded.
    """
    folder = Path(models.resolve(path))
    can_be_hub_name = (
        path not in models.EMBEDDED and path.count("/") <= 1 and not path.startswith((".", "/", "~"))
    )
    if folder.is_file():
        raise RecipeError(
            f"{key}: {folder} is a file; write a folder with a model, a hub name (OWNER/NAME) or embedded."
        )
    if (
        not folder.exists()
        and path not in models.EMBEDDED
        and (near := get_close_matches(path, models.EMBEDDED, n=1, cutoff=0.8))
    ):
        raise RecipeError(f"{key}: there is no model {path}; did you mean {near[0]}?")
    if (
        folder.is_dir()
        and (folder / models.ADAPTER_CONFIG).is_file()
        and not (folder / "config.json").is_file()
    ):
        raise RecipeError(
            f"{key}: {folder} holds a PEFT adapter and no whole model: merge it into its model first "
            f"(docs/lora.md), and write that folder."
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise RecipeError(
            f"{key}: the folder {folder} has no config.json, so it holds no model that transformers can load."
        )
    if not folder.is_dir() and not can_be_hub_name:
        raise RecipeError(
            f"{key}: there is no folder {folder} in {Path.cwd()}, and no hub name (OWNER/NAME) looks like "
            f"this."
        )


def check_template(template: str) -> None:
    """Refuse a template of `prompt.template` that is neither built in nor a file with {problem} in it."""
    if template != CHAT:
        template_text(template)


def check_trackers(logging: LoggingConfig) -> None:
    """Refuse trackers that are not installed."""
    for tracker in logging.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise RecipeError(
                f"logging.trackers names {tracker}, which is not installed: pip install 'r1rl[tracking]', "
                f"or leave it out."
            )
