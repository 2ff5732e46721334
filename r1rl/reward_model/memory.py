"""The memory of `r1rl reward-model`: what its recipe does with the model on each process."""

from __future__ import annotations

from r1rl.memory.estimate import CHECKPOINTING, Estimate, read_config, shape_of
from r1rl.memory.work import Launch, Work
from r1rl.reward_model.recipe import RewardModelRecipe


def memory(
    recipe: RewardModelRecipe, launch: Launch, prompt_tokens: int | None, config_file: str | None
) -> Estimate:
    """Return the estimate of a model that trains on both answers of each pair.

    Raises NotEstimated for a model whose configuration is not here.
    """
    work = Work(
        length=2 * recipe.max_length,
        update_tokens=2 * recipe.micro_batch_size * recipe.max_length,
        gradient_checkpointing=bool(recipe.model.gradient_checkpointing),
    )
    return Estimate(
        recipe.model.path,
        shape_of(read_config(recipe.model.path, recipe.model.revision, config_file)),
        launch,
        work,
        CHECKPOINTING,
        checkpointing_is_open=recipe.model.gradient_checkpointing is None,
    )
