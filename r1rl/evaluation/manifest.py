"""How a score was measured: everything that it depends on besides the model, and the model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1rl import __version__, grading
from r1rl.bundled import bundled_path
from r1rl.config.evaluate import BenchmarkConfig, EvaluateRecipe
from r1rl.environment import describe_environment
from r1rl.evaluation.benchmarks import LoadedBenchmark
from r1rl.evaluation.grades import CONTINUATION
from r1rl.evaluation.targets import Target
from r1rl.models import ADAPTER_CONFIG
from r1rl.types import Prompt

MEASURED = "measured"
REGRADED = ("grader", "grading", "num_samples", "group_by")
"""Part of how a score was measured, but not of how a completion was sampled: logged completions stay good when these change."""


def make_manifest(
    recipe: EvaluateRecipe,
    benchmark: LoadedBenchmark,
    target: Target,
    prompts: Sequence[Prompt],
    sampler: Mapping[str, Any],
    weights: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest of one score. `measured` is what must agree for two scores to be comparable; `weights` is `model_weights`'."""
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


def differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two mappings, one sentence each: "sampling.temperature: 0.6 and 1.0"."""
    found = []
    for key in dict.fromkeys([*first, *second]):
        one, other = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}: {one} and {other}")
    return found


def measured_differently(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What keeps two scores from being comparable."""
    return differences(first[MEASURED], second[MEASURED])


def sampled_differently(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What keeps completions of one manifest from being those of another."""
    kept = [{key: value for key, value in manifest[MEASURED].items() if key not in REGRADED} for manifest in (first, second)]
    own = [{"seed": manifest["seed"], "model": {k: v for k, v in manifest["model"].items() if k != "path"}} for manifest in (first, second)]
    return differences({**kept[0], **own[0]}, {**kept[1], **own[1]})


def digest(texts: Any) -> str:
    """A short hash of texts and their order."""
    joined = hashlib.blake2b(digest_size=8)
    for text in texts:
        joined.update(text.encode("utf-8", errors="backslashreplace") + b"\0\n")
    return joined.hexdigest()


def grader_version(config: BenchmarkConfig) -> str:
    """The version of r1rl and a hash of the grader's own source, which may be newer."""
    files = sorted(Path(grading.__file__).parent.glob("*.py"))
    if config.grading == "countdown":
        files.append(bundled_path("rewards") / "countdown.py")
    return f"{__version__}+{digest(file.read_text(encoding='utf-8') for file in files)}"


def model_weights(target: Target, commit: str | None) -> dict[str, Any]:
    """"weights": which weights were evaluated; of an adapter its own, with those of its model under "base".

    `commit` is the hub commit that the model was loaded from, None for a folder. A server does not tell.
    """
    if target.config.endpoint is not None:
        return {"weights": "unknown: behind a server"}
    adapter = target.adapter
    if adapter is None:
        return {"weights": _version(target.path, commit)}
    base = {"path": target.path, "revision": target.revision, "weights": _version(target.path, commit)}
    return {"weights": _version(adapter.path, adapter.commit), "base": base}


def _version(path: str, commit: str | None) -> str:
    """The hub commit, or a hash of the weight files of a folder; of an adapter its configuration too, which has the scale."""
    folder = Path(path)
    if not folder.is_dir():
        return f"commit {commit}"
    joined = hashlib.blake2b(digest_size=16)
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob(ADAPTER_CONFIG)]):
        with file.open("rb") as content:
            joined.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return joined.hexdigest()
