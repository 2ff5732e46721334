"""The checks of a recipe of `r1rl reward-model` that need no pairs."""

from __future__ import annotations

from r1rl.preflight.settings import check_model_folder, check_trackers
from r1rl.reward_model.recipe import RewardModelRecipe
from r1rl.runs.inputs import NOTHING, Given
from r1rl.runs.run_directory import check_writable


def check_settings(recipe: RewardModelRecipe, given: Given = NOTHING) -> None:
    """Check folders and packages. Raises a UserError for what can't work."""
    check_writable(recipe.output_dir)
    if given.model is None:
        check_model_folder(recipe.model.path)
    check_trackers(recipe.logging)
