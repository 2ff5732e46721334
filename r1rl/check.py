"""`r1rl check RECIPE`: what the data, prompts, rewards and gold answers of a GRPO recipe look like, before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from r1rl import models
from r1rl.config.schema import GRPORecipe
from r1rl.data import build_prompts, column_names
from r1rl.errors import DataError
from r1rl.grading import AnswerProblem, audit_answers
from r1rl.preflight import Preflight, preflight
from r1rl.prompts import PromptTemplate
from r1rl.types import Problem, Prompt

SHOWN_ANSWERS = 20
"""Gold answers with a defect that are listed; the rest is counted."""
SHOWN_CHARACTERS = 60
SHOWN_VALUES = 8
"""Values of a column that decides about rewards, with their counts."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The rendered prompts and what they need of the model."""

    prompts: list[Prompt]
    dropped: int
    context: int | None
    """The longest sequence that the model's configuration allows, in tokens."""


def run(recipe: GRPORecipe, recipe_path: Path) -> None:
    """Check a recipe and print what was found. Raises a UserError for what would keep the run from starting."""
    console = Console(highlight=False)
    found = preflight(recipe, recipe_path)
    try:
        warnings = list(found.warnings)
        summary = _summary(recipe, found)
        try:
            rendered = render_prompts(recipe, found.problems)
        except ModelUnavailable as error:
            warnings.append(f"{error} Prompts and their lengths were not checked.")
        else:
            _add_prompts(summary, recipe, rendered, warnings)
        console.print(f"[bold]{escape(str(recipe_path))}[/]")
        console.print(summary)
        _print_gold_answers(console, audit_gold(found))
        for note in found.notes:
            console.print(f"note: {escape(note)}")
        for warning in warnings:
            console.print(f"[yellow]warning:[/] {escape(warning)}")
        console.print(f"Ready: r1rl grpo {escape(str(recipe_path))}")
    finally:
        found.rewards.close()


class ModelUnavailable(Exception):
    """The tokenizer can't be loaded here, such as a hub model on a machine without network."""


def render_prompts(recipe: GRPORecipe, problems: Sequence[Problem]) -> Prompts:
    """All prompts of the recipe. Raises ModelUnavailable without a tokenizer, and UserError for a template that can't work."""
    from transformers import AutoConfig, AutoTokenizer

    path = models.resolve(recipe.model.path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=recipe.model.revision)
        config = AutoConfig.from_pretrained(path, revision=recipe.model.revision)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"model.path: the tokenizer of {recipe.model.path} can't be loaded here ({_first_line(error)}).") from error
    prompts, dropped = build_prompts(problems, PromptTemplate(recipe.prompt, tokenizer), recipe.data.max_prompt_tokens)
    return Prompts(prompts, dropped, getattr(config, "max_position_embeddings", None))


def audit_gold(found: Preflight) -> list[tuple[Problem, AnswerProblem]]:
    """Gold answers, training and held-out, that the grader can't use or can only compare as text.

    Only where the outcome reward is `accuracy`: other rewards have rules of their own. Raises DataError if no gold answer
    of the training data can be graded.
    """
    if found.rewards.outcome_name != "accuracy":
        return []
    problems = [problem for problem in (*found.problems, *found.evaluation_problems) if problem.answer is not None]
    defects = audit_answers([problem.answer for problem in problems if problem.answer is not None])
    fatal = {defect.index for defect in defects if defect.fatal}
    if fatal >= set(range(len(found.problems))):
        raise DataError(
            f"data: no gold answer can be graded; the first is {defects[0].answer[:SHOWN_CHARACTERS]!r}: {defects[0].reason}. "
            "Check data.columns and data.answer_format."
        )
    return [(problems[defect.index], defect) for defect in defects]


def _summary(recipe: GRPORecipe, found: Preflight) -> Table:
    rollout, algorithm = recipe.rollout, recipe.algorithm
    completions = rollout.num_prompts * rollout.num_generations
    steps = algorithm.num_iterations * algorithm.num_minibatches
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()

    def add(name: str, words: str) -> None:
        table.add_row(Text(name, style="bold"), Text(words))

    sources = " + ".join([recipe.data.source, *(one.source for one in recipe.data.mix)])
    add("data", f"{len(found.problems)} problems from {sources}; columns {', '.join(sorted(column_names(found.problems)))}")
    epochs = recipe.max_steps * rollout.num_prompts / len(found.problems)
    add("", f"{recipe.max_steps} steps visit {recipe.max_steps * rollout.num_prompts} prompts, {epochs:.2g} epochs")
    held_out = len(found.evaluation_problems)
    add("held out", f"{held_out} problems x {recipe.evaluation.num_samples} samples" if held_out else "none")
    add("rewards", ", ".join(f"{name} x {weight:g}" for name, weight in found.rewards.weights.items()))
    for column, value, count in _where_counts(found):
        add("", f"{column} {value}: {count} problems")
    add("outcome", found.rewards.outcome_name or "none: accuracy is not measured")
    add("batch", f"{rollout.num_prompts} prompts x {rollout.num_generations} generations = {completions} completions")
    add("", f"{steps} optimizer step{'s' if steps > 1 else ''} of {completions // algorithm.num_minibatches} completions each")
    add("model", recipe.model.path)
    return table


def _where_counts(found: Preflight) -> list[tuple[str, str, int]]:
    """For each column that decides about rewards, its commonest values and how many problems have them."""
    return [
        (column, str(value), count)
        for column in found.rewards.where_columns
        for value, count in Counter(str(problem.columns.get(column)) for problem in found.problems).most_common(SHOWN_VALUES)
    ]


def _add_prompts(summary: Table, recipe: GRPORecipe, rendered: Prompts, warnings: list[str]) -> None:
    lengths = sorted(len(prompt.token_ids) for prompt in rendered.prompts)
    middle, long, longest = (lengths[round(share * (len(lengths) - 1))] for share in (0.5, 0.95, 1.0))
    dropped = f"; {rendered.dropped} over data.max_prompt_tokens are dropped" if rendered.dropped else ""
    summary.add_row(Text("prompts", style="bold"), Text(f"{middle} tokens in the middle, {long} at 95 %, {longest} at most{dropped}"))
    needed = longest + recipe.rollout.max_completion_length
    summary.add_row("", Text(f"with rollout.max_completion_length {recipe.rollout.max_completion_length}: {needed} tokens at most"))
    summary.add_row(Text("example", style="bold"), Text(rendered.prompts[0].text, style="dim"))
    if rendered.context is not None and needed > rendered.context:
        warnings.append(
            f"prompts and completions take up to {needed} tokens, but the model's configuration allows {rendered.context}: "
            "lower rollout.max_completion_length or data.max_prompt_tokens."
        )


def _print_gold_answers(console: Console, defects: list[tuple[Problem, AnswerProblem]]) -> None:
    if not defects:
        return
    fatal = sum(defect.fatal for _, defect in defects)
    console.print(
        f"[yellow]warning:[/] {fatal} gold answers can't be graded and {len(defects) - fatal} only by their text; remove or mend them."
    )
    table = Table("where", "id", "gold answer", "why", box=None, header_style="bold")
    for problem, defect in sorted(defects, key=lambda pair: not pair[1].fatal)[:SHOWN_ANSWERS]:
        table.add_row(escape(problem.place), escape(problem.id), escape(defect.answer[:SHOWN_CHARACTERS]), escape(defect.reason))
    console.print(table)
    if len(defects) > SHOWN_ANSWERS:
        console.print(f"and {len(defects) - SHOWN_ANSWERS} more")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
