"""The memory of `r1rl distill`: what its recipe does with the model on each process."""

from __future__ import annotations

from r1rl.distill.recipe import DistillRecipe
from r1rl.memory.estimate import (
    CHECKPOINTING,
    Estimate,
    NotEstimated,
    micro_batch_tokens,
    prompt_length,
    read_config,
    shape_of,
)
from r1rl.memory.work import Launch, ModelShape, Work


def memory(
    recipe: DistillRecipe, launch: Launch, prompt_tokens: int | None, config_file: str | None
) -> Estimate:
    """Return the estimate of a student that samples and trains beside its teacher.

    Raises NotEstimated for a student whose configuration is not here.
    """
    rollout, update = recipe.rollout, recipe.update
    prompt, assumptions = prompt_length(
        prompt_tokens, recipe.data.max_prompt_tokens if recipe.data is not None else None
    )
    length = prompt + rollout.max_completion_length
    share = rollout.num_generations / launch.processes
    tokens = micro_batch_tokens(
        update.micro_batch_tokens, update.micro_batch_sequences, round(rollout.num_prompts * share), length
    )
    work = Work(
        rows=round(recipe.on_policy_prompts * share),
        max_rows=rollout.max_rows,
        length=length,
        update_tokens=tokens,
        logit_tokens=min(update.logit_chunk, tokens),
        logit_vocabularies=2,
        gradient_checkpointing=bool(recipe.model.gradient_checkpointing),
        teacher=_teacher(recipe, assumptions),
    )
    return Estimate(
        recipe.model.path,
        shape_of(read_config(recipe.model.path, recipe.model.revision, config_file)),
        launch,
        work,
        {"update_tokens": "update.micro_batch_tokens", "logit_tokens": "update.logit_chunk"} | CHECKPOINTING,
        assumptions,
        checkpointing_is_open=recipe.model.gradient_checkpointing is None,
    )


def _teacher(recipe: DistillRecipe, assumptions: list[str]) -> ModelShape | None:
    """Return the teacher's shape; None, and a sentence among the assumptions, if its configuration is not
    here.
    """
    try:
        return shape_of(read_config(recipe.teacher.path, recipe.teacher.revision, None))
    except NotEstimated:
        assumptions.append(
            "no memory for the teacher, whose config.json is not here: name a folder that has it, "
            "teacher.path=FOLDER"
        )
        return None
