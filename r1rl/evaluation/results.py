"""The folder of an evaluation, and the comparison of two scores.

runs/<name>/
  config.yaml, environment.json
  <model>/<benchmark>/manifest.json          how the completions were sampled; written before the first one
                     /samples-00000.jsonl    completions as they finish, one file per process
                     /result.json            manifest, figures, one row per problem
  summary.json                               all figures and differences
  report.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r1rl.config.benchmarks import CONTINUATION
from r1rl.errors import UserError
from r1rl.evaluation.manifest import measured_differently
from r1rl.scoring.completions import ScoredProblem
from r1rl.scoring.intervals import PairedDifference, paired_difference

RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One model's score on one benchmark."""

    manifest: dict[str, Any]
    figures: dict[str, Any]
    problems: list[dict[str, Any]]

    @property
    def model(self) -> str:
        """The model's label."""
        return str(self.manifest["model"]["label"])

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return str(self.manifest["measured"]["benchmark"])

    @property
    def is_probe(self) -> bool:
        """A flag, true if problems were continued, not answered: the contamination probe."""
        return self.manifest["measured"].get("grading") == CONTINUATION

    def as_json(self) -> dict[str, Any]:
        """Return what result.json holds."""
        return {"manifest": self.manifest, "figures": self.figures, "problems": self.problems}


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A result, its graded completions, and where the model stands on a curve."""

    result: Result
    problems: list[ScoredProblem]
    run: str | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class EvaluationOutcome:
    """A whole evaluation: every score, and the differences between the models."""

    folder: Path
    evaluated: list[Evaluated]
    comparisons: list[Comparison]
    """Each further model minus the first one, by benchmark."""
    refusals: list[str]
    """Sentences about models that can't be compared."""

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The figures of every model on every benchmark, as summary.json has them."""
        return [
            {"model": one.result.model, "benchmark": one.result.benchmark, **one.result.figures}
            for one in self.evaluated
        ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Model B minus model A on one benchmark."""

    benchmark: str
    first: str
    second: str
    difference: PairedDifference
    measured_differently: list[str]

    def sentence(self) -> str:
        """Return "gsm8k: trained minus base is +4.1 points, 95 % interval +1.2 to +7.0 (paired over 500
        problems)".
        """
        value = f"{100 * self.difference.difference:+.1f} points"
        interval = self.difference.ci95
        sure = (
            ""
            if interval is None
            else f", 95 % interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
        )
        verdict = "" if interval is None or self.difference.is_significant else "; zero is within it"
        number = self.difference.num_problems
        return (
            f"{self.benchmark}: {self.second} minus {self.first} is {value}{sure} "
            f"(paired over {number} problems{verdict})"
        )

    def as_json(self) -> dict[str, Any]:
        """Return what summary.json holds."""
        interval = self.difference.ci95
        return {
            "benchmark": self.benchmark,
            "first": self.first,
            "second": self.second,
            "difference": {
                "value": self.difference.difference,
                "ci95": None if interval is None else list(interval),
            },
            "num_problems": self.difference.num_problems,
            "measured_differently": self.measured_differently,
        }


def by_benchmark(results: Sequence[Result]) -> list[Result]:
    """Return the results with those of one benchmark beside each other, in the order in which benchmarks and
    models came.
    """
    names = list(dict.fromkeys(result.benchmark for result in results))
    return sorted(results, key=lambda result: names.index(result.benchmark))


def open_folder(output_dir: str, run_name: str) -> tuple[Path, Mapping[str, Any] | None]:
    """Return the folder of an evaluation and the recipe that it was started with, None for a new one.

    Raises UserError if another command made the folder.
    """
    folder = Path(output_dir) / run_name
    config = folder / "config.yaml"
    if not config.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} exists and was not made by r1rl evaluate: choose another run_name.")
        return folder, None
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{config} can't be read ({error}): remove {folder}, or choose another run_name."
        ) from error
    if not isinstance(content, dict) or "benchmarks" not in content:
        raise UserError(
            f"{folder} is the run of another command: choose another run_name for this evaluation."
        )
    return folder, content


def find_results(place: str) -> dict[str, Result]:
    """Return the results in a model's folder of an evaluation, or in an evaluation of one model, by
    benchmark.

    Raises UserError if there are none, or those of several models.
    """
    found: dict[str, Result] = {}
    models = set()
    for path in sorted(Path(place).rglob(RESULT)):
        record = json.loads(path.read_text(encoding="utf-8"))
        result = Result(record["manifest"], record["figures"], record["problems"])
        models.add(str(path.parent.parent))
        found[result.benchmark] = result
    if not found:
        raise UserError(f"--compare: {place} holds no results of r1rl evaluate (no {RESULT} in it).")
    if len(models) > 1:
        raise UserError(
            f"--compare: {place} holds the results of several models; name one of "
            f"{', '.join(sorted(models))}."
        )
    return found


def compare_results(
    first: Result, second: Result, force: bool = False, names: tuple[str, str] | None = None
) -> Comparison:
    """Return the paired difference on the problems that both have decided. `names` are for two models with
    the same label.

    Raises UserError if they were measured differently, unless `force`; then the comparison says what differs.
    """
    reasons = measured_differently(first.manifest, second.manifest)
    one, other = names or (first.model, second.model)
    if reasons and not force:
        listed = "\n".join(f"  {reason}" for reason in reasons)
        raise UserError(
            f"{first.benchmark}: {one} and {other} were measured differently, so their difference would "
            f"mean nothing:\n"
            f"{listed}\nEvaluate both in the same way, or compare them all the same with --force."
        )
    earlier = {row["id"]: row["accuracy"] for row in first.problems if row["accuracy"] is not None}
    pairs = [
        (earlier[row["id"]], row["accuracy"])
        for row in second.problems
        if row["accuracy"] is not None and row["id"] in earlier
    ]
    if not pairs:
        raise UserError(f"{first.benchmark}: {one} and {other} have no graded problem in common.")
    olds, news = zip(*pairs, strict=True)
    return Comparison(first.benchmark, one, other, paired_difference(olds, news), reasons)
