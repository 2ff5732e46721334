"""What can be known about a GRPO recipe before its model is loaded: the problems, the rewards, and what is
odd about them.

`r1rl grpo` calls `preflight` first, so that a mistake ends the run in seconds; `r1rl check` shows what it
found.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from r1rl.data import column_names
from r1rl.errors import RecipeError, RewardError
from r1rl.grpo.recipe import GRPORecipe
from r1rl.preflight.problems import read_held_out, read_section
from r1rl.preflight.settings import check_model_folder, check_trackers, check_vllm
from r1rl.rewards import RewardSet
from r1rl.runs.run_directory import check_writable
from r1rl.text.prompts import CHAT, template_text
from r1rl.types import Problem


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a run starts from. The rewards hold worker processes: call `rewards.close()` when done."""

    problems: list[Problem]
    evaluation_problems: list[Problem]
    """At most `evaluation.num_problems`; empty without `evaluation.data`."""
    rewards: RewardSet
    notes: list[str] = field(default_factory=list)
    """Sentences about what was assumed."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about what may be a mistake."""


def preflight(recipe: GRPORecipe, recipe_path: Path) -> Preflight:
    """Load the problems, resolve the rewards and check everything else that needs no model.

    Raises a UserError with the file, the key and the remedy at the first thing that can't work.
    """
    check_settings(recipe)
    loaded = read_section(recipe.data, recipe.seed, "data")
    held_out = read_held_out(recipe.evaluation)
    rewards = _resolve_rewards(recipe, recipe_path.parent, loaded.problems, held_out.problems)
    warnings = [
        *loaded.warnings,
        *held_out.warnings,
        *_suspicions(recipe, loaded.problems, held_out.problems),
    ]
    warnings += _unrewarded(rewards, loaded.problems)
    return Preflight(loaded.problems, held_out.problems, rewards, [*loaded.notes, *held_out.notes], warnings)


def check_settings(recipe: GRPORecipe) -> None:
    """What can be checked without the problems: folders, template and packages. Raises a UserError at the
    first thing that can't work.
    """
    check_writable(recipe.output_dir)
    check_model_folder(recipe.model.path)
    check_trackers(recipe.logging)
    if recipe.prompt.template != CHAT:
        template_text(recipe.prompt.template)
    if recipe.rollout.engine == "vllm":
        check_vllm()
    if recipe.model.lora is not None and importlib.util.find_spec("peft") is None:
        raise RecipeError(
            "model.lora trains adapters through peft, which is not installed: pip install 'r1rl[peft]', or "
            "leave it out."
        )


def _resolve_rewards(
    recipe: GRPORecipe, base_dir: Path, problems: list[Problem], held_out: list[Problem]
) -> RewardSet:
    """The recipe's rewards, checked against the columns of both sets of problems."""
    columns = column_names(problems)
    rewards = RewardSet(recipe.rewards, recipe.outcome, base_dir, columns)
    if held_out and not columns <= column_names(held_out):
        try:
            RewardSet(recipe.rewards, recipe.outcome, base_dir, column_names(held_out))
        except RewardError as error:
            rewards.close()
            raise RewardError(f"evaluation.data lacks a column that data has: {error}") from error
    return rewards


def _suspicions(recipe: GRPORecipe, problems: list[Problem], held_out: list[Problem]) -> list[str]:
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
        and recipe.algorithm.kl_estimator == "k1"
        and not recipe.algorithm.kl_bias_correction
    ):
        warnings.append(
            "algorithm.kl_estimator: k1 has an expected gradient of zero as a term of the loss, so beta has "
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
    """Rewards whose `where` fits no row, and rows that no reward with a weight applies to."""
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
