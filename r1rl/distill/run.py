"""`r1rl distill`: how its recipe is prepared, its step, and what it shows. Its life is
`r1rl.runs.training_run`'s.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from accelerate import Accelerator

from r1rl import models
from r1rl.compute.accelerator import make_accelerator
from r1rl.distill.preflight import DistillPreflight, check_processes, preflight
from r1rl.distill.recipe import DistillRecipe
from r1rl.distill.report import COLUMNS, PANELS, completion_rows, shown_completions
from r1rl.distill.setup import DistillParts, build_parts, load_tokenizers
from r1rl.distill.trainer import DistillTrainer, StepResult
from r1rl.monitor.progress import ShownCompletion
from r1rl.runs.evaluated_run import EvaluatedRun
from r1rl.runs.inputs import Given
from r1rl.runs.start import RunStart


def run(recipe: DistillRecipe, recipe_path: Path, resume: str | None = None) -> None:
    """Train as `r1rl distill` does; see `TrainingRun.start` and `TrainingRun.train`."""
    DistillRun.start(recipe, recipe_path, resume).train()


class DistillRun(EvaluatedRun[DistillRecipe, DistillPreflight, DistillParts, StepResult]):
    """A distillation run from its first (or next) step to its summary."""

    columns: ClassVar = COLUMNS
    panels: ClassVar = PANELS

    @classmethod
    def preflight(cls, recipe: DistillRecipe, recipe_path: Path, given: Given) -> DistillPreflight:
        return preflight(recipe, recipe_path, given)

    @classmethod
    def make_accelerator(cls, recipe: DistillRecipe, checked: DistillPreflight) -> Accelerator:
        growing = checked.engine.properties.growing_segments
        return make_accelerator(recipe.model, recipe.logging, recipe.output_dir, growing)

    @classmethod
    def pinned(cls, recipe: DistillRecipe) -> DistillRecipe:
        teacher = replace(recipe.teacher, path=models.pinned(recipe.teacher.path))
        return replace(super().pinned(recipe), teacher=teacher)

    @classmethod
    def settle(
        cls, recipe: DistillRecipe, checked: DistillPreflight, accelerator: Accelerator, given: Given
    ) -> tuple[DistillRecipe, DistillPreflight]:
        check_processes(recipe, accelerator.num_processes)
        return recipe, replace(checked, tokenizers=load_tokenizers(recipe, given))

    @classmethod
    def build(cls, start: RunStart[DistillRecipe], checked: DistillPreflight) -> DistillParts:
        return build_parts(start, checked)

    def __init__(
        self, start: RunStart[DistillRecipe], checked: DistillPreflight, parts: DistillParts
    ) -> None:
        super().__init__(start, checked, parts)
        self.trainer = DistillTrainer(self.recipe, parts, self.state)

    def step(self) -> StepResult:
        return self.trainer.step()

    def greeting(self) -> str:
        parts, recipe = self.parts, self.recipe
        sentences = [
            f"{self.directory.path}: student of {parts.model.num_parameters() / 1e6:.1f}M parameters on "
            f"{self.accelerator.device}, {self.accelerator.num_processes} process(es). The student writes "
            f"for "
            f"{recipe.on_policy_prompts} of {recipe.rollout.num_prompts} prompts x "
            f"{recipe.rollout.num_generations} completions of each step. "
            f"Engine: {parts.engine.name}, because {parts.engine.reason}.",
            *parts.notes,
        ]
        return "\n".join(sentences)

    def completion_rows(self, result: StepResult) -> list[dict[str, Any]]:
        return completion_rows(result.sequences, result.divergence_B)

    def shown_completions(self, result: StepResult) -> list[ShownCompletion]:
        return shown_completions(result.sequences, result.divergence_B, self.recipe.logging.show_completions)
