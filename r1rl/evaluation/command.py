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

from r1rl.config.evaluate import EvaluateRecipe
from r1rl.distributed import gather_shares, own_share
from r1rl.environment import describe_environment
from r1rl.errors import UserError
from r1rl.evaluation.benchmarks import LoadedBenchmark, contamination_probe, load_benchmark, select_benchmarks
from r1rl.evaluation.endpoint import EndpointSampler
from r1rl.evaluation.grades import CONTINUATION, GradedProblem, grade_problems
from r1rl.evaluation.manifest import make_manifest, sampled_differently, weights_version
from r1rl.evaluation.progress import EvaluationProgress
from r1rl.evaluation.report import render_report
from r1rl.evaluation.results import (
    MANIFEST,
    RESULT,
    Comparison,
    Evaluated,
    Result,
    compare_results,
    find_results,
    open_folder,
    read_manifest,
)
from r1rl.evaluation.sample_log import Sample, SampleLog
from r1rl.evaluation.samplers import Request, Sampler, check_loadable, load_engine_sampler
from r1rl.evaluation.scores import problem_rows, score
from r1rl.evaluation.tables import print_scores
from r1rl.evaluation.targets import Target, find_targets
from r1rl.grading import default_grader
from r1rl.run_directory import RunDirectory, check_writable
from r1rl.seeds import derive_seed
from r1rl.types import Prompt

FILE_WIDTH = 140
"""Columns of what is printed to a file."""


def run(recipe: EvaluateRecipe | None, recipe_path: Path | None, compare: Sequence[str] | None = None, force: str | None = None) -> None:
    """`r1rl evaluate RECIPE`, or `r1rl evaluate --compare A B`. Raises UserError before a model is loaded where that is possible."""
    console = make_console()
    if compare is not None:
        print_comparison(console, compare[0], compare[1], force is not None)
        return
    assert recipe is not None
    disable_progress_bar()
    chosen = select_benchmarks(recipe)
    targets = find_targets(recipe.models)
    for target in targets:
        check_loadable(target)
    check_writable(recipe.output_dir)
    folder, before = open_folder(recipe.output_dir, recipe.run_name)
    recipe = replace(recipe, fresh_seed=fresh_seed(recipe, before))
    loaded = [load_benchmark(config, recipe.local_dir, recipe.num_problems, recipe.fresh_seed or 0) for config in chosen]
    if recipe.contamination_probe:
        probes = [contamination_probe(benchmark, recipe.contamination_probe) for benchmark in loaded]
        loaded += [probe for probe in probes if probe is not None]
    accelerator = Accelerator()
    if accelerator.is_main_process:
        for note in (note for benchmark in loaded for note in benchmark.notes):
            console.print(Text(f"note: {note}"), soft_wrap=True)
        RunDirectory(folder).write_start(recipe, describe_environment(recipe.seed))
    try:
        evaluated = [one for target in targets for one in evaluate_target(target, recipe, loaded, folder, accelerator, console)]
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            console.print(f"Stopped; every finished completion is kept in {folder}. The same command goes on.")
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


def evaluate_target(
    target: Target, recipe: EvaluateRecipe, benchmarks: Sequence[LoadedBenchmark], folder: Path, accelerator: Accelerator, console: Console
) -> list[Evaluated]:
    """One model on all benchmarks."""
    sampler: Sampler
    commit = None
    if target.config.endpoint is not None:
        sampler = EndpointSampler(target.config.endpoint, target.path, recipe)
    else:
        sampler, commit = load_engine_sampler(target, recipe, accelerator.device)
    weights = weights_version(target, commit)
    evaluated = []
    for benchmark in benchmarks:
        place = folder / target.label / benchmark.name
        prompts = sampler.render(benchmark.problems, raw=benchmark.config.grading == CONTINUATION)
        manifest = make_manifest(recipe, benchmark, target, prompts, sampler.describe(), weights)
        claim(place, manifest, accelerator)
        problems = answer(sampler, benchmark, prompts, recipe.seed, place, accelerator, console, target.label)
        figures = score(problems, benchmark.config.num_samples, benchmark.config.max_completion_length)
        result = Result(manifest, figures, problem_rows(problems))
        if accelerator.is_main_process:
            RunDirectory(place).write_json(place / RESULT, result.as_json())
        evaluated.append(Evaluated(result, problems, target.run, target.step))
    return evaluated


def claim(place: Path, manifest: dict[str, Any], accelerator: Accelerator) -> None:
    """Write the manifest of the completions to come. Raises UserError if completions are there that were sampled in another way."""
    earlier = read_manifest(place)
    has_completions = bool(SampleLog(place, accelerator.process_index).read())
    reasons = sampled_differently(earlier, manifest) if earlier is not None and has_completions else []
    if reasons:
        listed = "\n".join(f"  {reason}" for reason in reasons)
        raise UserError(
            f"{place} holds completions that were sampled in another way (then and now):\n{listed}\n"
            "Choose another run_name, or remove that folder."
        )
    accelerator.wait_for_everyone()  # everyone has read the old one
    if accelerator.is_main_process:
        RunDirectory(place).write_json(place / MANIFEST, manifest)
    accelerator.wait_for_everyone()


def answer(
    sampler: Sampler,
    benchmark: LoadedBenchmark,
    prompts: Sequence[Prompt],
    seed: int,
    place: Path,
    accelerator: Accelerator,
    console: Console,
    label: str,
) -> list[GradedProblem]:
    """Sample the completions that the log lacks, each from its own seed, and grade all. Every process gets all problems."""
    config = benchmark.config
    own = own_share(accelerator, prompts)
    log = SampleLog(place, accelerator.process_index)
    kept = log.read()
    accelerator.wait_for_everyone()  # everyone has read before anyone writes
    requests = [
        Request(prompt, index, sample_seed(seed, benchmark.name, prompt.problem.id, index))
        for prompt in own
        for index in range(config.num_samples)
    ]
    missing = [request for request in requests if (request.prompt.problem.id, request.sample) not in kept]
    title = f"{label}, {benchmark.name}"
    progress = EvaluationProgress(console, title, len(requests) - len(missing), len(requests), accelerator.is_main_process)
    with log, progress:
        raw = config.grading == CONTINUATION
        for sample in sampler.sample(missing, config.max_completion_length, raw) if missing else ():
            log.append(sample)
            kept[sample.key] = sample
            progress.advance()
    samples: list[list[Sample]] = [[kept[prompt.problem.id, index] for index in range(config.num_samples)] for prompt in own]
    return gather_shares(accelerator, grade_problems(config, own, samples))


def sample_seed(seed: int, benchmark: str, problem: str, sample: int) -> int:
    """The seed of one completion: it does not depend on which other ones are sampled, in which order, or by how many processes."""
    return derive_seed(seed, "evaluate", benchmark, problem, sample)


def compare_with_first(evaluated: Sequence[Evaluated], force: bool) -> tuple[list[Comparison], list[str]]:
    """Each further model's difference to the first one, by benchmark; and for those that can't be compared, why."""
    first: dict[str, Result] = {}
    comparisons, refusals = [], []
    for one in evaluated:
        earlier = first.setdefault(one.result.benchmark, one.result)
        if earlier is not one.result:
            try:
                comparisons.append(compare_results(earlier, one.result, force))
            except UserError as error:
                refusals.append(str(error))
    return comparisons, refusals


def finish(
    console: Console, recipe: EvaluateRecipe, folder: Path, evaluated: Sequence[Evaluated], comparisons: Sequence[Comparison]
) -> None:
    """summary.json, report.html and the tables."""
    directory = RunDirectory(folder)
    directory.write_summary(
        {
            "run_name": recipe.run_name,
            "seed": recipe.seed,
            "scores": [{"model": one.result.model, "benchmark": one.result.benchmark, **one.result.figures} for one in evaluated],
            "differences": [comparison.as_json() for comparison in comparisons],
        }
    )
    page = folder / "report.html"
    partial = page.with_name(".report.html.partial")
    partial.write_text(render_report(recipe.run_name, evaluated, comparisons), encoding="utf-8", errors="backslashreplace")
    partial.replace(page)
    print_scores(console, [one.result for one in evaluated], comparisons)
    console.print(Text(f"In {folder}: report.html, summary.json, and a manifest beside every score."), soft_wrap=True)


def print_comparison(console: Console, first: str, second: str, force: bool) -> None:
    """`--compare A B`: the difference on every benchmark that both have."""
    olds, news = find_results(first), find_results(second)
    shared = [name for name in olds if name in news]
    if not shared:
        raise UserError(f"--compare: {first} has {', '.join(olds)} and {second} has {', '.join(news)}: no benchmark in common.")
    for name in shared:
        same_label = olds[name].model == news[name].model
        comparison = compare_results(olds[name], news[name], force, (first, second) if same_label else None)
        console.print(Text(comparison.sentence()), soft_wrap=True)
        for reason in comparison.measured_differently:
            console.print(Text(f"  measured differently: {reason}", style="yellow"), soft_wrap=True)
    for name in [name for name in (*olds, *news) if name not in shared]:
        console.print(Text(f"{name}: only one of the two was evaluated on it", style="dim"))
