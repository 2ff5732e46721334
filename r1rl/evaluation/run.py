"""`r1rl evaluate`: sample what is missing, grade it, and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from r1rl.evaluation.results import Comparison, Evaluated, Result, compare_results, find_results, open_folder
from r1rl.evaluation.tables import print_scores
from r1rl.grading import default_grader
from r1rl.runs.run_directory import RunDirectory, check_writable
from r1rl.sampling_jobs.loading import check_fit, load_config
from r1rl.sampling_jobs.targets import Target, find_targets

FILE_WIDTH = 140
"""Columns of what is printed to a file."""


def run(
    recipe: EvaluateRecipe | None,
    recipe_path: Path | None,
    compare: Sequence[str] | None = None,
    force: str | None = None,
) -> None:
    """`r1rl evaluate RECIPE`, or `r1rl evaluate --compare A B`. Raises UserError before a model is loaded
    where that is possible.
    """
    console = make_console()
    if compare is not None:
        print_comparison(console, compare[0], compare[1], force is not None)
        return
    assert recipe is not None
    disable_progress_bar()
    chosen = benchmarks_of(recipe)
    targets = find_targets(recipe.models)
    for target in (target for target in targets if target.config.endpoint is None):
        load_config(target)
    check_writable(recipe.output_dir)
    folder, before = open_folder(recipe.output_dir, recipe.run_name)
    recipe = replace(recipe, fresh_seed=fresh_seed(recipe, before))
    loaded = [
        load_benchmark(config, recipe.local_dir, recipe.num_problems, recipe.fresh_seed or 0)
        for config in chosen
    ]
    if recipe.contamination_probe:
        loaded += [
            probe
            for benchmark in loaded
            for probe in contamination_probe(benchmark, recipe.contamination_probe)
        ]
    notes = [
        *(f"note: {note}" for benchmark in loaded for note in benchmark.notes),
        *check_lengths(targets, recipe, loaded),
    ]
    accelerator = Accelerator()
    if accelerator.is_main_process:
        for note in notes:
            console.print(Text(note), soft_wrap=True)
        RunDirectory(folder).write_start(recipe, describe_environment(recipe.seed))
    try:
        evaluated = [
            one
            for target in targets
            for one in evaluate_target(target, recipe, loaded, folder, accelerator, console)
        ]
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            console.print(
                f"Stopped; every finished completion is kept in {folder}. The same command goes on."
            )
        raise
    finally:
        default_grader().close()
    if accelerator.is_main_process:
        comparisons, refusals = compare_with_first(evaluated, force is not None)
        finish(console, recipe, folder, evaluated, comparisons)
        for refusal in refusals:
            console.print(Text(refusal, style="yellow"), soft_wrap=True)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def check_lengths(
    targets: Sequence[Target], recipe: EvaluateRecipe, benchmarks: Sequence[LoadedBenchmark]
) -> list[str]:
    """What there is to tell about lengths, before a model is loaded. The checkpoints of one run are alike; a
    server does not tell.
    """
    alike = {
        target.run or target.label: target for target in reversed(targets) if target.config.endpoint is None
    }
    return [check_fit(target, recipe.prompt, benchmarks) for target in reversed(alike.values())]


def make_console() -> Console:
    """Where there is no terminal, wide enough for the tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, FILE_WIDTH))


def fresh_seed(recipe: EvaluateRecipe, before: Mapping[str, Any] | None) -> int:
    """The recipe's, or that of the evaluation that goes on, or today's date."""
    if recipe.fresh_seed is not None:
        return recipe.fresh_seed
    earlier = (before or {}).get("fresh_seed")
    return int(earlier) if isinstance(earlier, int) else int(datetime.now(UTC).strftime("%Y%m%d"))


def compare_with_first(evaluated: Sequence[Evaluated], force: bool) -> tuple[list[Comparison], list[str]]:
    """Each further model's difference to the first one, by benchmark; and for those that can't be compared,
    why.
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


def finish(
    console: Console,
    recipe: EvaluateRecipe,
    folder: Path,
    evaluated: Sequence[Evaluated],
    comparisons: Sequence[Comparison],
) -> None:
    """summary.json, report.html and the tables."""
    directory = RunDirectory(folder)
    directory.write_summary(
        {
            "run_name": recipe.run_name,
            "seed": recipe.seed,
            "scores": [
                {"model": one.result.model, "benchmark": one.result.benchmark, **one.result.figures}
                for one in evaluated
            ],
            "differences": [comparison.as_json() for comparison in comparisons],
        }
    )
    page = folder / "report.html"
    partial = page.with_name(".report.html.partial")
    partial.write_text(
        render_report(recipe.run_name, evaluated, comparisons), encoding="utf-8", errors="backslashreplace"
    )
    partial.replace(page)
    print_scores(console, [one.result for one in evaluated], comparisons)
    console.print(
        Text(f"In {folder}: report.html, summary.json, and a manifest beside every score."), soft_wrap=True
    )


def print_comparison(console: Console, first: str, second: str, force: bool) -> None:
    """`--compare A B`: the difference on every benchmark that both have."""
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
