"""The surrogate, the advantage estimator and the rollout engine that a recipe names, found and checked before
a model is loaded. Each may be code of the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from r1rl.config.engines import FoundEngine, find_engine
from r1rl.errors import RecipeError
from r1rl.grpo.contradictions import engine_contradictions, surrogate_contradictions
from r1rl.grpo.recipe import GRPORecipe
from r1rl.objective.advantages import Estimator
from r1rl.objective.own import find_estimator, find_surrogate
from r1rl.objective.surrogates import Surrogate


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of a run that a recipe names and that may be the user's own."""

    surrogate: Surrogate
    estimator: Estimator | None
    """The user's own; None: the recipe's baseline and scale."""
    engine: FoundEngine


def find_components(recipe: GRPORecipe, base_dir: Path) -> Components:
    """Return the recipe's components; `base_dir` is its folder.

    Raises RecipeError for what can't be found or used, and for properties of the user's own code that
    contradict other values of the recipe.
    """
    components = Components(
        find_surrogate(recipe.algorithm, base_dir),
        find_estimator(recipe.algorithm, recipe.rollout.num_generations, base_dir),
        find_engine(recipe.rollout.engine, base_dir),
    )
    for _, sentence in (
        *surrogate_contradictions(recipe.algorithm, components.surrogate),
        *engine_contradictions(recipe, components.engine.properties),
    ):
        raise RecipeError(sentence)
    return components
