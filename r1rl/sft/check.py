"""The check of a recipe of `r1rl sft`: what `r1rl check` shows of it."""

from __future__ import annotations

from r1rl.data.demonstrations import read_demonstrations
from r1rl.errors import HubUnreachable
from r1rl.preflight.context import CheckContext
from r1rl.preflight.findings import Findings
from r1rl.runs.rows import check_batch
from r1rl.sft.preflight import preflight
from r1rl.sft.recipe import SFTRecipe


def check(recipe: SFTRecipe, context: CheckContext) -> Findings:
    """Check demonstrations, held-out problems and the rewards that score them.

    Raises a UserError for what would keep the run from starting.
    """
    check_batch(recipe.batch_size, recipe.micro_batch_size, context.launch.processes)
    findings = Findings([("model", recipe.model.path)])
    try:
        found = preflight(recipe, context.recipe_path)
    except HubUnreachable as error:
        findings.unchecked.append(str(error))
    else:
        found.close()
        held_out = len(found.evaluation_problems)
        samples = f"{held_out} problems x {recipe.evaluation.num_samples} samples" if held_out else "none"
        findings.rows.append(("held out", samples))
    if "data.source" in context.awaited:
        findings.unchecked.append(f"data: {context.awaited['data.source']}.")
        return findings
    try:
        loaded = read_demonstrations(recipe.data)
    except HubUnreachable as error:
        findings.unchecked.append(str(error))
        return findings
    findings.rows.append(("data", f"{len(loaded.demonstrations)} demonstrations from {loaded.name}"))
    findings.notes += loaded.notes
    if loaded.bad:
        findings.warnings.append(
            f"{len(loaded.bad)} rows can't be used, such as {loaded.bad[0].place}: {loaded.bad[0].detail}."
        )
    return findings
