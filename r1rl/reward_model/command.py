"""The record of `r1rl reward-model`."""

from __future__ import annotations

from r1rl.config.commands import MODEL_OUTPUT, RESUME, Command, StageRecord
from r1rl.config.cost import Cost
from r1rl.reward_model.recipe import RewardModelRecipe, contradictions


def _cost(recipe: RewardModelRecipe) -> Cost:
    """Return the steps where the recipe sets them; otherwise they depend on the data."""
    return Cost(steps=recipe.max_steps or None)


COMMAND = Command(
    name="reward-model",
    position=80,
    summary="a model that scores answers, from pairs of which one was preferred",
    explanation=(
        "Trains one output on top of any causal language model to score the chosen answer above the rejected "
        "one. The reward reward_model scores with it in r1rl grpo, on the same text of problem and answer."
    ),
    examples=(
        (
            "r1rl reward-model recipes/all_scenario/qwen2.5-1.5b_reward-model.yaml model.path=runs/mine "
            "data.source=pairs.jsonl"
        ),
        "r1rl reward-model recipes/all_scenario/qwen2.5-1.5b_reward-model.yaml --resume",
        (
            "accelerate launch --config_file recipes/accelerate/ddp.yaml -m r1rl reward-model "
            "recipes/all_scenario/qwen2.5-1.5b_reward-model.yaml"
        ),
    ),
    run="r1rl.reward_model.run:run",
    training="r1rl.reward_model.run:RewardModelRun",
    recipe=RewardModelRecipe,
    flags=(RESUME,),
    many_processes=True,
    contradictions=contradictions,
    check="r1rl.reward_model.check:check",
    memory="r1rl.reward_model.memory:memory",
    stage=StageRecord(outputs=MODEL_OUTPUT, continuation="from a checkpoint", cost=_cost),
)
