"""A run opened from Python: the contents of its directory as tables, figures and models.

    run = r1rl.open_run("runs/tiny")
    run.metrics["reward"]              # one row per step
    run.completions()                  # the completions that were written last
    run.model(), run.tokenizer()       # of the newest checkpoint

Every attribute is read from the directory when it is asked for, so the view of a running run grows with it.
Nothing is ever written. Only `curves`, `model` and `tokenizer` import what is slow to import.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from r1rl.config.commands import command_of, resolve
from r1rl.config.load import load_recipe
from r1rl.config.schema import SampledModelConfig
from r1rl.errors import UserError
from r1rl.models.checkpoint_folders import find_checkpoint, whole_checkpoints
from r1rl.monitor import metric_names as names
from r1rl.runs.run_directory import STEP_FILE, RunDirectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1rl.monitor.curves import CurvesFigure
    from r1rl.sampling_jobs.targets import Target

BEFORE, AFTER = "before", "after"
"""The names of the evaluations at the start and at the end of a run; those between are called step-000020."""


def open_run(path: str | Path) -> Run:
    """Open the directory of a finished or running run of any command that trains.

    Raises UserError, with what was found instead, if `path` is no run directory.
    """
    path = Path(path).expanduser()
    if _is_run(path):
        return Run(path)
    raise UserError(f"{path} is no run directory: {_found_at(path)}")


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A run, finished or still running, seen through its directory (r1rl.runs.run_directory lists it)."""

    path: Path

    @property
    def recipe(self) -> Any:
        """The resolved recipe: the dataclass of the command that trained, such as GRPORecipe, with every
        default filled in. Raises RecipeError if this version of r1rl can't read it.
        """
        return load_recipe("check", self._files.config_path)

    @property
    def metrics(self) -> pd.DataFrame:
        """The metrics: one row per step, the index, and one column of floats per metric; NaN where a step has
        no value. A line that is being written, or that a killed process began, is left out.
        """
        records = self._files.read_metrics()
        frame = pd.DataFrame.from_records(records, columns=None if records else [names.STEP])
        steps = frame.pop(names.STEP).astype("int64")
        return frame.astype("float64").set_index(pd.Index(steps, name=names.STEP))

    @property
    def completion_steps(self) -> list[int]:
        """The steps whose completions were written (`logging.completions_every`), in ascending order."""
        return sorted(_steps_of_files(self._files.completions))

    def completions(self, step: int | None = None) -> pd.DataFrame:
        """Return the completions of a step, one row each.

        The default is the last step whose completions were written.
        The columns of a GRPO run are slot, problem_id, prompt, answer, completion, rewards/<name> for each
        reward before its weight (NaN where it does not apply), reward, outcome, advantage, finish_reason and
        num_tokens; other commands write other columns. Raises UserError if nothing was written for the step.
        """
        steps = self.completion_steps
        if not steps or (step is not None and step not in steps):
            listed = ", ".join(map(str, steps)) or "none"
            wanted = "any step" if step is None else f"step {step}"
            raise UserError(
                f"{self.path}: no completions were written for {wanted}; the steps that have some: {listed}. "
                f"The recipe's logging.completions_every says how often they are."
            )
        step = steps[-1] if step is None else step
        text = (self._files.completions / f"step-{step:06d}.jsonl").read_text(encoding="utf-8")
        frame = pd.json_normalize([json.loads(line) for line in text.split("\n") if line], sep="/")
        numbers = [name for name in frame if name.startswith("rewards/") or name in ("reward", "outcome")]
        return frame.astype(dict.fromkeys(numbers, "float64"))

    @property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        """The evaluations on held-out data by name, in the order in which they were made: "before",
        "step-000020", ..., "after". Each is the content of its file: its "figures", and every answer.
        """
        files = sorted(self._files.evaluations.glob("*.json"), key=lambda file: _moment(file.name))
        return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}

    @property
    def summary(self) -> dict[str, Any] | None:
        """The final figures; None as long as the run has not finished."""
        path = self._files.summary_path
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    @property
    def checkpoints(self) -> list[Path]:
        """The folders of the whole checkpoints, oldest first."""
        return whole_checkpoints(self._files.checkpoints)

    @property
    def checkpoint(self) -> Path | None:
        """The folder of the newest whole checkpoint; None if there is none yet."""
        return find_checkpoint(self._files.checkpoints)

    def curves(self) -> CurvesFigure:
        """Draw the panels of curves.png from the steps so far. A notebook shows the figure, and its `savefig`
        writes it; pyplot does not know it.
        """
        from r1rl.monitor.curves import PANELS, draw_curves

        recipe, records = self.recipe, self._files.read_metrics()
        last = records[-1][names.STEP] if records else 0
        figures = {
            last if name == AFTER else _moment(f"{name}.json")[1]: record["figures"]
            for name, record in self.evaluations.items()
        }
        title = f"{recipe.run_name} (seed {recipe.seed})"
        training = command_of(recipe).training
        return draw_curves(records, figures, title, PANELS if training is None else resolve(training).panels)

    def model(
        self, step: int | None = None, dtype: Literal["float32", "bfloat16"] = "float32"
    ) -> PreTrainedModel:
        """Load the model of a checkpoint onto the CPU, in evaluation mode; None: of the newest checkpoint.

        Adapters are merged into their model, as `r1rl evaluate` does. Raises UserError if there is no such
        checkpoint, or if it can't be loaded.
        """
        import torch

        from r1rl.models.loading import SCORER, load_model, resolve_dtype
        from r1rl.sampling_jobs.loading import load_target_model

        target, device = self._target(step), torch.device("cpu")
        wanted = resolve_dtype(dtype, device)
        if _is_scorer(Path(target.path)):
            return load_model(target.path, wanted, kind=SCORER).eval().requires_grad_(False)
        return load_target_model(target, self.tokenizer(step), wanted, device)

    def tokenizer(self, step: int | None = None) -> PreTrainedTokenizerBase:
        """Load the tokenizer of a checkpoint. `step` and errors are as in `model`."""
        from r1rl.sampling_jobs.loading import load_target_tokenizer

        return load_target_tokenizer(self._target(step))

    def _target(self, step: int | None) -> Target:
        from r1rl.sampling_jobs.targets import find_target

        return find_target(SampledModelConfig(path=str(self.path), step=step), "model")

    @property
    def _files(self) -> RunDirectory:
        return RunDirectory(self.path)

    def __repr__(self) -> str:
        """Return one line: the folder, the steps and whether the run has finished."""
        return f"<Run {self.path}: {', '.join(self._state().values())}>"

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        rows = {"run": str(self.path), **self._state()}
        accuracy = [
            f"{name} {record['figures']['accuracy']['value']:.1%}"
            for name, record in self.evaluations.items()
            if name in (BEFORE, AFTER) and record["figures"].get("accuracy")
        ]
        if accuracy:
            rows["held-out accuracy"] = ", ".join(accuracy)
        cells = (f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows.items())
        return f"<table>{''.join(cells)}</table>"

    def _state(self) -> dict[str, str]:
        records = self._files.read_metrics()
        steps = records[-1][names.STEP] if records else 0
        finished = self._files.summary_path.exists()
        return {"steps": f"{steps} steps", "state": "finished" if finished else "not finished"}


def _is_run(path: Path) -> bool:
    return RunDirectory(path).config_path.is_file()


def _found_at(path: Path) -> str:
    """Return what is there instead of a run, and which run may be meant."""
    if not path.exists():
        near = get_close_matches(path.name, (run.name for run in _runs_in(path.parent)), n=1)
        meant = [path.with_name(near[0])] if near else [run for run in (Path("runs") / path,) if _is_run(run)]
        return f"there is no such folder.{f' Did you mean {meant[0]}?' if meant else ''}"
    if path.is_file():
        return f"it is a file. Open the folder of the run{_around(path)}."
    if around := _around(path):
        return f"it is a part of one. Open the folder of the run{around}."
    inside = [str(run) for run in _runs_in(path)]
    if inside:
        return f"it holds runs. Open one of them: {', '.join(inside)}."
    content = ", ".join(sorted(entry.name for entry in path.iterdir())[:10]) or "nothing"
    return f"it has no config.yaml, which every run writes first. It holds: {content}."


def _around(path: Path) -> str:
    """Return ", <folder>" for the run that a file or folder is in; empty if it is in none."""
    return next((f", {folder}" for folder in path.parents if _is_run(folder)), "")


def _runs_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_run(path)) if folder.is_dir() else []


def _steps_of_files(folder: Path) -> Iterator[int]:
    """Yield the steps of a folder's files named step-000010.jsonl, in any order."""
    for file in folder.glob("step-*"):
        if match := STEP_FILE.fullmatch(file.name):
            yield int(match[1])


def _moment(file: str) -> tuple[int, int]:
    """Return the place of an evaluation's file in the order of a run, and its step where its name has one."""
    match = STEP_FILE.fullmatch(file)
    return (1, int(match[1])) if match else (0 if file == f"{BEFORE}.json" else 2, 0)


def _is_scorer(folder: Path) -> bool:
    """Return whether the model in a folder is a reward model, which has a score in the place of logits."""
    config = folder / "config.json"
    if not config.is_file():
        return False
    architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)
