"""The memory of `r1rl grpo`: what its recipe does with the model on each process."""

from __future__ import annotations

from r1rl.grpo.recipe import GRPORecipe
from r1rl.memory.estimate import (
    CHECKPOINTING,
    Estimate,
    adapters_of,
    fuses_logits,
    is_compiled,
    micro_batch_tokens,
    prompt_length,
    read_config,
    shape_of,
)
from r1rl.memory.work import Launch, Work


def memory(
    recipe: GRPORecipe, launch: Launch, prompt_tokens: int | None, config_file: str | None
) -> Estimate:
    """Return the estimate of a policy that samples groups of completions and trains on them.

    Raises NotEstimated for a model whose configuration is not here.
    """
    rollout, update = recipe.rollout, recipe.update
    config = read_config(recipe.model.path, recipe.model.revision, config_file)
    prompt, assumptions = prompt_length(prompt_tokens, recipe.data.max_prompt_tokens)
    length = prompt + rollout.max_completion_length
    rows = -(-rollout.num_prompts // launch.processes) * rollout.num_generations
    tokens = micro_batch_tokens(
        update.micro_batch_tokens,
        update.micro_batch_sequences,
        rows // recipe.algorithm.num_minibatches,
        length,
    )
    work = Work(
        rows=rows,
        max_rows=rollout.max_rows,
        length=length,
        update_tokens=tokens,
        logit_tokens=min(update.logprob_chunk, tokens),
        gradient_checkpointing=bool(recipe.model.gradient_checkpointing),
        compiled=is_compiled(update, launch, recipe.model),
        fused_logits=fuses_logits(rollout, launch, recipe.model),
        has_reference=recipe.algorithm.beta != 0,
        overlaps=rollout.one_step_off,
        adapters=None if recipe.model.lora is None else adapters_of(config, recipe.model.lora),
    )
    return Estimate(
        recipe.model.path,
        shape_of(config),
        launch,
        work,
        {"update_tokens": "update.micro_batch_tokens", "logit_tokens": "update.logprob_chunk"}
        | CHECKPOINTING,
        assumptions,
        # A compiled layer can't be recomputed, and one that the recipe asks for stays compiled.
        checkpointing_is_open=recipe.model.gradient_checkpointing is None and not update.compile,
    )
