"""`r1rl grpo`: check, start or resume, and what a run's steps leave and show. Its life is
`r1rl.runs.training_run`'s.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from r1rl import models
from r1rl.compute.accelerator import make_accelerator
from r1rl.compute.distributed import is_sharded
from r1rl.grpo.preflight import check_processes, check_rows, preflight
from r1rl.grpo.recipe import GRPORecipe
from r1rl.grpo.report import completion_rows, shown_completions
from r1rl.grpo.setup import GRPOParts, build_parts
from r1rl.grpo.trainer import GRPOTrainer, StepResult
from r1rl.memory.activation_checkpointing import settle_checkpointing
from r1rl.monitor.progress import ProgressDisplay, ShownCompletion
from r1rl.runs.checkpoint import TrainingState, read_ahead
from r1rl.runs.held_out_run import HeldOutRun
from r1rl.runs.run_directory import RunDirectory
from r1rl.runs.training_run import open_run, starting_state
from r1rl.sampling_jobs.loading import context_of, misfit


def run(recipe: GRPORecipe, recipe_path: Path, resume: str | None = None) -> None:
    """`r1rl grpo`. `resume`: "latest", or a checkpoint folder of the run. Raises UserError before the model
    is loaded.
    """
    disable_progress_bar()  # of loading and saving models: the run has a bar of its own
    checked = preflight(recipe, recipe_path)
    recipe = replace(recipe, model=replace(recipe.model, path=models.pinned(recipe.model.path)))
    try:
        growing = checked.components.engine.properties.growing_segments
        accelerator = make_accelerator(recipe.model, recipe.logging, recipe.output_dir, growing)
        check_processes(recipe, accelerator.num_processes, is_sharded(accelerator))
        check_rows(recipe, accelerator.device.type)
        recipe, decided = settle_checkpointing(recipe, accelerator)
        directory, checkpoint = open_run(recipe, resume, accelerator)
        state = starting_state(checkpoint)
        display = ProgressDisplay(
            recipe.max_steps, state.step, live=recipe.logging.live, enabled=accelerator.is_main_process
        )
        for message in (*(f"warning: {warning}" for warning in checked.warnings), *decided):
            display.message(message)
        if accelerator.device.type == "cuda":
            display.message("Loading and preparing the model, which takes a minute or more on a GPU.")
        parts = build_parts(recipe, checked, accelerator, display, checkpoint)
        GRPORun(recipe, parts, state, directory, checkpoint).train()
    finally:
        checked.rewards.close()


class GRPORun(HeldOutRun[StepResult]):
    """A GRPO run from its first (or next) step to its summary."""

    def __init__(
        self,
        recipe: GRPORecipe,
        parts: GRPOParts,
        state: TrainingState,
        directory: RunDirectory,
        checkpoint: Path | None,
    ) -> None:
        super().__init__(recipe, parts, GRPOTrainer(recipe, parts, state), state, directory, checkpoint)
        if recipe.model.lora is not None:
            self.loads_with = "r1rl evaluate, or PEFT's AutoPeftModelForCausalLM"
        self.rollouts = parts.rollouts
        if checkpoint is not None and (remark := self.rollouts.go_on(read_ahead(checkpoint))):
            self.display.message(remark)
        self.rollout = recipe.rollout
        self.num_prompts, self.dropped_prompts = len(parts.prompts), parts.dropped_prompts
        self.longest_prompt = max(len(prompt.token_ids) for prompt in parts.prompts)

    def greeting(self) -> str:
        parts = self.parts
        return (
            f"{self.directory.path}: {self._parameters()} on {self.accelerator.device}, "
            f"{self.accelerator.num_processes} process(es); {self.num_prompts} prompts "
            f"({self.dropped_prompts} dropped as too long); "
            f"each step {self.rollout.num_prompts} prompts x {self.rollout.num_generations} completions. "
            f"Engine: {parts.engine.name}, because {parts.engine.reason}.{self._length_warning()}"
        )

    def _parameters(self) -> str:
        """How many parameters the model has, and how many of them are trained where that is not all."""
        whole, trained = (
            self.parts.model.num_parameters(only_trainable=trainable) / 1e6 for trainable in (False, True)
        )
        return (
            f"{whole:.1f}M parameters"
            if trained == whole
            else f"{whole:.1f}M parameters, {trained:.3g}M of them trained,"
        )

    def _length_warning(self) -> str:
        """Prompts and completions that the model can't hold; empty if it can."""
        fault = misfit(
            self.longest_prompt, self.rollout.max_completion_length, context_of(self.parts.model.config)
        )
        return (
            ""
            if fault is None
            else f"\nwarning: {fault}: lower rollout.max_completion_length or data.max_prompt_tokens."
        )

    def completion_rows(self, result: StepResult) -> list[dict[str, Any]]:
        return completion_rows(result.groups, result.advantages_PG)

    def shown_completions(self, result: StepResult) -> list[ShownCompletion]:
        return shown_completions(result.groups, self.recipe.logging.show_completions)

    def ahead(self) -> dict[str, Any] | None:
        return self.rollouts.saved()

    def messages(self, result: StepResult) -> list[str]:
        return [
            f"Reward {name} raised; its rows count as not applicable (rewards/{name} counts them).\n{trace}"
            for name, trace in result.tracebacks.items()
        ]
