"""`r1rl select`: read the completions, grade them, run the steps, and write the remaining rows with a report.

    runs/<name>/
      config.yaml, environment.json
      selected.jsonl      the remaining rows, with the columns source, outcome and pass_rate added
      problems.jsonl      the problems of the difficulty band with their pass rates, for RL
      report.json, report.md

The same recipe and files give the same files. A selection is made anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from r1rl.compute.environment import describe_environment
from r1rl.errors import DataError, UserError
from r1rl.runs.run_directory import RunDirectory, check_writable
from r1rl.sampling_jobs.sample_log import OWN_COLUMNS
from r1rl.select import sets
from r1rl.select.contamination import Contamination, read_benchmarks
from r1rl.select.grading import PassRate, RowGrader, pass_rates
from r1rl.select.preflight import check_settings
from r1rl.select.recipe import SelectRecipe
from r1rl.select.report import build_report, markdown_report, print_report
from r1rl.select.rows import CompletionRow, LoadedRows, read_sources
from r1rl.select.steps import Step, run_step, steps_of

SELECTED, PROBLEMS, REPORT, PAGE = "selected.jsonl", "problems.jsonl", "report.json", "report.md"
FILE_WIDTH = 140


def run(recipe: SelectRecipe, recipe_path: Path) -> None:
    """Make a selection. Raise `UserError` for a source that can't be read, and if no row is left."""
    console = Console(highlight=False)
    console = (
        console if console.is_terminal else Console(highlight=False, width=max(console.width, FILE_WIDTH))
    )
    check_settings(recipe, recipe_path)
    directory = open_directory(recipe)
    benchmarks = read_benchmarks(recipe.decontamination) if recipe.decontamination.benchmarks else []
    loaded = read_sources(recipe.sources)
    for example in loaded.bad_examples:
        console.print(Text(f"note: a row could not be used: {example}"), soft_wrap=True)
    rows, reports, pairs = loaded.rows, [], []
    if benchmarks:
        found = Contamination(rows, benchmarks, recipe.decontamination.threshold)
        listed = ", ".join(recipe.decontamination.benchmarks)
        rows, done = run_step(Step("contaminated", f"no problem of {listed}", found.reasons), rows)
        reports, pairs = [done], found.pairs
    clean = rows
    grade_rows(recipe, recipe_path.parent, clean, console)
    rates = pass_rates(clean)
    for row in clean:
        rate = rates.get(row.problem_key)
        row.pass_rate = rate.value if rate is not None and row.is_graded else None
    for step in steps_of(recipe, rates):
        rows, done = run_step(step, rows)
        reports.append(done)
    if not rows:
        worst = max(reports, key=lambda one: one.rows_in - one.rows_out)
        raise DataError(
            f"no row is left of {len(loaded.rows)}; {worst.name} removed the most ({worst.reasons}). "
            f"Nothing was written."
        )
    selected = sets.ordered(rows, recipe.order, recipe.seed)
    problems = problem_rows(sets.ordered(clean, recipe.order, recipe.seed), rates, recipe)
    report = build_report(loaded, reports, selected, rates, len(problems), pairs, notes_about(recipe, loaded))
    directory.write_start(recipe, describe_environment(recipe.seed))
    directory.write_rows(directory.path / SELECTED, map(selected_row, selected))
    directory.write_rows(directory.path / PROBLEMS, problems)
    directory.write_text(directory.path / PAGE, markdown_report(recipe.run_name, report))
    directory.write_json(directory.path / REPORT, report)
    print_report(console, report)
    console.print(Text(f"In {directory.path}: {SELECTED}, {PROBLEMS}, {PAGE}, {REPORT}"), soft_wrap=True)


def open_directory(recipe: SelectRecipe) -> RunDirectory:
    """Return the run's folder. Raise `UserError` if something else than a selection is in it."""
    check_writable(recipe.output_dir)
    folder = Path(recipe.output_dir) / recipe.run_name
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if visible and not is_selection(folder / "config.yaml"):
        raise UserError(f"{folder} exists and was not made by r1rl select: choose another run_name.")
    return RunDirectory(folder)


def is_selection(config: Path) -> bool:
    """Return whether the config.yaml is a selection's; it is the first file that a selection writes."""
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and {"sources", "duplicates"} <= content.keys()


def grade_rows(recipe: SelectRecipe, base_dir: Path, rows: Sequence[CompletionRow], console: Console) -> None:
    """Grade the rows of every source that is graded."""
    graded = [row for row in rows if row.is_graded]
    if not graded:
        return
    columns = {"problem", "answer"} | {name for row in graded for name in row.values}
    grader = RowGrader(recipe.grade, base_dir, columns)
    shown = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*shown, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("grading", total=len(graded))
            grader.grade(graded, lambda count: bar.advance(task, count))
    finally:
        grader.close()


def selected_row(row: CompletionRow) -> dict[str, Any]:
    """Return a line of selected.jsonl."""
    return {**row.values, "source": row.source, "outcome": row.outcome, "pass_rate": row.pass_rate}


def problem_rows(
    rows: Sequence[CompletionRow], rates: dict[str, PassRate], recipe: SelectRecipe
) -> list[dict[str, Any]]:
    """Return the graded problems of the difficulty band, in the order of `rows`: their own columns and their
    pass rates.
    """
    band, found = recipe.difficulty, dict[str, dict[str, Any]]()
    for row in rows:
        rate = rates.get(row.problem_key)
        if (
            rate is None
            or rate.value is None
            or row.problem_key in found
            or not band.min_pass_rate <= rate.value <= band.max_pass_rate
        ):
            continue
        own = {"id": row.values.get("id"), "problem": row.problem, "answer": row.values.get("answer")}
        others = {name: value for name, value in row.values.items() if not _is_generated(name)}
        found[row.problem_key] = {
            **{name: value for name, value in own.items() if value is not None},
            **others,
            "pass_rate": rate.value,
            "num_graded": rate.num_graded,
        }
    return list(found.values())


def _is_generated(column: str) -> bool:
    """Return whether a column belongs to the completion instead of its problem."""
    return (
        column in OWN_COLUMNS or column.startswith("source_") or column in ("source", "outcome", "pass_rate")
    )


def notes_about(recipe: SelectRecipe, loaded: LoadedRows) -> list[str]:
    """Return sentences about rows that a step could not check."""
    unknown = sum(row.tokens is None for row in loaded.rows)
    asked = recipe.filters.min_tokens or recipe.filters.max_tokens is not None
    return (
        [f"{unknown} rows do not say their tokens, so their length was not looked at."]
        if asked and unknown
        else []
    )
