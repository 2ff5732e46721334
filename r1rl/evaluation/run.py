"""The evaluation of models on benchmarks: `prepare` checks it, `evaluate` does it, `run` is the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from r1rl.compute.environment import describe_environment
from r1rl.data.benchmarks import LoadedBenchmark, contamination_probe, load_benchmark
from r1rl.errors import UserError
from r1rl.evaluation.answering import evaluate_target
from r1rl.evaluation.benchmarks import benchmarks_of
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.evaluation.report import render_report
from r1rl.evaluation.results import (
    Comparison,
    Evaluated,
    EvaluationOutcome,
    Result,
    compare_results,
    find_results,
    open_folder,
)
from r1rl.evaluation.tables import print_scores
from r1rl.grading import default_grader
from r1rl.models.loading import InMemory
from r1rl.runs.run_directory import RunDirectory, check_writable
from r1rl.sampling_jobs.loading import RenderedTarget, check_fit, load_target_config, render_target
from r1rl.sampling_jobs.targets import Target, find_targets

FILE_WIDTH = 140
"""The columns of output that goes to a file."""


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """An evaluation of which everything is known that can be known before a model is loaded."""

    recipe: EvaluateRecipe
    folder: Path
    targets: list[Target]
    benchmarks: list[LoadedBenchmark]
    rendered: dict[str, RenderedTarget]
    """Targets whose prompts are rendered, by label: one of each run, since its checkpoints are alike."""
    notes: list[str]
    """Sentences about the benchmarks and the lengths of prompts and completions."""


def run(
    recipe: EvaluateRecipe | None,
    recipe_path: Path | None,
    compare: Sequence[str] | None = None,
    force: str | None = None,
) -> None:
    """Run `r1rl evaluate RECIPE`, or `r1rl evaluate --compare A B`. Raises UserError before a model is loaded
    where that is possible.
    """
    console = make_console()
    if compare is not None:
        print_comparison(console, compare[0], compare[1], force is not None)
        return
    assert recipe is not None
    job = prepare(recipe)
    accelerator = Accelerator()
    outcome = evaluate(job, accelerator, console, force is not None)
    if accelerator.is_main_process:
        print_scores(console, [one.result for one in outcome.evaluated], outcome.comparisons)
        console.print(
            Text(f"In {job.folder}: report.html, summary.json, and a manifest beside every score."),
            soft_wrap=True,
        )
        for refusal in outcome.refusals:
            console.print(Text(refusal, style="yellow"), soft_wrap=True)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def prepare(recipe: EvaluateRecipe, given: Mapping[str, InMemory] | None = None) -> EvaluationJob:
    """Find the models, read the benchmarks and render the prompts; no weights are loaded.

    `given` has models in memory by what the recipe has for their path. Raises UserError for anything that
    would keep the evaluation from being run.
    """
    disable_progress_bar()
    chosen = benchmarks_of(recipe)
    targets = find_targets(recipe.models, given)
    for target in (target for target in targets if target.config.endpoint is None):
        load_target_config(target)
    check_writable(recipe.output_dir)
    folder, before = open_folder(recipe.output_dir, recipe.run_name)
    recipe = replace(recipe, fresh_seed=fresh_seed(recipe, before))
    benchmarks = [
        load_benchmark(config, recipe.local_dir, recipe.num_problems, recipe.fresh_seed or 0)
        for config in chosen
    ]
    if recipe.contamination_probe:
        benchmarks += [
            probe
            for benchmark in benchmarks
            for probe in contamination_probe(benchmark, recipe.contamination_probe)
        ]
    rendered = [render_target(target, recipe.prompt, benchmarks) for target in unlike(targets)]
    notes = [
        *(f"note: {note}" for benchmark in benchmarks for note in benchmark.notes),
        *(check_fit(one, benchmarks) for one in rendered),
    ]
    return EvaluationJob(
        recipe, folder, targets, benchmarks, {one.target.label: one for one in rendered}, notes
    )


def evaluate(
    job: EvaluationJob, accelerator: Accelerator, console: Console, force: bool = False
) -> EvaluationOutcome:
    """Sample what is missing, grade everything, and leave results, summary.json and report.html in the
    folder.

    Every process returns the scores; the main process alone compares the models, also those that were
    measured differently if `force`.
    """
    if accelerator.is_main_process:
        for note in job.notes:
            console.print(Text(note), soft_wrap=True)
        RunDirectory(job.folder).write_start(job.recipe, describe_environment(job.recipe.seed))
    try:
        evaluated = [
            one
            for target in job.targets
            for one in evaluate_target(
                target,
                job.recipe,
                job.benchmarks,
                job.folder,
                accelerator,
                console,
                job.rendered.get(target.label),
            )
        ]
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            console.print(
                f"Stopped; every finished completion is kept in {job.folder}. The same command goes on."
            )
        raise
    finally:
        default_grader().close()
    if not accelerator.is_main_process:
        return EvaluationOutcome(job.folder, evaluated, [], [])
    outcome = EvaluationOutcome(job.folder, evaluated, *compare_with_first(evaluated, force))
    write_outcome(job.recipe, outcome)
    return outcome


def unlike(targets: Sequence[Target]) -> list[Target]:
    """Return the targets whose tokenizer is known here, the first of each run: its checkpoints are alike."""
    first: dict[str, Target] = {}
    for target in targets:
        if target.config.endpoint is None:
            first.setdefault(target.run or target.label, target)
    return list(first.values())


def make_console() -> Console:
    """Return a console that is wide enough for the tables where there is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, FILE_WIDTH))


def fresh_seed(recipe: EvaluateRecipe, before: Mapping[str, Any] | None) -> int:
    """Return the recipe's seed, or that of the evaluation that goes on, or today's date."""
    if recipe.fresh_seed is not None:
        return recipe.fresh_seed
    earlier = (before or {}).get("fresh_seed")
    return int(earlier) if isinstance(earlier, int) else int(datetime.now(UTC).strftime("%Y%m%d"))


def compare_with_first(evaluated: Sequence[Evaluated], force: bool) -> tuple[list[Comparison], list[str]]:
    """Return each further model's difference to the first one, by benchmark, and sentences about those that
    can't be compared.
    """
    first: dict[str, Result] = {}
    comparisons, refusals = [], []
    for one in evaluated:
        earlier = first.setdefault(one.result.benchmark, one.result)
        if earlier is not one.result:
            try:
                comparisons.append(compare_results(earlier, one.result, force))
            except UserError as error:
                refusals.append(str(error))
    order = list(first)
    return sorted(comparisons, key=lambda comparison: order.index(comparison.benchmark)), refusals


def write_outcome(recipe: EvaluateRecipe, outcome: EvaluationOutcome) -> None:
    """Write summary.json and report.html."""
    RunDirectory(outcome.folder).write_summary(
        {
            "run_name": recipe.run_name,
            "seed": recipe.seed,
            "scores": outcome.scores,
            "differences": [comparison.as_json() for comparison in outcome.comparisons],
        }
    )
    page = outcome.folder / "report.html"
    partial = page.with_name(".report.html.partial")
    partial.write_text(
        render_report(recipe.run_name, outcome.evaluated, outcome.comparisons),
        encoding="utf-8",
        errors="backslashreplace",
    )
    partial.replace(page)


def print_comparison(console: Console, first: str, second: str, force: bool) -> None:
    """Print the difference on every benchmark that both folders have (`--compare A B`)."""
    olds, news = find_results(first), find_results(second)
    shared = [name for name in olds if name in news]
    if not shared:
        raise UserError(
            f"--compare: {first} has {', '.join(olds)} and {second} has {', '.join(news)}: no benchmark in "
            f"common."
        )
    for name in shared:
        same_label = olds[name].model == news[name].model
        comparison = compare_results(olds[name], news[name], force, (first, second) if same_label else None)
        console.print(Text(comparison.sentence()), soft_wrap=True)
        for reason in comparison.measured_differently:
            console.print(Text(f"  measured differently: {reason}", style="yellow"), soft_wrap=True)
    for name in [name for name in (*olds, *news) if name not in shared]:
        console.print(Text(f"{name}: only one of the two was evaluated on it", style="dim"))
