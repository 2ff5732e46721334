"""The record of `r1rl pretrain`."""

from __future__ import annotations

from r1rl.config.commands import MODEL_OUTPUT, Command, StageRecord
from r1rl.config.cost import Cost
from r1rl.pretrain.recipe import PretrainRecipe, contradictions


def _cost(recipe: PretrainRecipe) -> Cost:
    """Return the steps and the tokens that are trained on."""
    return Cost(steps=recipe.max_steps, tokens=recipe.max_steps * recipe.batch_tokens)


COMMAND = Command(
    name="pretrain",
    position=100,
    summary="a small base model from scratch on synthetic maths text",
    explanation="Trains a tokenizer and a small decoder; this is how the embedded base model was made.",
    examples=("r1rl pretrain recipes/pretrain/tiny.yaml",),
    run="r1rl.pretrain.run:run",
    recipe=PretrainRecipe,
    contradictions=contradictions,
    check="r1rl.pretrain.check:check",
    stage=StageRecord(outputs=MODEL_OUTPUT, continuation="from the start", cost=_cost),
)
