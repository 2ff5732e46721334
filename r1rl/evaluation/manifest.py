"""The manifest of a score: the model, and everything else that the score depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1rl import __version__, grading
from r1rl.compute.environment import describe_environment
from r1rl.config.benchmarks import CONTINUATION, BenchmarkConfig
from r1rl.config.bundled import bundled_path
from r1rl.data.benchmarks import LoadedBenchmark
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.sampling_jobs.manifest import differences, digest
from r1rl.sampling_jobs.targets import Target
from r1rl.types import Prompt

MEASURED = "measured"


REGRADED = ("grader", "grading", "num_samples", "group_by")
"""Part of how a score was measured, but not of how a completion was sampled: logged completions stay good
when these change.
"""


def make_manifest(
    recipe: EvaluateRecipe,
    benchmark: LoadedBenchmark,
    target: Target,
    prompts: Sequence[Prompt],
    sampler: Mapping[str, Any],
    weights: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest of one score. `measured` is what must agree for two scores to be comparable;
    `weights` is `model_weights`'.
    """
    config = benchmark.config
    raw = config.grading == CONTINUATION
    return {
        MEASURED: {
            "benchmark": config.name,
            "version": config.version,
            "num_problems": len(prompts),
            "problems": digest(f"{p.problem.id}\0{p.problem.problem}\0{p.problem.answer}" for p in prompts),
            "question": config.question,
            "prompt": {"template": "the problem alone"} if raw else asdict(recipe.prompt),
            "prompts": digest(prompt.text for prompt in prompts),
            "sampling": {"temperature": 0.0} if raw else asdict(recipe.sampling),
            "max_completion_length": config.max_completion_length,
            "num_samples": config.num_samples,
            "grading": config.grading,
            "group_by": config.group_by,
            "grader": grader_version(config),
            "engine": sampler["engine"],
            "dtype": sampler["dtype"],
        },
        "model": {
            "label": target.label,
            "path": target.path if target.adapter is None else target.adapter.path,
            "revision": target.config.revision,
            "step": target.step,
            **weights,
            "eos_token_ids": sampler["eos_token_ids"],
        },
        "seed": recipe.seed,
        "data": asdict(config.data),
        "example": prompts[0].text,
        "environment": describe_environment(recipe.seed),
    }


def measured_differently(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return what keeps two scores from being comparable."""
    return differences(first[MEASURED], second[MEASURED])


def sampled_differently(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return what keeps completions of one manifest from being those of another."""
    kept = [
        {key: value for key, value in manifest[MEASURED].items() if key not in REGRADED}
        for manifest in (first, second)
    ]
    own = [
        {"seed": manifest["seed"], "model": {k: v for k, v in manifest["model"].items() if k != "path"}}
        for manifest in (first, second)
    ]
    return differences({**kept[0], **own[0]}, {**kept[1], **own[1]})


def grader_version(config: BenchmarkConfig) -> str:
    """Return the version of r1rl and a hash of the grader's own source, which may be newer."""
    files = sorted(Path(grading.__file__).parent.glob("*.py"))
    if config.grading == "countdown":
        files.append(bundled_path("rewards") / "countdown.py")
    return f"{__version__}+{digest(file.read_text(encoding='utf-8') for file in files)}"
