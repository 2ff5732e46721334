"""Evaluation from Python: the scores, intervals and manifests of `r1rl evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1rl.api.recipes import resolve_recipe

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedTokenizerBase

    from r1rl.evaluation.results import Comparison, EvaluationOutcome


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of models on benchmarks, with everything that the command writes beside them."""

    outcome: EvaluationOutcome

    @property
    def path(self) -> Path:
        """The folder with report.html, summary.json, and a manifest beside every score."""
        return self.outcome.folder

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each model and benchmark: accuracy with its 95 % interval (`low`, `high`), problems,
        samples.
        """
        import pandas

        rows = []
        for one in self.outcome.evaluated:
            accuracy = one.result.figures["accuracy"] or {"value": None, "ci95": None}
            low, high = accuracy["ci95"] or (None, None)
            rows.append(
                {
                    "model": one.result.model,
                    "benchmark": one.result.benchmark,
                    "accuracy": accuracy["value"],
                    "low": low,
                    "high": high,
                    "problems": one.result.figures["num_problems"],
                    "samples": one.result.figures["num_samples"],
                }
            )
        return pandas.DataFrame(rows)

    def figures(self, model: str | None = None, benchmark: str | None = None) -> dict[str, Any]:
        """Return all figures of one score, as summary.json has them. A name may be left out where there is
        one only.
        """
        return self._one(model, benchmark).result.figures

    def manifest(self, model: str | None = None, benchmark: str | None = None) -> dict[str, Any]:
        """Return how one score was measured: everything that it depends on."""
        return self._one(model, benchmark).result.manifest

    @property
    def comparisons(self) -> list[Comparison]:
        """Each further model minus the first one, by benchmark, paired over the problems."""
        return self.outcome.comparisons

    def _one(self, model: str | None, benchmark: str | None) -> Any:
        fitting = [
            one
            for one in self.outcome.evaluated
            if model in (None, one.result.model) and benchmark in (None, one.result.benchmark)
        ]
        if len(fitting) != 1:
            known = ", ".join(
                f"{one.result.model} on {one.result.benchmark}" for one in self.outcome.evaluated
            )
            raise KeyError(
                f"{len(fitting)} scores fit model {model} and benchmark {benchmark}; there are {known}"
            )
        return fitting[0]

    def __repr__(self) -> str:
        return self.table.to_string(index=False)

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False)


Model = Any
"""A path or hub name as `models.path` takes it, a mapping with the keys of one of `models`, or a model in
memory.
"""


def evaluate(
    model: Model | Mapping[str, Model],
    benchmarks: Sequence[str],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    run_name: str = "evaluate",
    **settings: Any,
) -> Scores:
    """Score one model, or several of a mapping {name: model}, on benchmarks, and compare them with the first.

    A model is a run directory, a folder, a hub name, or a `PreTrainedModel` in memory, with its `tokenizer`
    unless it knows where it was loaded from. `benchmarks` and `settings` are keys of the recipe of `r1rl
    evaluate` (docs/evaluate.md), such as `num_problems=200`, `sampling={"temperature": 0}`. Completions that
    lie in `output_dir`/`run_name` already are used where they were sampled in the same way. Raises UserError
    before a model is loaded where that is possible.
    """
    from accelerate import Accelerator

    from r1rl.evaluation.run import evaluate as evaluate_job
    from r1rl.evaluation.run import make_console, prepare

    named = model if _is_group(model) else {None: model}
    given = {name or "model": _in_memory(one, tokenizer) for name, one in named.items() if _is_object(one)}
    models = [_entry(name, one) for name, one in named.items()]
    recipe, _ = resolve_recipe(
        {"run_name": run_name, "models": models, "benchmarks": list(benchmarks)}, settings, {}, "evaluate"
    )
    job = prepare(recipe, given)
    accelerator = Accelerator()
    outcome = evaluate_job(job, accelerator, make_console())
    return Scores(outcome)


def _is_object(model: Model) -> bool:
    return not isinstance(model, str | Path | Mapping)


def _is_group(model: Any) -> bool:
    """Return whether a mapping has models by name, and not the keys of one model."""
    return isinstance(model, Mapping) and "path" not in model


def _entry(name: str | None, model: Model) -> dict[str, Any]:
    """Return what the recipe says of a model; the path of one in memory is its name."""
    if isinstance(model, Mapping):
        entry = dict(model)
    else:
        entry = {"path": str(model) if isinstance(model, str | Path) else name or "model"}
    return entry if name is None else {**entry, "name": name}


def _in_memory(model: Any, tokenizer: PreTrainedTokenizerBase | None) -> Any:
    from r1rl.models.loading import InMemory

    return InMemory(model, tokenizer)
