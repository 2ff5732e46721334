"""The memory of `r1rl generate`: what its recipe does with the model on each process."""

from __future__ import annotations

from r1rl.generate.recipe import GenerateRecipe
from r1rl.memory.estimate import Estimate, read_config, sampling_estimate, shape_of
from r1rl.memory.work import Launch


def memory(
    recipe: GenerateRecipe, launch: Launch, prompt_tokens: int | None, config_file: str | None
) -> Estimate | None:
    """Return the estimate of a model that is loaded here; None for one behind a server.

    Raises NotEstimated for a model whose configuration is not here.
    """
    if recipe.model.endpoint is not None:
        return None
    shape = shape_of(read_config(recipe.model.path, recipe.model.revision, config_file))
    return sampling_estimate(
        recipe.model.path, shape, launch, prompt_tokens, recipe.max_completion_length, recipe.max_rows
    )
