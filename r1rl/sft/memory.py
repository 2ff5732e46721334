"""The memory of `r1rl sft`: what its recipe does with the model on each process."""

from __future__ import annotations

from r1rl.memory.estimate import ASSUMED_PROMPT, CHECKPOINTING, Estimate, read_config, shape_of
from r1rl.memory.work import Launch, Work
from r1rl.sft.recipe import SFTRecipe

TRL_LOGIT_TOKENS = 1024
"""Tokens whose logits TRL holds at the same time, rounded up: it goes through the head in tiles."""


def memory(recipe: SFTRecipe, launch: Launch, prompt_tokens: int | None, config_file: str | None) -> Estimate:
    """Return the estimate of a model that trains on demonstrations and samples answers of held-out problems.

    Raises NotEstimated for a model whose configuration is not here.
    """
    evaluation = recipe.evaluation
    sampled = (
        -(-evaluation.num_problems * evaluation.num_samples // launch.processes)
        if evaluation.data is not None
        else 0
    )
    tokens = recipe.micro_batch_size * recipe.max_length
    work = Work(
        rows=sampled,
        max_rows=evaluation.max_rows,
        length=ASSUMED_PROMPT + evaluation.max_completion_length if sampled else recipe.max_length,
        update_tokens=tokens,
        logit_tokens=min(TRL_LOGIT_TOKENS, tokens),
        gradient_checkpointing=bool(recipe.model.gradient_checkpointing),
    )
    return Estimate(
        recipe.model.path,
        shape_of(read_config(recipe.model.path, recipe.model.revision, config_file)),
        launch,
        work,
        CHECKPOINTING | ({"update_tokens": "max_length"} if recipe.micro_batch_size == 1 else {}),
        checkpointing_is_open=recipe.model.gradient_checkpointing is None,
    )
