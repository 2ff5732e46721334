"""The check of a recipe of `r1rl pretrain`: what `r1rl check` shows of it."""

from __future__ import annotations

from r1rl.preflight.context import CheckContext
from r1rl.preflight.findings import Findings
from r1rl.pretrain.recipe import PretrainRecipe
from r1rl.runs.run_directory import check_writable


def check(recipe: PretrainRecipe, context: CheckContext) -> Findings:
    """Check tasks, habits and sizes. Raises a UserError for a text that can't be written."""
    from r1rl.pretrain.run import check_corpus

    check_writable(recipe.output_dir)
    check_corpus(recipe.corpus, context.recipe_path)
    tokens = recipe.max_steps * recipe.batch_tokens
    return Findings(
        [
            ("corpus", f"{recipe.corpus.documents:,} documents"),
            ("training", f"{recipe.max_steps} steps, {tokens:,} tokens"),
        ]
    )
