"""The check of one recipe: what its command looks at before it starts, and the memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.markup import escape

from r1rl.config.awaited import of_earlier_runs, without_models
from r1rl.config.commands import command_of, resolve
from r1rl.memory.estimate import NotEstimated, estimate
from r1rl.memory.report import memory_table, verdict
from r1rl.preflight.context import CheckContext
from r1rl.preflight.findings import Findings
from r1rl.preflight.settings import check_model_folder
from r1rl.runs.hooks import find_hooks
from r1rl.runs.run_directory import check_writable


def check_one(console: Console, recipe: Any, context: CheckContext) -> None:
    """Print the findings of the recipe's command, and the memory that the recipe needs.

    Raises a UserError for what would keep the command from starting.
    """
    context = replace(context, awaited={**of_earlier_runs(recipe), **context.awaited})
    recipe = without_models(recipe, context.awaited)
    named = command_of(recipe).check
    findings = check_folders(recipe) if named is None else resolve(named)(recipe, context)
    find_hooks(getattr(recipe, "hooks", []), context.recipe_path.parent)
    findings.print(console)
    print_memory(console, recipe, context, findings.prompt_tokens)


def check_folders(recipe: Any) -> Findings:
    """Check the output folder and the model's folder: all that is known of a command without a check of its
    own.
    """
    check_writable(recipe.output_dir)
    model = getattr(recipe, "model", None)
    if model is not None:
        check_model_folder(model.path)
    return Findings([("model", model.path)] if model is not None else [], unchecked=["the data."])


def print_memory(console: Console, recipe: Any, context: CheckContext, prompt_tokens: int | None) -> None:
    """Print the estimate of the recipe's memory, or why there is none. `prompt_tokens`: of the longest
    prompt, if they were counted.
    """
    try:
        found = estimate(recipe, context.launch, prompt_tokens, context.model_config)
    except NotEstimated as error:
        reason = context.awaited.get("model.path") or str(error)
        console.print(f"[yellow]not checked:[/] the memory: {escape(reason)}.")
        return
    if found is None:
        return
    room = found.shape.context
    if prompt_tokens is None and room is not None and found.work.length > room:
        needed = (
            f"prompt and completion may take {found.work.length} tokens together, but the model's "
            f"configuration allows {room}"
        )
        console.print(f"[yellow]warning:[/] {escape(needed)}")
    console.print(memory_table(found, context.launch_source))
    for sentence in verdict(found):
        console.print(escape(sentence))
