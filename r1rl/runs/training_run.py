"""The life of a training run, the same for every command that trains in steps: start or resume, evaluate,
train, save, sum up.

A command gives it a trainer, whose `step` does the work, and says in a subclass what its steps leave and
show:

    class GRPORun(TrainingRun[StepResult]):
        def greeting(self) -> str: ...
        def completion_rows(self, result: StepResult) -> list[dict[str, Any]]: ...
        def shown_completions(self, result: StepResult) -> list[ShownCompletion]: ...

Here is what holds for every one of them. What is measured on held-out data is up to the subclass:
`r1rl.runs.held_out_run` samples answers to problems.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
import yaml
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.compute.distributed import (
    from_main_process,
    gather_shares,
    is_sharded,
    leave_together,
    max_over_processes,
)
from r1rl.compute.environment import describe_environment
from r1rl.config.schema import CheckpointConfig, LoggingConfig
from r1rl.errors import UserError
from r1rl.models.checkpoint_folders import find_checkpoint, set_aside_after
from r1rl.monitor.curves import PANELS, Panel, save_curves
from r1rl.monitor.progress import ProgressDisplay, ShownCompletion, format_seconds
from r1rl.runs.checkpoint import Checkpointer, TrainingState, check_launch, read_training_state
from r1rl.runs.interrupt import Interrupt
from r1rl.runs.run_directory import RunDirectory


class RunRecipe(Protocol):
    """What the recipe of every such command has."""

    run_name: str
    output_dir: str
    seed: int
    max_steps: int
    checkpoint: CheckpointConfig
    logging: LoggingConfig

    @property
    def evaluation(self) -> EvaluationTimes:
        """When held-out data is looked at; the recipe says more about it."""
        ...


class EvaluationTimes(Protocol):
    """When a run looks at held-out data."""

    every_steps: int
    at_start: bool


class DataOrder(Protocol):
    """The place of a run in its data."""

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        ...


class RunParts(Protocol):
    """What every such run works with."""

    accelerator: Accelerator
    display: ProgressDisplay
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    policy: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR

    @property
    def order(self) -> DataOrder:
        """Restored from the checkpoint."""
        ...


class StepRecord(Protocol):
    """What a step returns."""

    @property
    def metrics(self) -> dict[str, float]:
        """The same in every process."""
        ...


Result = TypeVar("Result", bound=StepRecord)
Result_co = TypeVar("Result_co", bound=StepRecord, covariant=True)


class Trainer(Protocol[Result_co]):
    """Does the steps and counts them in the run's `TrainingState`."""

    def step(self) -> Result_co:
        """One step."""
        ...


def open_run(
    recipe: RunRecipe, resume: str | None, accelerator: Accelerator
) -> tuple[RunDirectory, Path | None]:
    """The run directory (a new one, or that of the run to resume) and the checkpoint to go on from."""
    path, checkpoint = from_main_process(
        accelerator, lambda: choose_directory(recipe, resume, is_sharded(accelerator))
    )
    return RunDirectory(path), checkpoint


def choose_directory(recipe: RunRecipe, resume: str | None, sharded: bool) -> tuple[Path, Path | None]:
    """The main process's part of `open_run`: make or find the directory and write how the run starts.
    `sharded`: under FSDP2.
    """
    if resume is None:
        directory = RunDirectory.create(recipe.output_dir, recipe.run_name)
        directory.write_start(recipe, describe_environment(recipe.seed))
        return directory.path, None
    if resume == "latest":
        directory = RunDirectory.latest(recipe.output_dir, recipe.run_name)
        checkpoint = find_checkpoint(directory.checkpoints)
        if checkpoint is None:
            raise UserError(
                f"{directory.path} has no checkpoint to go on from. Start the run again without --resume."
            )
    else:
        checkpoint = Path(resume)
        directory = RunDirectory(checkpoint.resolve().parent.parent)
        if not directory.config_path.exists():
            raise UserError(
                f"{checkpoint} is in no run directory ({directory.config_path} is missing). "
                f"Resume it where its run left it."
            )
    step = read_training_state(checkpoint).step
    if step >= recipe.max_steps and directory.summary_path.exists():
        raise UserError(
            f"{checkpoint}: this run has done its {step} steps (max_steps is "
            f"{recipe.max_steps}). To go on, raise max_steps."
        )
    check_launch(checkpoint, sharded)
    set_aside_after(directory.checkpoints, step)
    directory.write_resume(recipe, describe_environment(recipe.seed), step)
    return directory.path, checkpoint


def starting_state(checkpoint: Path | None) -> TrainingState:
    """The state of the checkpoint that a run goes on from, or that of a new run."""
    return (
        read_training_state(checkpoint)
        if checkpoint
        else TrainingState(step=0, order={}, evaluations={}, seconds=0.0)
    )


class TrainingRun(ABC, Generic[Result]):
    """One run from its first (or next) step to its summary."""

    panels: ClassVar[Sequence[Panel]] = PANELS
    """Of curves.png."""
    loads_with: str = "AutoModelForCausalLM"
    """What loads the checkpoints: a class of transformers, or more."""

    def __init__(
        self,
        recipe: RunRecipe,
        parts: RunParts,
        trainer: Trainer[Result],
        state: TrainingState,
        directory: RunDirectory,
        checkpoint: Path | None,
    ) -> None:
        self.recipe = recipe
        self.parts = parts
        self.trainer = trainer
        self.state = state
        self.directory = directory
        self.accelerator = parts.accelerator
        self.display = parts.display
        self.checkpointer = Checkpointer(directory.checkpoints, parts.accelerator, recipe.checkpoint.keep)
        if checkpoint is not None:
            self.checkpointer.load(checkpoint, parts.optimizer, parts.schedule)
            parts.order.load_state_dict(state.order)

    @abstractmethod
    def greeting(self) -> str:
        """What the run is about to do, in a few sentences."""

    @abstractmethod
    def completion_rows(self, result: Result) -> list[dict[str, Any]]:
        """This process's records for completions/step-*.jsonl, each with its `slot`."""

    @abstractmethod
    def shown_completions(self, result: Result) -> list[ShownCompletion]:
        """The completions that people read beside the figures."""

    @abstractmethod
    def evaluate(self, name: str, during: bool) -> None:
        """Measure the model as it is on held-out data, if there is any, and keep the figures in
        `state.evaluations[name]`.

        `during`: between two steps, where less data is to do. Every process calls this.
        """

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """What summary.json says of the held-out data."""

    @abstractmethod
    def conclude(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Print what a person wants to see of the held-out data at the end."""

    def ahead(self) -> dict[str, Any] | None:
        """What this process has made for the next step already, as plain values that a checkpoint keeps."""
        return None

    def messages(self, result: Result) -> list[str]:
        """Sentences about what went wrong in a step."""
        return []

    def train(self) -> None:
        """Train to `max_steps`, or until Ctrl-C, which saves first."""
        self._greet()
        self._start_trackers()
        stopping = False
        with Interrupt(self.display.message) as interrupt, self.display:
            if self.recipe.evaluation.at_start and self.state.step == 0:
                self.evaluate("before", during=False)
            while self.state.step < self.recipe.max_steps:
                result = self.trainer.step()
                stopping = bool(max_over_processes(self.accelerator, int(interrupt.requested)))
                self._after_step(result, stopping)
                if stopping:
                    break
            else:
                self.evaluate("after", during=False)
        if not stopping:
            self._finish()
        elif self.accelerator.is_main_process:
            self.display.message(
                f"Stopped after step {self.state.step}; everything is saved. Go on with "
                f"the same command and --resume."
            )
        leave_together(self.accelerator)
        if stopping:
            raise KeyboardInterrupt

    def _after_step(self, result: Result, stopping: bool) -> None:
        """Write and show what the step did; evaluate and save where the recipe says so."""
        step, logging = self.state.step, self.recipe.logging
        if self.accelerator.is_main_process:
            self.directory.append_metrics({"step": step, "epoch": self.parts.order.epoch, **result.metrics})
            self.display.step(step, result.metrics)
            for message in self.messages(result):
                self.display.message(message)
        self.accelerator.log(result.metrics, step=step)
        if logging.completions_every and step % logging.completions_every == 0:
            self._write_completions(result)
        every = self.recipe.evaluation.every_steps
        last = step >= self.recipe.max_steps
        if every and step % every == 0 and not last and not stopping:
            self.evaluate(f"step-{step:06d}", during=True)
        if (
            stopping
            or last
            or (self.recipe.checkpoint.every_steps and step % self.recipe.checkpoint.every_steps == 0)
        ):
            parts = self.parts
            self.checkpointer.save(
                self.state,
                parts.policy,
                parts.model,
                parts.tokenizer,
                parts.optimizer,
                parts.schedule,
                self.ahead(),
            )

    def _write_completions(self, result: Result) -> None:
        rows = gather_shares(self.accelerator, self.completion_rows(result))
        if self.accelerator.is_main_process:
            self.directory.write_completions(self.state.step, sorted(rows, key=lambda row: row["slot"]))
            self.display.show_completions(self.state.step, self.shown_completions(result))

    def _finish(self) -> None:
        """summary.json, curves.png, and what a person wants to see at the end."""
        if not self.accelerator.is_main_process:
            return
        before, after = self.state.evaluations.get("before"), self.state.evaluations.get("after")
        start = {"run_name": self.recipe.run_name, "seed": self.recipe.seed, "steps": self.state.step}
        self.directory.write_summary({**start, "training_seconds": self.state.seconds, **self.summary()})
        figures = {record["step"]: record for record in self.state.evaluations.values()}
        title = f"{self.recipe.run_name} (seed {self.recipe.seed})"
        save_curves(self.directory.curves_path, self.directory.read_metrics(), figures, title, self.panels)
        self.conclude(before, after)
        console = self.display.console
        console.print(
            f"{self.state.step} steps in {format_seconds(self.state.seconds)}. In {self.directory.path}:"
        )
        console.print(
            f"  checkpoints/ (loads with {self.loads_with}), summary.json, curves.png, metrics.jsonl, "
            f"completions/, evaluations/"
        )

    def _greet(self) -> None:
        if not self.accelerator.is_main_process:
            return
        self.display.message(self.greeting())
        if self.state.step:
            self.display.message(f"Going on after step {self.state.step}.")
        if self.directory.was_renamed(self.recipe.run_name):
            self.display.message(
                f"The name {self.recipe.run_name} was taken, so this run is {self.directory.path.name}; "
                f"nothing was overwritten."
            )

    def _start_trackers(self) -> None:
        if self.recipe.logging.trackers:
            self.accelerator.project_configuration.logging_dir = str(self.directory.path)
            self.accelerator.init_trackers("r1rl", config=flatten(_as_dict(self.recipe)))


def _as_dict(recipe: Any) -> dict[str, Any]:
    """A recipe is a dataclass, which a protocol can't say."""
    return asdict(recipe)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A recipe as `section.key: value`, the form that experiment trackers take."""
    if isinstance(tree, dict) and tree:
        return {
            name: value
            for key, child in tree.items()
            for name, value in flatten(child, f"{prefix}{key}.").items()
        }
    scalar = (
        tree
        if isinstance(tree, (int, float, str, bool))
        else yaml.safe_dump(tree, default_flow_style=True).strip()
    )
    return {prefix.removesuffix("."): scalar}
