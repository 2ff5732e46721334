"""The record of `r1rl generate`."""

from __future__ import annotations

from r1rl.config.commands import Command, StageRecord
from r1rl.config.cost import Cost
from r1rl.generate.recipe import GenerateRecipe, contradictions


def _cost(recipe: GenerateRecipe) -> Cost:
    """Return the completions and their tokens at most where the recipe says how many problems there are."""
    count = recipe.data.arguments.get("count", recipe.data.limit)
    if not isinstance(count, int) or recipe.data.mix:
        return Cost()
    rounds = 1 if recipe.verification is None else 2
    completions = rounds * recipe.num_samples * min(count, recipe.data.limit or count)
    return Cost(completions=completions, tokens=completions * recipe.max_completion_length)


COMMAND = Command(
    name="generate",
    position=50,
    summary="completions of problems from any model, as data for training",
    explanation=(
        "Samples num_samples completions of every problem from a model that is loaded here or from a server, "
        "with few-shot demonstrations or a verification round if asked for. The same command goes on where "
        "it was interrupted."
    ),
    examples=(
        "r1rl generate recipes/rejection/qwen2.5-7b_generate.yaml",
        (
            "r1rl generate recipes/rejection/qwen2.5-7b_generate.yaml model.path=runs/mine num_samples=8 "
            "data.limit=1000"
        ),
        ("accelerate launch --num_processes 8 -m r1rl generate recipes/rejection/qwen2.5-7b_generate.yaml"),
    ),
    run="r1rl.generate.run:run",
    recipe=GenerateRecipe,
    many_processes=True,
    contradictions=contradictions,
    check="r1rl.generate.check:check",
    memory="r1rl.generate.memory:memory",
    stage=StageRecord(outputs={"data": "completions.jsonl"}, continuation="by itself", cost=_cost),
)
