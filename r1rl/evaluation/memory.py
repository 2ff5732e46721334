"""The memory of `r1rl evaluate`: what its recipe does with the model on each process."""

from __future__ import annotations

from r1rl.config.awaited import AWAITED_MODEL
from r1rl.evaluation.benchmarks import benchmarks_of
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.memory.estimate import Estimate, read_config, sampling_estimate, shape_of
from r1rl.memory.work import Launch


def memory(
    recipe: EvaluateRecipe, launch: Launch, prompt_tokens: int | None, config_file: str | None
) -> Estimate | None:
    """Return the estimate of the largest model that is loaded here; None if none is.

    Raises NotEstimated for a model whose configuration is not here.
    """
    length = max(benchmark.max_completion_length for benchmark in benchmarks_of(recipe))
    here = [model for model in recipe.models if model.endpoint is None and model.path != AWAITED_MODEL]
    shapes = [(one.path, shape_of(read_config(one.path, one.revision, config_file))) for one in here]
    if not shapes:
        return None
    path, largest = max(shapes, key=lambda pair: pair[1].parameters)
    return sampling_estimate(path, largest, launch, prompt_tokens, length, recipe.max_rows)
