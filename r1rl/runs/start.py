"""The place of a run on the disk: a new run directory, or that of the run to resume, and the state to go on
from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from accelerate import Accelerator

from r1rl.compute.distributed import from_main_process, is_sharded
from r1rl.compute.environment import describe_environment
from r1rl.compute.trials import Trial, trial_records, trial_report
from r1rl.errors import UserError
from r1rl.models.checkpoint_folders import find_checkpoint, set_aside_after
from r1rl.monitor.progress import ProgressDisplay
from r1rl.runs.checkpoint import TrainingState, check_launch, read_training_state
from r1rl.runs.contract import RunRecipe
from r1rl.runs.hooks import Hook
from r1rl.runs.inputs import Given
from r1rl.runs.run_directory import RunDirectory

Recipe = TypeVar("Recipe", bound=RunRecipe)


@dataclass(frozen=True, slots=True)
class RunStart(Generic[Recipe]):
    """A run that has its place but not its model yet; a command builds its parts from this."""

    recipe: Recipe
    """The recipe with nothing left to decide."""
    given: Given
    hooks: list[Hook]
    accelerator: Accelerator
    directory: RunDirectory
    checkpoint: Path | None
    """The checkpoint to go on from; None for a new run."""
    state: TrainingState
    display: ProgressDisplay
    trials: list[Trial] = field(default_factory=list)
    """The trials of the fast ways to compute, accepted or refused."""

    def report_trials(self, trials: Sequence[Trial]) -> None:
        """Say what these trials refused, each on a line with its cost, and add them to environment.json."""
        self.trials.extend(trials)
        for line in trial_report(trials):
            self.display.message(line)
        if self.accelerator.is_main_process:
            self.directory.write_trials(trial_records(self.trials))


def open_run(
    recipe: RunRecipe, resume: str | None, accelerator: Accelerator
) -> tuple[RunDirectory, Path | None]:
    """Return the run directory (a new one, or that of the run to resume) and the checkpoint to go on from."""
    path, checkpoint = from_main_process(
        accelerator, lambda: choose_directory(recipe, resume, is_sharded(accelerator))
    )
    return RunDirectory(path), checkpoint


def choose_directory(recipe: RunRecipe, resume: str | None, sharded: bool) -> tuple[Path, Path | None]:
    """Make or find the directory and write how the run starts: the main process's part of `open_run`.
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
    """Return the state of the checkpoint that a run goes on from, or that of a new run."""
    return (
        read_training_state(checkpoint)
        if checkpoint
        else TrainingState(step=0, order={}, evaluations={}, seconds=0.0)
    )
