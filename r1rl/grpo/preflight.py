"""The checks of a GRPO recipe before its model is loaded: settings, problems, rewards and gold answers.

`r1rl grpo` calls `preflight` first, so that a mistake ends the run in seconds; `r1rl check` calls the same
function and shows what it found.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from r1rl.data import column_names
from r1rl.errors import RecipeError, RewardError, UserError
from r1rl.grpo.components import Components, find_components
from r1rl.grpo.recipe import GRPORecipe
from r1rl.objective.kl import KL_ESTIMATORS
from r1rl.preflight.answers import GoldDefect, audit_gold, gold_warnings
from r1rl.preflight.problems import read_held_out, read_section
from r1rl.preflight.settings import check_model_folder, check_template, check_trackers
from r1rl.rewards import RewardSet
from r1rl.runs.inputs import NOTHING, Given
from r1rl.runs.run_directory import check_writable
from r1rl.types import Problem


@dataclass(frozen=True, slots=True)
class Preflight:
    """The data and rewards that a run starts from. The rewards hold worker processes: call `rewards.close()`
    when done.
    """

    problems: list[Problem]
    evaluation_problems: list[Problem]
    """The held-out problems, at most `evaluation.num_problems`; empty without `evaluation.data`."""
    rewards: RewardSet
    components: Components
    notes: list[str] = field(default_factory=list)
    """Sentences about what was assumed."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about what may be a mistake."""
    gold_defects: list[GoldDefect] = field(default_factory=list)
    """The gold answers of both sets that the grader can't use or can only compare as text."""

    @property
    def messages(self) -> list[str]:
        """The sentences that are shown when a run starts."""
        return [f"warning: {warning}" for warning in self.warnings]

    def close(self) -> None:
        """End the rewards' processes."""
        self.rewards.close()


def preflight(recipe: GRPORecipe, recipe_path: Path, given: Given = NOTHING) -> Preflight:
    """Load the problems, resolve the rewards and check everything else that needs no model.

    Raises a UserError with the file, the key and the remedy at the first thing that can't work.
    """
    check_settings(recipe, given)
    components = find_components(recipe, recipe_path.parent)
    loaded = read_section(recipe.data, recipe.seed, "data", given.rows)
    held_out = read_held_out(recipe.evaluation, given.evaluation_rows)
    rewards = _resolve_rewards(recipe, recipe_path.parent, loaded.problems, held_out.problems, given)
    try:
        defects = audit_gold(recipe.data, loaded.problems, held_out.problems, rewards.outcome_name)
    except UserError:
        rewards.close()
        raise
    warnings = [
        *loaded.warnings,
        *held_out.warnings,
        *_suspicions(recipe, loaded.problems, held_out.problems),
        *_unrewarded(rewards, loaded.problems),
        *gold_warnings(defects),
    ]
    notes = [*loaded.notes, *held_out.notes]
    return Preflight(loaded.problems, held_out.problems, rewards, components, notes, warnings, defects)


def check_settings(recipe: GRPORecipe, given: Given = NOTHING) -> None:
    """Check what needs no problems: folders, template and packages. Raises a UserError at the first thing
    that can't work.
    """
    check_writable(recipe.output_dir)
    if given.model is None:
        check_model_folder(recipe.model.path)
    check_trackers(recipe.logging)
    check_template(recipe.prompt.template)
    if recipe.model.lora is not None and importlib.util.find_spec("peft") is None:
        raise RecipeError(
            "model.lora trains adapters through peft, which is not installed: pip install 'r1rl[peft]', or "
            "leave it out."
        )


def check_processes(recipe: GRPORecipe, num_processes: int, sharded: bool) -> None:
    """Refuse a batch that can't be shared out evenly among the processes, and adapters of a model that is
    sharded among them.
    """
    if sharded and recipe.model.lora is not None:
        raise UserError(
            "model.lora trains adapters of a whole model in each process, but this launch shards it "
            "(FSDP2): use "
            "recipes/accelerate/ddp.yaml, or train all weights."
        )
    unit = num_processes * recipe.algorithm.num_minibatches
    if recipe.rollout.num_prompts % unit:
        raise UserError(
            f"rollout.num_prompts is {recipe.rollout.num_prompts}, which {num_processes} processes x "
            f"{recipe.algorithm.num_minibatches} "
            f"minibatches do not divide: make it a multiple of {unit}, or start another number of processes."
        )


def check_rows(recipe: GRPORecipe, device: str) -> None:
    """Refuse to sample as many rows as fit where the update needs memory at the same time."""
    if recipe.rollout.one_step_off and device == "cuda" and not recipe.rollout.max_rows:
        raise UserError(
            "rollout.one_step_off samples while the update runs, so on a GPU the rows that decode at once "
            "can't be as many as fit: write "
            "rollout.max_rows, such as 64; r1rl check estimates what both need together."
        )


def _resolve_rewards(
    recipe: GRPORecipe, base_dir: Path, problems: list[Problem], held_out: list[Problem], given: Given
) -> RewardSet:
    """Return the recipe's rewards, checked against the columns of both sets of problems."""
    columns = column_names(problems)
    rewards = RewardSet(recipe.rewards, recipe.outcome, base_dir, columns, given.functions)
    if held_out and not columns <= column_names(held_out):
        try:
            RewardSet(recipe.rewards, recipe.outcome, base_dir, column_names(held_out), given.functions)
        except RewardError as error:
            rewards.close()
            raise RewardError(f"evaluation.data lacks a column that data has: {error}") from error
    return rewards


def _suspicions(recipe: GRPORecipe, problems: list[Problem], held_out: list[Problem]) -> list[str]:
    """Return sentences about sizes, settings and problems that may be a mistake."""
    warnings = []
    if len(problems) < recipe.rollout.num_prompts:
        warnings.append(
            f"data has {len(problems)} problems, fewer than a step's {recipe.rollout.num_prompts} prompts: "
            f"it repeats some."
        )
    if held_out and len(held_out) < recipe.evaluation.num_problems:
        warnings.append(
            f"evaluation.data has {len(held_out)} problems; evaluation.num_problems asks for "
            f"{recipe.evaluation.num_problems}."
        )
    if (
        recipe.algorithm.beta != 0
        and not KL_ESTIMATORS[recipe.algorithm.kl_estimator].pulls
        and not recipe.algorithm.kl_bias_correction
    ):
        warnings.append(
            f"algorithm.kl_estimator: {recipe.algorithm.kl_estimator} has an expected gradient of zero as a "
            f"term of the loss, so beta has "
            "no effect on average: "
            "write kl_bias_correction: true, or k2 or k3."
        )
    trained_on = {_words(problem) for problem in problems}
    shared = sum(_words(problem) in trained_on for problem in held_out)
    if shared:
        warnings.append(
            f"{shared} of the {len(held_out)} held-out problems are also in the training data: their "
            f"accuracy proves nothing."
        )
    return warnings


def _unrewarded(rewards: RewardSet, problems: list[Problem]) -> list[str]:
    """Return sentences about rewards whose `where` fits no row, and about rows that no reward with a weight
    applies to.
    """
    applying = [rewards.apply_to(problem) for problem in problems]
    idle = set(rewards.names) - {name for names in applying for name in names}
    warnings = [
        f"rewards: {name}: where fits no problem of data, so this reward never applies."
        for name in rewards.names
        if name in idle
    ]
    lost = [
        problem
        for problem, names in zip(problems, applying, strict=True)
        if not any(rewards.weights[name] for name in names)
    ]
    if lost:
        where = f" ({lost[0].place})" if lost[0].place else ""
        warnings.append(
            f"{len(lost)} of the {len(problems)} problems get no reward with a weight, so nothing is learnt "
            f"from them; "
            f"the first is {lost[0].id}{where}: mind the rewards' where."
        )
    return warnings


def _words(problem: Problem) -> str:
    return " ".join(problem.problem.split()).lower()
