"""A training run that answers held-out problems before, during and after training: sampled answers, scored by
the recipe's rewards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from r1rl.compute.distributed import gather_shares, own_share
from r1rl.config.schema import EvaluationConfig
from r1rl.monitor.summary import before_after_table, by_value_table, side_by_side
from r1rl.objective.sampling import Sampling
from r1rl.rewards import RewardSet
from r1rl.rollout import RolloutEngine
from r1rl.runs.contract import Measured, RunParts, RunRecipe
from r1rl.runs.job import Checked, Result
from r1rl.runs.training_run import TrainingRun
from r1rl.scoring.held_out import evaluate
from r1rl.scoring.record import Evaluation, find_contrast
from r1rl.seeds import derive_seed
from r1rl.types import Prompt


class EvaluatedRecipe(RunRecipe, Protocol):
    """A recipe with held-out problems."""

    @property
    def evaluation(self) -> EvaluationConfig:
        """The held-out problems; a command may have more settings for them."""
        ...


@dataclass(kw_only=True)
class EvaluatedParts(RunParts):
    """The parts of a run that samples answers."""

    engine: RolloutEngine
    sampling: Sampling
    evaluation_prompts: list[Prompt]
    rewards: RewardSet | None
    """The rewards that score answers; None: nothing is evaluated."""


Recipe = TypeVar("Recipe", bound=EvaluatedRecipe)
Parts = TypeVar("Parts", bound=EvaluatedParts)


class EvaluatedRun(TrainingRun[Recipe, Checked, Parts, Result]):
    """A training run whose measure is the accuracy on held-out problems."""

    def measure(self, during: bool) -> Measured | None:
        count = self.recipe.evaluation.during_problems if during else self.recipe.evaluation.num_problems
        prompts, rewards = self.parts.evaluation_prompts[:count], self.parts.rewards
        if not prompts or rewards is None:
            return None
        evaluation = evaluate(
            self.parts.engine,
            own_share(self.accelerator, prompts),
            rewards,
            self.recipe.evaluation.num_samples,
            self.parts.sampling,
            derive_seed(self.recipe.seed, "held-out"),
            progress=lambda done, total: self.display.phase("evaluation", done, total),
            gather=lambda problems: gather_shares(self.accelerator, problems),
        )
        return Measured(evaluation.figures(), evaluation.as_json())

    def summary(self) -> dict[str, Any]:
        """Return accuracies with their 95 % interval, and under `evaluations` every figure with its own."""
        result: dict[str, Any] = {}
        for moment in ("before", "after"):
            figures = self.state.evaluations.get(moment)
            if figures is not None:
                result[f"accuracy_{moment}"] = figures["accuracy"]
                result[f"mean_length_{moment}"] = value_of(figures["mean_length"])
                result[f"reflection_{moment}"] = value_of(figures["reflection_rate"])
        return {**result, "evaluations": self.state.evaluations}

    def conclude(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Print the figures before and after, and one problem answered by both models."""
        if after is None:
            return
        self.display.console.print(before_after_table(before, after))
        by_value = by_value_table(before, after)
        if by_value is not None:
            self.display.console.print(by_value)
        contrast = None if before is None else find_contrast(self._read("before"), self._read("after"))
        if contrast is not None:
            self.display.console.print(side_by_side(contrast))

    def _read(self, name: str) -> Evaluation:
        return Evaluation.from_json(
            json.loads((self.directory.evaluations / f"{name}.json").read_text(encoding="utf-8"))
        )


def value_of(estimate: dict[str, Any] | None) -> float | None:
    """Return the value of a figure with an interval."""
    return None if estimate is None else estimate["value"]
