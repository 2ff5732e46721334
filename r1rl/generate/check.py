"""The check of a recipe of `r1rl generate`: what `r1rl check` shows of it."""

from __future__ import annotations

from r1rl.errors import HubUnreachable
from r1rl.generate.preflight import check_settings, read_asked
from r1rl.generate.recipe import GenerateRecipe
from r1rl.preflight.context import CheckContext
from r1rl.preflight.findings import Findings
from r1rl.preflight.prompts import ModelUnavailable, add_prompts, render_prompts
from r1rl.preflight.settings import check_model_folder


def check(recipe: GenerateRecipe, context: CheckContext) -> Findings:
    """Check problems, questions and prompts. Raises a UserError for what would keep the run from starting."""
    findings = Findings()
    question = check_settings(recipe)[0]
    if recipe.model.endpoint is None:
        check_model_folder(recipe.model.path)
        findings.rows.append(("model", recipe.model.path))
    else:
        findings.rows.append(("model", f"behind {recipe.model.endpoint.url}"))
    if "data.source" in context.awaited:
        findings.unchecked.append(f"data: {context.awaited['data.source']}.")
        return findings
    try:
        loaded, asked = read_asked(recipe, question)
    except HubUnreachable as error:
        findings.unchecked.append(str(error))
        return findings
    findings.rows.append(
        (
            "data",
            f"{len(asked)} problems x {recipe.num_samples} samples of at most "
            f"{recipe.max_completion_length} tokens",
        )
    )
    findings.notes += [*loaded.notes, *loaded.warnings]
    if recipe.model.endpoint is None:
        try:
            rendered = render_prompts(recipe.model, recipe.prompt, asked, recipe.data.max_prompt_tokens)
        except ModelUnavailable as error:
            findings.unchecked.append(f"{error} Prompts and their lengths were not checked.")
        else:
            add_prompts(findings, rendered, recipe.max_completion_length, "max_completion_length")
    return findings
