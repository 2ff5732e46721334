"""The check of a recipe of `r1rl grpo`: data, prompts, rewards and gold answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from r1rl.data import column_names
from r1rl.errors import HubUnreachable
from r1rl.grpo.components import find_components
from r1rl.grpo.preflight import Preflight, check_processes, check_rows, check_settings, preflight
from r1rl.grpo.recipe import GRPORecipe
from r1rl.preflight.answers import SHOWN_CHARACTERS, GoldDefect
from r1rl.preflight.context import CheckContext
from r1rl.preflight.findings import Findings
from r1rl.preflight.prompts import ModelUnavailable, add_prompts, render_prompts
from r1rl.rewards.loader import load_reward

SHOWN_ANSWERS = 20
"""Gold answers with a defect that are listed; the rest is counted."""
SHOWN_VALUES = 8
"""Values of a column that decides about rewards, with their counts."""
WITHOUT_DATA = "So columns, gold answers and the lengths of prompts were not looked at."


def check(recipe: GRPORecipe, context: CheckContext) -> Findings:
    """Check all that needs no weights. Raises a UserError for what would keep the run from starting."""
    launch, awaited, findings = context.launch, context.awaited, Findings()
    check_processes(recipe, launch.processes, launch.sharded)
    check_rows(recipe, "cuda" if launch.on_gpu else "cpu")
    if "evaluation.data.source" in awaited:
        findings.unchecked.append(f"evaluation.data: {awaited['evaluation.data.source']}.")
        recipe = _without_evaluation(recipe)
    if "data.source" in awaited:
        findings.unchecked.append(f"data: {awaited['data.source']}. {WITHOUT_DATA}")
        found = None
    else:
        found = _tolerant_preflight(recipe, context.recipe_path, findings)
    if found is None:
        check_settings(recipe)
        find_components(recipe, context.recipe_path.parent)
        for reward in recipe.rewards:
            load_reward(reward.function, context.recipe_path.parent)
        _add_sizes(findings, recipe)
        return findings
    try:
        _add_data(findings, recipe, found)
        _add_sizes(findings, recipe)
        findings.notes += found.notes
        findings.warnings += found.warnings
        try:
            rendered = render_prompts(
                recipe.model, recipe.prompt, found.problems, recipe.data.max_prompt_tokens
            )
        except ModelUnavailable as error:
            findings.unchecked.append(f"{error} Prompts and their lengths were not checked.")
        else:
            add_prompts(
                findings, rendered, recipe.rollout.max_completion_length, "rollout.max_completion_length"
            )
        _add_gold_answers(findings, found.gold_defects)
    finally:
        found.rewards.close()
    return findings


def _tolerant_preflight(recipe: GRPORecipe, recipe_path: Path, findings: Findings) -> Preflight | None:
    """Return the preflight, without the data that the hub does not give here; None if that is the training
    data.
    """
    try:
        return preflight(recipe, recipe_path)
    except HubUnreachable as error:
        if not str(error).startswith("evaluation.data"):
            findings.unchecked.append(f"{error} {WITHOUT_DATA}")
            return None
        findings.unchecked.append(str(error))
        return preflight(_without_evaluation(recipe), recipe_path)


def _without_evaluation(recipe: GRPORecipe) -> GRPORecipe:
    return replace(recipe, evaluation=replace(recipe.evaluation, data=None, every_steps=0))


def _add_data(findings: Findings, recipe: GRPORecipe, found: Preflight) -> None:
    sources = " + ".join([recipe.data.source, *(one.source for one in recipe.data.mix)])
    columns = ", ".join(sorted(column_names(found.problems)))
    prompts = recipe.max_steps * recipe.rollout.num_prompts
    held_out = len(found.evaluation_problems)
    findings.rows += [
        ("data", f"{len(found.problems)} problems from {sources}; columns {columns}"),
        ("", f"{recipe.max_steps} steps visit {prompts} prompts, {prompts / len(found.problems):.2g} epochs"),
        (
            "held out",
            f"{held_out} problems x {recipe.evaluation.num_samples} samples" if held_out else "none",
        ),
        ("rewards", ", ".join(f"{name} x {weight:g}" for name, weight in found.rewards.weights.items())),
        *(("", f"{column} {value}: {count} problems") for column, value, count in _where_counts(found)),
        ("outcome", found.rewards.outcome_name or "none: accuracy is not measured"),
    ]


def _add_sizes(findings: Findings, recipe: GRPORecipe) -> None:
    rollout, algorithm = recipe.rollout, recipe.algorithm
    completions = rollout.num_prompts * rollout.num_generations
    steps = algorithm.num_iterations * algorithm.num_minibatches
    findings.rows += [
        (
            "batch",
            f"{rollout.num_prompts} prompts x {rollout.num_generations} generations = {completions} "
            f"completions",
        ),
        (
            "",
            f"{steps} optimizer step{'s' if steps > 1 else ''} of "
            f"{completions // algorithm.num_minibatches} completions each",
        ),
        ("model", recipe.model.path),
    ]
    if (lora := recipe.model.lora) is not None:
        targets = ", ".join(lora.target_modules) or "all linear layers of the decoder"
        findings.rows.append(
            ("", f"frozen; adapters of rank {lora.rank}, scale {lora.alpha / lora.rank:g}, on {targets}")
        )


def _where_counts(found: Preflight) -> list[tuple[str, str, int]]:
    """Return (column, value, number of problems) for the commonest values of each column that decides about
    rewards.
    """
    return [
        (column, str(value), count)
        for column in found.rewards.where_columns
        for value, count in Counter(
            str(problem.columns.get(column)) for problem in found.problems
        ).most_common(SHOWN_VALUES)
    ]


def _add_gold_answers(findings: Findings, defects: list[GoldDefect]) -> None:
    """Add a table of gold answers that can't be graded, or only by their text, the worst first."""
    if not defects:
        return
    more = len(defects) - SHOWN_ANSWERS
    table = Table(
        "where",
        "id",
        "gold answer",
        "why",
        box=None,
        header_style="bold",
        caption=f"and {more} more" if more > 0 else None,
    )
    table.caption_justify = "left"
    for defect in sorted(defects, key=lambda one: not one.found.fatal)[:SHOWN_ANSWERS]:
        table.add_row(
            escape(defect.problem.place),
            escape(defect.problem.id),
            escape(defect.found.answer[:SHOWN_CHARACTERS]),
            escape(defect.found.reason),
        )
    findings.tables.append(table)
