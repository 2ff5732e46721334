"""The record of `r1rl sft`."""

from __future__ import annotations

from r1rl.config.commands import MODEL_OUTPUT, RESUME, Command, StageRecord
from r1rl.config.cost import Cost
from r1rl.sft.recipe import SFTRecipe, contradictions


def _cost(recipe: SFTRecipe) -> Cost:
    """Return the steps where the recipe sets them; otherwise they depend on the data."""
    return Cost(steps=recipe.max_steps or None)


COMMAND = Command(
    name="sft",
    position=70,
    summary=(
        "supervised fine-tuning on demonstrations, such as cold-start or rejection-sampled chains of thought"
    ),
    explanation=(
        "Trains what follows the prompt, rendered by the same template as in RL and evaluation, and the "
        "token that ends a completion. Rows that can't be used are counted by reason. The same run "
        "directory, --resume and held-out problems as grpo."
    ),
    examples=(
        ("r1rl sft recipes/cold_start/qwen2.5-7b_sft.yaml model.path=runs/mine data.source=selected.jsonl"),
        "r1rl sft recipes/cold_start/qwen2.5-7b_sft.yaml --resume",
        (
            "accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m r1rl sft "
            "recipes/cold_start/qwen2.5-7b_sft.yaml"
        ),
    ),
    run="r1rl.sft.run:run",
    training="r1rl.sft.run:SFTRun",
    recipe=SFTRecipe,
    flags=(RESUME,),
    many_processes=True,
    contradictions=contradictions,
    check="r1rl.sft.check:check",
    memory="r1rl.sft.memory:memory",
    stage=StageRecord(outputs=MODEL_OUTPUT, continuation="from a checkpoint", cost=_cost),
)
