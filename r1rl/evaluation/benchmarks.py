"""The benchmarks that a recipe of `r1rl evaluate` asks for."""

from __future__ import annotations

from r1rl.config.benchmarks import BenchmarkConfig
from r1rl.data.benchmarks import select_benchmarks
from r1rl.evaluation.recipe import EvaluateRecipe


def benchmarks_of(recipe: EvaluateRecipe) -> list[BenchmarkConfig]:
    """Return the recipe's benchmarks with its own number of samples, token limit and question text.

    Raises RecipeError for a name that is no benchmark.
    """
    return select_benchmarks(
        recipe.benchmarks,
        recipe.define,
        num_samples=recipe.num_samples,
        max_completion_length=recipe.max_completion_length,
        question=recipe.question,
    )
