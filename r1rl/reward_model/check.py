"""The check of a recipe of `r1rl reward-model`: what `r1rl check` shows of it."""

from __future__ import annotations

from r1rl.data.preferences import read_preferences
from r1rl.errors import HubUnreachable
from r1rl.preflight.context import CheckContext
from r1rl.preflight.findings import Findings
from r1rl.reward_model.preflight import check_settings
from r1rl.reward_model.recipe import RewardModelRecipe
from r1rl.runs.rows import check_batch


def check(recipe: RewardModelRecipe, context: CheckContext) -> Findings:
    """Check pairs and model folder. Raises a UserError for what would keep the run from starting."""
    check_settings(recipe)
    check_batch(recipe.batch_size, recipe.micro_batch_size, context.launch.processes)
    findings = Findings([("model", recipe.model.path)])
    for key, data in (("data", recipe.data), ("evaluation.data", recipe.evaluation.data)):
        if data is None:
            continue
        if f"{key}.source" in context.awaited:
            findings.unchecked.append(f"{key}: {context.awaited[f'{key}.source']}.")
            continue
        try:
            loaded = read_preferences(data, key)
        except HubUnreachable as error:
            findings.unchecked.append(str(error))
            continue
        findings.rows.append((key, f"{len(loaded.pairs)} pairs from {loaded.name}"))
    return findings
