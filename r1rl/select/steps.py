"""The steps of a selection in the order in which they run, each with the function that gives rows their
reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from r1rl.select import filters, sets
from r1rl.select.filters import RowFilter
from r1rl.select.grading import PassRate
from r1rl.select.recipe import SelectRecipe, source_name
from r1rl.select.report import StepReport, report_step
from r1rl.select.rows import CompletionRow


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the recipe: its name in r1rl.select.recipe.STEPS, its explanation, and the reasons that it
    gives.
    """

    name: str
    explanation: str
    reasons: Callable[[Sequence[CompletionRow]], list[str | None]]


def steps_of(recipe: SelectRecipe, rates: dict[str, PassRate]) -> list[Step]:
    """Return the steps after decontamination that the recipe asks for, in the fixed order.

    `rates` are the pass rates of all graded problems.
    """
    wanted, alike = recipe.filters, recipe.duplicates
    band = recipe.difficulty
    steps: list[Step | None] = [
        Step(
            "difficulty",
            f"problems with a pass rate from {band.min_pass_rate:g} to {band.max_pass_rate:g}",
            partial(sets.outside_band, rates=rates, least=band.min_pass_rate, most=band.max_pass_rate),
        )
        if (band.min_pass_rate, band.max_pass_rate) != (0.0, 1.0)
        else None,
        _each("correct", f"graded as right by {recipe.grade.function}", filters.not_correct),
        _each("finish_reason", f"ended by {' or '.join(wanted.finish_reasons)}", filters.finished(wanted)),
        _each(
            "length",
            f"{wanted.min_tokens} tokens or more, {wanted.max_tokens or 'any number'} at most",
            filters.length(wanted),
        ),
        _each("format", f"the format {wanted.format}", filters.well_formed(wanted)),
        _each("layout", "no code blocks or long paragraphs in the thoughts", filters.layout(wanted)),
        _each(
            "language",
            f"{wanted.min_language:.0%} of the thoughts' words in one language: {wanted.language}",
            filters.one_language(wanted),
        ),
        _each(
            "repetition",
            f"at most {wanted.max_repetition or 0:.0%} repeated {wanted.repetition_ngram}-grams",
            filters.not_repetitive(wanted),
        ),
        Step("exact_duplicates", "no problem and text twice", sets.exact_duplicates) if alike.exact else None,
        Step(
            "near_duplicate_completions",
            f"completions of a problem less than {alike.near_completions:g} alike",
            partial(sets.near_duplicate_completions, threshold=alike.near_completions),
        )
        if alike.near_completions is not None
        else None,
        Step(
            "near_duplicate_problems",
            f"problems of the same numbers less than {alike.near_problems:g} alike",
            partial(sets.near_duplicate_problems, threshold=alike.near_problems),
        )
        if alike.near_problems is not None
        else None,
        Step(
            "per_problem",
            f"at most {recipe.per_problem} completions of a problem: the {recipe.prefer} ones",
            partial(sets.over_quota, most=recipe.per_problem, prefer=recipe.prefer, seed=recipe.seed),
        )
        if recipe.per_problem is not None
        else None,
        _cap(recipe),
    ]
    return [step for step in steps if step is not None]


def _each(name: str, explanation: str, check: RowFilter | None) -> Step | None:
    """Return a step that looks at one row at a time."""
    return None if check is None else Step(name, explanation, lambda rows: [check(row) for row in rows])


def _cap(recipe: SelectRecipe) -> Step | None:
    caps = {source_name(source): source.cap for source in recipe.sources if source.cap is not None}
    listed = ", ".join(f"{count} of {name}" for name, count in caps.items())
    return (
        Step("cap", f"at most {listed}", partial(sets.over_cap, caps=caps, seed=recipe.seed))
        if caps
        else None
    )


def run_step(step: Step, rows: Sequence[CompletionRow]) -> tuple[list[CompletionRow], StepReport]:
    """Return the rows that a step keeps, and its report.

    Rows of sources that skip the step are not shown to it.
    """
    concerned = [row for row in rows if step.name not in row.skip]
    given = iter(step.reasons(concerned))
    reasons = [None if step.name in row.skip else next(given) for row in rows]
    report = report_step(step.name, step.explanation, rows, reasons)
    return [row for row, reason in zip(rows, reasons, strict=True) if reason is None], report
