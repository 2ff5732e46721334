"""The checks of a recipe of `r1rl select` that need no rows."""

from __future__ import annotations

from pathlib import Path

from r1rl.errors import RecipeError
from r1rl.rewards.loader import load_reward
from r1rl.runs.run_directory import check_writable
from r1rl.select import filters
from r1rl.select.recipe import SelectRecipe
from r1rl.text.language import LANGUAGES


def check_settings(recipe: SelectRecipe, recipe_path: Path) -> None:
    """Check the language, the folder and the function that grades. Raises a UserError for what can't work."""
    known = (filters.MAIN_LANGUAGE, *LANGUAGES)
    if recipe.filters.language is not None and recipe.filters.language not in known:
        raise RecipeError(
            f"filters.language is {recipe.filters.language}; it may be {', '.join(known)}, or null."
        )
    check_writable(recipe.output_dir)
    load_reward(recipe.grade.function, recipe_path.parent)
