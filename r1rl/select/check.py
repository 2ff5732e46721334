"""The check of a recipe of `r1rl select`: what `r1rl check` shows of it."""

from __future__ import annotations

from r1rl.preflight.context import CheckContext
from r1rl.preflight.findings import Findings
from r1rl.select.preflight import check_settings
from r1rl.select.recipe import SelectRecipe
from r1rl.select.rows import read_sources


def check(recipe: SelectRecipe, context: CheckContext) -> Findings:
    """Check the files, their columns, and the function that grades.

    Raises a UserError for what would keep the selection from being made.
    """
    findings = Findings()
    check_settings(recipe, context.recipe_path)
    here = []
    for number, source in enumerate(recipe.sources):
        reason = context.awaited.get(f"sources.{number}.path")
        if reason is not None:
            findings.unchecked.append(f"sources.{number}.path: {reason}.")
        else:
            here.append(source)
    if here:
        loaded = read_sources(here)
        findings.rows.append(("rows", f"{len(loaded.rows)} from {', '.join(source.path for source in here)}"))
        findings.notes += [f"a row could not be used: {example}" for example in loaded.bad_examples]
    return findings
