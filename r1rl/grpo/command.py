"""The record of `r1rl grpo`."""

from __future__ import annotations

from r1rl.config.commands import MODEL_OUTPUT, RESUME, Command, StageRecord
from r1rl.config.cost import Cost
from r1rl.grpo.contradictions import contradictions
from r1rl.grpo.recipe import GRPORecipe


def _cost(recipe: GRPORecipe) -> Cost:
    """Return the completions of all rollouts and evaluations, and their tokens at most."""
    rollout, evaluation = recipe.rollout, recipe.evaluation
    completions = recipe.max_steps * rollout.num_prompts * rollout.num_generations
    if evaluation.data is not None:
        during = (recipe.max_steps - 1) // evaluation.every_steps if evaluation.every_steps else 0
        problems = evaluation.num_problems * (1 + evaluation.at_start) + during * evaluation.during_problems
        completions += problems * evaluation.num_samples
    return Cost(recipe.max_steps, completions, completions * rollout.max_completion_length)


COMMAND = Command(
    name="grpo",
    position=20,
    summary="reinforcement learning from rewards, such as zero-RL on a base model",
    explanation=(
        "Each step samples num_generations completions for each of num_prompts problems, scores them with "
        "the rewards, compares each with its group, and updates the policy. A run leaves metrics, "
        "completions, checkpoints, curves and a summary."
    ),
    examples=(
        "r1rl grpo recipes/zero_rl/tiny.yaml",
        "r1rl grpo recipes/zero_rl/tiny.yaml max_steps=20 rewards.1.weight=0.2 run_name=short",
        "r1rl grpo recipes/zero_rl/tiny.yaml --resume",
        (
            "accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m r1rl grpo "
            "recipes/zero_rl/qwen2.5-math-7b_math.yaml"
        ),
    ),
    run="r1rl.grpo.run:run",
    training="r1rl.grpo.run:GRPORun",
    recipe=GRPORecipe,
    flags=(RESUME,),
    many_processes=True,
    contradictions=contradictions,
    check="r1rl.grpo.check:check",
    memory="r1rl.grpo.memory:memory",
    stage=StageRecord(outputs=MODEL_OUTPUT, continuation="from a checkpoint", cost=_cost),
)
