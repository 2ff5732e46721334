"""The evaluation of one model: sample the completions that its log lacks, grade all, keep the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console

from r1rl.compute.distributed import gather_shares, own_share
from r1rl.data.benchmarks import LoadedBenchmark
from r1rl.evaluation.manifest import make_manifest, sampled_differently
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.evaluation.results import RESULT, Evaluated, Result
from r1rl.runs.run_directory import RunDirectory
from r1rl.sampling_jobs.endpoint import EndpointSampler
from r1rl.sampling_jobs.loading import RenderedTarget
from r1rl.sampling_jobs.manifest import MANIFEST, model_weights, refuse_other_completions
from r1rl.sampling_jobs.progress import EvaluationProgress
from r1rl.sampling_jobs.sample_log import SampleLog
from r1rl.sampling_jobs.samplers import Request, Sampler, load_engine_sampler
from r1rl.sampling_jobs.targets import Target
from r1rl.scoring.completions import ScoredProblem
from r1rl.scoring.figures import figures, problem_rows
from r1rl.scoring.grades import grade_problems
from r1rl.seeds import derive_seed
from r1rl.types import Prompt, Sample


def evaluate_target(
    target: Target,
    recipe: EvaluateRecipe,
    benchmarks: Sequence[LoadedBenchmark],
    folder: Path,
    accelerator: Accelerator,
    console: Console,
    rendered: RenderedTarget | None = None,
) -> list[Evaluated]:
    """Evaluate one model on all benchmarks. `rendered` has its tokenizer and prompts where they are known."""
    sampler: Sampler
    commit = None
    if target.config.endpoint is not None:
        sampler = EndpointSampler(target.config.endpoint, target.path, recipe)
    else:
        sampler, commit = load_engine_sampler(
            target, recipe, accelerator.device, rendered.tokenizer if rendered is not None else None
        )
    weights = model_weights(target, commit)
    evaluated = []
    for benchmark in benchmarks:
        place = folder / target.label / benchmark.name
        prompts = (
            rendered.prompts[benchmark.name]
            if rendered is not None
            else sampler.render(benchmark.problems, raw=benchmark.is_probe)
        )
        manifest = make_manifest(recipe, benchmark, target, prompts, sampler.describe(), weights)
        claim(place, manifest, accelerator)
        problems = answer(sampler, benchmark, prompts, recipe.seed, place, accelerator, console, target.label)
        found = figures(problems, benchmark.config.num_samples, benchmark.config.max_completion_length)
        result = Result(manifest, found, problem_rows(problems))
        if accelerator.is_main_process:
            RunDirectory(place).write_json(place / RESULT, result.as_json())
        evaluated.append(Evaluated(result, problems, target.run, target.step))
    return evaluated


def claim(place: Path, manifest: dict[str, Any], accelerator: Accelerator) -> None:
    """Write the manifest of the completions to come. Raises UserError if completions are there that were
    sampled in another way.
    """
    refuse_other_completions(place, place, manifest, sampled_differently)
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
) -> list[ScoredProblem]:
    """Sample the completions that the log lacks, each from its own seed, and grade all. Every process gets
    all problems.
    """
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
    others = accelerator.num_processes
    title = f"{label}, {benchmark.name}" + (
        f" (the share of one of {others} processes)" if others > 1 else ""
    )
    progress = EvaluationProgress(
        console, title, len(requests) - len(missing), len(requests), accelerator.is_main_process
    )
    with log, progress:
        for sample in (
            sampler.sample(missing, config.max_completion_length, benchmark.is_probe) if missing else ()
        ):
            log.append(sample)
            kept[sample.key] = sample
            progress.advance()
    samples: list[list[Sample]] = [
        [kept[prompt.problem.id, index] for index in range(config.num_samples)] for prompt in own
    ]
    return gather_shares(accelerator, grade_problems(config, own, samples))


def sample_seed(seed: int, benchmark: str, problem: str, sample: int) -> int:
    """Return the seed of one completion: it does not depend on which other ones are sampled, in which order,
    or by how many processes.
    """
    return derive_seed(seed, "evaluate", benchmark, problem, sample)
