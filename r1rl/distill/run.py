"""`r1rl distill`: check, start or resume, and what a run's steps leave and show. Its life is
`r1rl.runs.training_run`'s.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from transformers.utils.logging import disable_progress_bar

from r1rl import models
from r1rl.compute.accelerator import make_accelerator
from r1rl.distill.preflight import check_processes, preflight
from r1rl.distill.recipe import DistillRecipe
from r1rl.distill.report import COLUMNS, PANELS, completion_rows, shown_completions
from r1rl.distill.setup import DistillParts, build_parts, load_tokenizers
from r1rl.distill.trainer import DistillTrainer, StepResult
from r1rl.memory.activation_checkpointing import settle_checkpointing
from r1rl.monitor.progress import ProgressDisplay, ShownCompletion
from r1rl.runs.checkpoint import TrainingState
from r1rl.runs.held_out_run import HeldOutRun
from r1rl.runs.run_directory import RunDirectory
from r1rl.runs.training_run import open_run, starting_state


def run(recipe: DistillRecipe, recipe_path: Path, resume: str | None = None) -> None:
    """`r1rl distill`. `resume`: "latest", or a checkpoint folder of the run. Raises UserError before a model
    is loaded.
    """
    disable_progress_bar()  # of loading and saving models: the run has a bar of its own
    checked = preflight(recipe, recipe_path)
    recipe = replace(
        recipe,
        model=replace(recipe.model, path=models.pinned(recipe.model.path)),
        teacher=replace(recipe.teacher, path=models.pinned(recipe.teacher.path)),
    )
    try:
        tokenizers = load_tokenizers(recipe)
        growing = checked.engine.properties.growing_segments
        accelerator = make_accelerator(recipe.model, recipe.logging, recipe.output_dir, growing)
        check_processes(recipe, accelerator.num_processes)
        recipe, decided = settle_checkpointing(recipe, accelerator)
        directory, checkpoint = open_run(recipe, resume, accelerator)
        state = starting_state(checkpoint)
        display = ProgressDisplay(
            recipe.max_steps,
            state.step,
            columns=COLUMNS,
            live=recipe.logging.live,
            enabled=accelerator.is_main_process,
        )
        for sentence in decided:
            display.message(sentence)
        parts = build_parts(recipe, checked, tokenizers, accelerator, display, checkpoint)
        parts.notes.extend(checked.messages)
        DistillRun(recipe, parts, state, directory, checkpoint).train()
    finally:
        checked.close()


class DistillRun(HeldOutRun[StepResult]):
    """A distillation run from its first (or next) step to its summary."""

    panels: ClassVar = PANELS

    def __init__(
        self,
        recipe: DistillRecipe,
        parts: DistillParts,
        state: TrainingState,
        directory: RunDirectory,
        checkpoint: Path | None,
    ) -> None:
        super().__init__(recipe, parts, DistillTrainer(recipe, parts, state), state, directory, checkpoint)
        self.step_size = f"{recipe.on_policy_prompts} of {recipe.rollout.num_prompts} prompts x {recipe.rollout.num_generations}"
        self.notes = parts.notes

    def greeting(self) -> str:
        parts = self.parts
        sentences = [
            f"{self.directory.path}: student of {parts.model.num_parameters() / 1e6:.1f}M parameters on "
            f"{self.accelerator.device}, "
            f"{self.accelerator.num_processes} process(es). The student writes for {self.step_size} "
            f"completions of each step. "
            f"Engine: {parts.engine.name}, because {parts.engine.reason}.",
            *self.notes,
        ]
        return "\n".join(sentences)

    def completion_rows(self, result: StepResult) -> list[dict[str, Any]]:
        return completion_rows(result.sequences, result.divergence_B)

    def shown_completions(self, result: StepResult) -> list[ShownCompletion]:
        return shown_completions(result.sequences, result.divergence_B, self.recipe.logging.show_completions)
