"""The check of a recipe of `r1rl distill`: what `r1rl check` shows of it."""

from __future__ import annotations

from r1rl.distill.preflight import check_processes, preflight
from r1rl.distill.recipe import DistillRecipe
from r1rl.errors import HubUnreachable
from r1rl.preflight.context import CheckContext
from r1rl.preflight.findings import Findings


def check(recipe: DistillRecipe, context: CheckContext) -> Findings:
    """Check data, models and rewards. Raises a UserError for what would keep the run from starting."""
    check_processes(recipe, context.launch.processes)
    findings = Findings([("student", recipe.model.path), ("teacher", recipe.teacher.path)])
    reasons = [
        f"{key.removesuffix('.source')}: {reason}."
        for key, reason in context.awaited.items()
        if key.endswith(".source")
    ]
    if reasons:
        findings.unchecked += reasons
        return findings
    try:
        found = preflight(recipe, context.recipe_path)
    except HubUnreachable as error:
        findings.unchecked.append(str(error))
        return findings
    found.close()
    written = len(found.completions.demonstrations)
    findings.rows.append(
        ("data", f"{len(found.problems)} problems for the student, {written} completions from the file")
    )
    findings.notes += found.messages
    return findings
