"""The checks of a distill recipe before a model is loaded: its problems, its completions, its rewards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from r1rl.config.engines import FoundEngine, find_engine
from r1rl.data import LoadedProblems, column_names
from r1rl.data.demonstrations import LoadedDemonstrations, read_demonstrations
from r1rl.distill.recipe import DistillRecipe
from r1rl.distill.vocabulary import Tokenizers
from r1rl.errors import UserError
from r1rl.preflight.problems import read_held_out, read_section
from r1rl.preflight.settings import check_model_folder, check_template, check_trackers
from r1rl.rewards import RewardSet
from r1rl.runs.inputs import NOTHING, Given
from r1rl.runs.run_directory import check_writable
from r1rl.types import Problem


@dataclass(frozen=True, slots=True)
class DistillPreflight:
    """The data and rewards that a run starts from. The rewards hold worker processes: call `close()` when
    done.
    """

    problems: list[Problem]
    """The problems that the student answers."""
    completions: LoadedDemonstrations
    """The completions from the recipe's file."""
    evaluation_problems: list[Problem]
    rewards: RewardSet | None
    engine: FoundEngine
    messages: list[str] = field(default_factory=list)
    """Sentences about what was assumed and what may be a mistake."""
    tokenizers: Tokenizers | None = None
    """Both models' tokenizers, compared; None before a run is launched."""

    def close(self) -> None:
        """End the rewards' processes."""
        if self.rewards is not None:
            self.rewards.close()


def preflight(recipe: DistillRecipe, recipe_path: Path, given: Given = NOTHING) -> DistillPreflight:
    """Load the data, resolve the rewards and check everything else that needs no model.

    Raises a UserError with the file, the key and the remedy at the first thing that can't work.
    """
    check_writable(recipe.output_dir)
    if given.model is None:
        check_model_folder(recipe.model.path)
    check_model_folder(recipe.teacher.path, "teacher.path")
    check_trackers(recipe.logging)
    check_template(recipe.prompt.template)
    engine = find_engine(recipe.rollout.engine, recipe_path.parent)
    asked = LoadedProblems([])
    if recipe.data is not None:
        asked = read_section(recipe.data, recipe.seed, "data", given.rows)
    written = (
        LoadedDemonstrations("", [])
        if recipe.completions is None
        else read_demonstrations(recipe.completions, "completions")
    )
    held_out = read_held_out(recipe.evaluation, given.evaluation_rows)
    rewards = None
    if held_out.problems:
        rewards = RewardSet(
            recipe.rewards,
            recipe.outcome,
            recipe_path.parent,
            column_names(held_out.problems),
            given.functions,
        )
    messages = [message for part in (asked, held_out) for message in (*part.notes, *part.warnings)]
    return DistillPreflight(asked.problems, written, held_out.problems, rewards, engine, messages)


def check_processes(recipe: DistillRecipe, num_processes: int) -> None:
    """Refuse a step whose prompts of each kind can't be shared out evenly among the processes."""
    answered = recipe.on_policy_prompts
    for what, count in (
        ("that the student answers", answered),
        ("with completions from the file", recipe.rollout.num_prompts - answered),
    ):
        if count % num_processes:
            raise UserError(
                f"a step has {count} prompts {what} (on_policy {recipe.on_policy:g} of rollout.num_prompts "
                f"{recipe.rollout.num_prompts}), "
                f"which {num_processes} processes do not divide: change one of the two, or start another "
                f"number of processes."
            )
