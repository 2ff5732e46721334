"""The record of `r1rl check`."""

from __future__ import annotations

from r1rl.config.commands import Command, Flag

COMMAND = Command(
    name="check",
    position=10,
    summary="everything about a recipe of any command that can be known before the model is loaded",
    explanation=(
        "Reads the data, resolves the rewards and compares their parameters with the columns, renders a "
        "prompt, grades every gold answer against itself, counts prompt tokens, and estimates the memory "
        "that each GPU needs. Takes the recipe of every command, trains nothing and needs no GPU. What can't "
        "be reached from here, such as data on the hub, is named and left out."
    ),
    examples=(
        "r1rl check recipes/zero_rl/tiny.yaml",
        "r1rl check recipes/zero_rl/tiny.yaml data.limit=100",
        "r1rl check recipes/zero_rl/qwen2.5-math-7b_math.yaml --gpus 4 --model-config config.json",
    ),
    run="r1rl.check.run:run",
    flags=(
        Flag(
            "gpus",
            "1",
            "estimate the memory for so many GPUs; without it, for those of the recipe's header",
        ),
        Flag(
            "accelerate",
            "recipes/accelerate/fsdp2.yaml",
            "estimate it for a launch with this accelerate configuration",
        ),
        Flag(
            "model-config",
            "config.json",
            "the model's config.json, where the model itself is not here",
        ),
    ),
)
