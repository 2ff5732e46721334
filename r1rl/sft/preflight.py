"""The checks of a recipe of `r1rl sft` before its model is loaded."""

from __future__ import annotations

from pathlib import Path

from r1rl.data import column_names
from r1rl.preflight.problems import read_held_out
from r1rl.preflight.settings import check_model_folder, check_template, check_trackers
from r1rl.rewards import RewardSet
from r1rl.runs.run_directory import check_writable
from r1rl.sft.recipe import SFTRecipe
from r1rl.types import Problem


def preflight(recipe: SFTRecipe, recipe_path: Path) -> tuple[list[Problem], RewardSet | None]:
    """Check what needs neither tokenizer nor demonstrations, and return the held-out problems and the rewards
    that score them; None: there are none.

    Raises a UserError with the file, the key and the remedy at the first thing that can't work.
    """
    check_writable(recipe.output_dir)
    check_model_folder(recipe.model.path)
    check_trackers(recipe.logging)
    check_template(recipe.prompt.template)
    held_out = read_held_out(recipe.evaluation).problems
    if not held_out:
        return [], None
    return held_out, RewardSet(recipe.rewards, recipe.outcome, recipe_path.parent, column_names(held_out))
