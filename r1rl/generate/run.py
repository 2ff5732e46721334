"""`r1rl generate`: k completions for each problem, from a model that is loaded here or from a server.

    runs/<name>/
      config.yaml, environment.json
      manifest.json                    how the completions were sampled; written before the first one
      answer/samples-00000.jsonl       completions as they finish, one file per process
      verify/samples-00000.jsonl       with a verification: those of the second round
      completions.jsonl                all of them, in the order of the problems, written in one move
      summary.json

Each completion is on disk as soon as it is finished, and has a seed of its own. So a run that was killed goes
on with the same command, with any number of processes, and no row is lost or made twice.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from rich.console import Console
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from r1rl.compute.distributed import own_share, reduce_sum
from r1rl.compute.environment import describe_environment
from r1rl.errors import DataError, UserError
from r1rl.generate.output import output_rows, print_summary, summarize
from r1rl.generate.preflight import check_settings, read_asked
from r1rl.generate.recipe import GenerateRecipe
from r1rl.generate.rounds import (
    Question,
    Round,
    Tally,
    first_round,
    sample_missing,
    second_round,
)
from r1rl.runs.run_directory import RunDirectory, check_writable
from r1rl.sampling_jobs.endpoint import EndpointSampler
from r1rl.sampling_jobs.loading import load_target_config
from r1rl.sampling_jobs.manifest import MANIFEST, differences, digest, model_weights, refuse_other_completions
from r1rl.sampling_jobs.progress import EvaluationProgress
from r1rl.sampling_jobs.sample_log import SampleIndex, SampleLog
from r1rl.sampling_jobs.samplers import EngineSampler, Sampler, load_engine_sampler
from r1rl.sampling_jobs.targets import Target, find_target
from r1rl.text.few_shot import read_examples
from r1rl.types import Problem

COMPLETIONS = "completions.jsonl"
PROCESS_WAIT = timedelta(days=7)
"""The time that processes wait for the slowest: what they sample may differ by hours."""


@dataclass(frozen=True, slots=True)
class Job:
    """The objects that the steps of a run share."""

    recipe: GenerateRecipe
    directory: RunDirectory
    accelerator: Accelerator
    console: Console


def run(recipe: GenerateRecipe, recipe_path: Path) -> None:
    """Sample what is missing and write completions.jsonl. Raises UserError before a model is loaded where
    that is possible.
    """
    disable_progress_bar()
    target = find_target(recipe.model, "model")
    if target.config.endpoint is None:
        load_target_config(target)
    questions = check_settings(recipe)
    folder = open_folder(recipe)
    loaded, _ = read_asked(recipe, questions[0])
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_WAIT)])
    console = Console(highlight=False, soft_wrap=True)
    job = Job(recipe, RunDirectory(folder), accelerator, console)
    with _alone(folder, accelerator.is_main_process):
        if accelerator.is_main_process:
            for sentence in (*loaded.notes, *loaded.warnings):
                console.print(Text(f"note: {sentence}"))
        try:
            _generate(job, target, loaded.problems, questions)
        except KeyboardInterrupt:
            if accelerator.is_main_process:
                console.print(
                    f"Stopped; every finished completion is kept in {folder}. The same command goes on."
                )
            raise
    accelerator.end_training()


def _generate(
    job: Job, target: Target, problems: list[Problem], questions: tuple[Question, Question | None]
) -> None:
    sampler, weights = load_sampler(job, target)
    first = first_round(job.directory.path, problems, job.recipe.num_samples, questions[0], sampler)
    if job.accelerator.is_main_process:
        claim(job, first, manifest_of(job, target, problems, first, sampler, weights))
    job.accelerator.wait_for_everyone()
    started = time.perf_counter()
    rounds, tallies = [first], [sample_round(job, first, sampler, job.recipe.data.max_prompt_tokens)]
    if questions[1] is not None:
        checking = without_demonstrations(job.recipe, sampler)
        second = second_round(job.directory.path, first, questions[1], checking)
        rounds.append(second)
        tallies.append(sample_round(job, second, checking, None))
    seconds = time.perf_counter() - started
    if job.accelerator.is_main_process:
        if isinstance(sampler, EndpointSampler) and sampler.refusals:
            job.console.print(
                Text(
                    f"{len(sampler.refusals)} requests were refused, such as: {sampler.refusals[0]}",
                    style="yellow",
                )
            )
        name = model_name(job.recipe, target)
        path = job.directory.path / COMPLETIONS
        job.directory.write_rows(path, output_rows(rounds, name))
        summary = summarize(job.recipe, name, len(problems), rounds, tallies, seconds, path)
        job.directory.write_summary(summary)
        print_summary(job.console, summary, path)


def open_folder(recipe: GenerateRecipe) -> Path:
    """Return the run's folder, which may hold an earlier part of this run. Raises UserError if something else
    is in it.
    """
    check_writable(recipe.output_dir)
    folder = Path(recipe.output_dir) / recipe.run_name
    if (
        folder.is_dir()
        and any(folder.iterdir())
        and not (folder / MANIFEST).is_file()
        and not (folder / LOCK).is_file()
    ):
        raise UserError(f"{folder} exists and was not made by r1rl generate: choose another run_name.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


LOCK = ".generate.lock"


@contextmanager
def _alone(folder: Path, is_main: bool) -> Iterator[None]:
    """Refuse a second run in the same folder. The lock ends with its process, however that ends."""
    if not is_main:
        yield
        return
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another r1rl generate is writing to {folder}: wait until it ends, or choose another "
                f"run_name."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


def load_sampler(job: Job, target: Target) -> tuple[Sampler, dict[str, Any]]:
    """Return the sampler, and the version of the weights behind it."""
    if target.config.endpoint is not None:
        server = EndpointSampler(target.config.endpoint, target.path, job.recipe, keep_going=True)
        return server, {"weights": f"{target.path} behind a server"}
    sampler, commit = load_engine_sampler(target, job.recipe, job.accelerator.device)
    return sampler, model_weights(target, commit) if job.accelerator.is_main_process else {}


def without_demonstrations(recipe: GenerateRecipe, sampler: Sampler) -> Sampler:
    """Return the same model for the second round: demonstrations show how to answer, not how to check."""
    if recipe.prompt.demonstrations is None:
        return sampler
    bare = replace(recipe, prompt=replace(recipe.prompt, demonstrations=None))
    if isinstance(sampler, EngineSampler):
        return EngineSampler(
            sampler.engine, sampler.tokenizer, bare, sampler.eos_token_ids, sampler.dtype, sampler.context
        )
    assert isinstance(sampler, EndpointSampler)
    return EndpointSampler(sampler.endpoint, sampler.model, bare, sampler.keep_going)


def manifest_of(
    job: Job, target: Target, problems: list[Problem], first: Round, sampler: Sampler, weights: dict[str, Any]
) -> dict[str, Any]:
    """Return all that a completion depends on. `num_samples` is not among it: more samples can be added to
    those that are there.
    """
    recipe, described = job.recipe, sampler.describe()
    examples = read_examples(recipe.prompt.demonstrations) if recipe.prompt.demonstrations else []
    prompts = first.prompts([(problem.id, 0) for problem in problems])
    return {
        "model": {**weights, "revision": target.config.revision, **described},
        "problems": digest(f"{problem.id}\0{problem.problem}\0{problem.answer}" for problem in problems),
        "prompts": digest(prompt.text for prompt in prompts),
        "prompt": {
            **asdict(recipe.prompt),
            "demonstrations": digest(f"{one.problem}\0{one.completion}" for one in examples),
        },
        "verification": recipe.verification,
        "sampling": asdict(recipe.sampling),
        "max_completion_length": recipe.max_completion_length,
        "seed": recipe.seed,
    }


def sampled_differently(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what keeps completions of one manifest from being those of another. A verification round may be
    added, or left out, later.
    """
    one_round = earlier.get("verification") is None or now["verification"] is None
    return differences(earlier, {**now, "verification": earlier.get("verification")} if one_round else now)


def claim(job: Job, first: Round, manifest: dict[str, Any]) -> None:
    """Write what the completions to come depend on. Raises UserError if some are there that were sampled in
    another way.
    """
    folder = job.directory.path
    refuse_other_completions(folder, first.folder, manifest, sampled_differently)
    job.directory.write_json(folder / MANIFEST, manifest)
    job.directory.write_start(job.recipe, describe_environment(job.recipe.seed))
    job.directory.summary_path.unlink(missing_ok=True)  # a summary says that a run is finished


def sample_round(job: Job, one: Round, sampler: Sampler, max_prompt_tokens: int | None) -> Tally:
    """Sample this process's share of what the round lacks, and add up what all processes did."""
    accelerator, recipe = job.accelerator, job.recipe
    own = own_share(accelerator, one.keys)
    kept = SampleIndex.of(one.folder).places
    accelerator.wait_for_everyone()  # everyone has read before anyone writes
    missing = [key for key in own if key not in kept]
    title = f"{job.directory.path.name}, {one.name}"
    progress = EvaluationProgress(
        job.console, title, len(own) - len(missing), len(own), accelerator.is_main_process
    )
    with SampleLog(one.folder, accelerator.process_index) as log, progress:
        tally = sample_missing(
            one,
            missing,
            sampler,
            recipe.seed,
            recipe.max_completion_length,
            max_prompt_tokens,
            log,
            progress.advance,
        )
    total = reduce_sum(
        accelerator, torch.tensor([tally.completions, tally.tokens, tally.too_long, tally.refused])
    )
    added = Tally(*total.tolist())
    if added.completions == 0 and not kept:
        reason = "every prompt is too long" if added.too_long else "the server refused every request"
        raise DataError(
            f"{one.name}: nothing could be sampled: {reason} (max_completion_length "
            f"{recipe.max_completion_length})."
        )
    return added


def model_name(recipe: GenerateRecipe, target: Target) -> str:
    """Return the name that the rows have for their author."""
    name = target.path if recipe.model.endpoint is not None else recipe.model.path
    return name if target.step is None else f"{name}, step {target.step}"
