"""The record of `r1rl select`."""

from __future__ import annotations

from r1rl.config.commands import Command, StageRecord
from r1rl.select.recipe import SelectRecipe, contradictions

COMMAND = Command(
    name="select",
    position=60,
    summary=(
        "the completions that are worth learning from: graded, filtered, without duplicates, with a report"
    ),
    explanation=(
        "Grades completions from files, such as r1rl generate writes, and runs the recipe's steps in a fixed "
        "order. Leaves the selected rows, the problems with their pass rates, and what each step removed."
    ),
    examples=(
        "r1rl select recipes/rejection/qwen2.5-7b_select.yaml",
        (
            "r1rl select recipes/rejection/qwen2.5-7b_select.yaml sources.0.path=runs/mine/completions.jsonl "
            "per_problem=2"
        ),
    ),
    run="r1rl.select.run:run",
    recipe=SelectRecipe,
    contradictions=contradictions,
    check="r1rl.select.check:check",
    stage=StageRecord(
        outputs={"data": "selected.jsonl", "problems": "problems.jsonl"},
        continuation="from the start",
        last_written="report.json",
        summary="report.json",
    ),
)
