"""The record of `r1rl pipeline`."""

from __future__ import annotations

from r1rl.config.commands import Command, Flag
from r1rl.pipeline.recipe import PipelineRecipe, apply_stage_override, contradictions

COMMAND = Command(
    name="pipeline",
    position=110,
    summary="a chain of stages, such as the whole DeepSeek-R1 recipe, that goes on where it stopped",
    explanation=(
        "Runs the stages of a recipe in the order of their needs. A finished stage whose inputs (settings, "
        "data, weights, rewards) are unchanged is skipped; a changed one and those that depend on it run "
        "again, and what they had left is set aside; one that was interrupted goes on. STAGE.key=value "
        "overrides a key of a stage's recipe."
    ),
    examples=(
        "r1rl pipeline PIPELINE.yaml --dry-run",
        "r1rl pipeline PIPELINE.yaml r1_zero.max_steps=100",
    ),
    run="r1rl.pipeline.run:run",
    recipe=PipelineRecipe,
    flags=(
        Flag(
            "dry-run",
            "yes",
            "show what would run, why, and what it costs; run nothing",
        ),
    ),
    contradictions=contradictions,
    apply_override=apply_stage_override,
    parts="r1rl.pipeline.check:parts",
)
