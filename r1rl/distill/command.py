"""The record of `r1rl distill`."""

from __future__ import annotations

from r1rl.config.commands import MODEL_OUTPUT, RESUME, Command, StageRecord
from r1rl.config.cost import Cost
from r1rl.distill.recipe import DistillRecipe, contradictions


def _cost(recipe: DistillRecipe) -> Cost:
    """Return the completions that the steps compare, and their tokens at most."""
    completions = recipe.max_steps * recipe.rollout.num_prompts * recipe.rollout.num_generations
    return Cost(recipe.max_steps, completions, completions * recipe.rollout.max_completion_length)


COMMAND = Command(
    name="distill",
    position=30,
    summary="a student learns a teacher's token distribution",
    explanation=(
        "Each step compares student and teacher at every token of completions that the student samples "
        "(on-policy), of completions from a file (off-policy), or of both, and makes the student's "
        "distribution more like the teacher's. docs/distillation.md."
    ),
    examples=(
        "r1rl distill recipes/distill/qwen2.5-7b_to_1.5b_math.yaml",
        ("r1rl distill recipes/distill/qwen2.5-7b_to_1.5b_math.yaml divergence.kind=jsd divergence.beta=0.5"),
        "r1rl distill recipes/distill/qwen2.5-7b_to_1.5b_math.yaml --resume",
    ),
    run="r1rl.distill.run:run",
    training="r1rl.distill.run:DistillRun",
    recipe=DistillRecipe,
    flags=(RESUME,),
    many_processes=True,
    contradictions=contradictions,
    check="r1rl.distill.check:check",
    memory="r1rl.distill.memory:memory",
    stage=StageRecord(outputs=MODEL_OUTPUT, continuation="from a checkpoint", cost=_cost),
)
