"""`r1rl grpo`: how its recipe is prepared, its step, and what it shows. Its life is
`r1rl.runs.training_run`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from r1rl.compute.accelerator import make_accelerator
from r1rl.compute.distributed import is_sharded
from r1rl.errors import UserError
from r1rl.grpo.preflight import Preflight, check_processes, check_rows, preflight
from r1rl.grpo.recipe import GRPORecipe
from r1rl.grpo.report import completion_rows, shown_completions
from r1rl.grpo.setup import GRPOParts, build_parts
from r1rl.grpo.trainer import GRPOTrainer, StepResult
from r1rl.monitor.progress import ShownCompletion
from r1rl.runs.checkpoint import read_ahead
from r1rl.runs.evaluated_run import EvaluatedRun
from r1rl.runs.inputs import Given
from r1rl.runs.start import RunStart
from r1rl.sampling_jobs.loading import context_of, misfit


def run(recipe: GRPORecipe, recipe_path: Path, resume: str | None = None) -> None:
    """Train as `r1rl grpo` does; see `TrainingRun.start` and `TrainingRun.train`."""
    GRPORun.start(recipe, recipe_path, resume).train()


class GRPORun(EvaluatedRun[GRPORecipe, Preflight, GRPOParts, StepResult]):
    """A GRPO run from its first (or next) step to its summary."""

    @classmethod
    def preflight(cls, recipe: GRPORecipe, recipe_path: Path, given: Given) -> Preflight:
        return preflight(recipe, recipe_path, given)

    @classmethod
    def make_accelerator(cls, recipe: GRPORecipe, checked: Preflight) -> Accelerator:
        growing = checked.components.engine.properties.growing_segments
        return make_accelerator(recipe.model, recipe.logging, recipe.output_dir, growing)

    @classmethod
    def settle(
        cls, recipe: GRPORecipe, checked: Preflight, accelerator: Accelerator, given: Given
    ) -> tuple[GRPORecipe, Preflight]:
        check_processes(recipe, accelerator.num_processes, is_sharded(accelerator))
        check_rows(recipe, accelerator.device.type)
        return recipe, checked

    @classmethod
    def build(cls, start: RunStart[GRPORecipe], checked: Preflight) -> GRPOParts:
        return build_parts(start, checked)

    def __init__(self, start: RunStart[GRPORecipe], checked: Preflight, parts: GRPOParts) -> None:
        super().__init__(start, checked, parts)
        self.trainer = GRPOTrainer(self.recipe, parts, self.state)
        if self.recipe.model.lora is not None:
            self.loads_with = "r1rl evaluate, or PEFT's AutoPeftModelForCausalLM"
        if start.checkpoint is not None:
            remark = parts.rollouts.load_state_dict(read_ahead(start.checkpoint))
            if remark:
                self.display.message(remark)

    def step(self) -> StepResult:
        return self.trainer.step()

    def steps_by_hand(self) -> Iterator[GRPOTrainer]:
        """Yield the trainer for each step, which is the caller's to do; what surrounds a step is done as in
        `steps`.

            for trainer in run.steps_by_hand():
                sampled = trainer.rollout()
                rollout = trainer.rewards(sampled)
                advantages_PG = trainer.advantages(rollout)
                trainer.update(rollout, advantages_PG)

        Raises UserError if a step was not done when the next one is asked for.
        """
        with self.life():
            while self.goes_on:
                done = self.state.step
                try:
                    yield self.trainer
                except GeneratorExit:
                    if self.state.step > done:
                        self.log(self.trainer.result)
                    raise
                if self.state.step == done:
                    raise UserError(
                        f"step {done + 1} was not done: call rollout, rewards, advantages and update of the "
                        f"trainer, "
                        f"in this order."
                    )
                self.after_step(self.trainer.result)

    def greeting(self) -> str:
        parts, rollout = self.parts, self.recipe.rollout
        return (
            f"{self.directory.path}: {self._parameters()} on {self.accelerator.device}, "
            f"{self.accelerator.num_processes} process(es); {len(parts.prompts)} prompts "
            f"({parts.dropped_prompts} dropped as too long); "
            f"each step {rollout.num_prompts} prompts x {rollout.num_generations} completions. "
            f"Engine: {parts.engine.name}, because {parts.engine.reason}.{self._length_warning()}"
        )

    def _parameters(self) -> str:
        """Say how many parameters the model has, and how many of them are trained where that is not all."""
        whole, trained = (
            self.parts.model.num_parameters(only_trainable=trainable) / 1e6 for trainable in (False, True)
        )
        return (
            f"{whole:.1f}M parameters"
            if trained == whole
            else f"{whole:.1f}M parameters, {trained:.3g}M of them trained,"
        )

    def _length_warning(self) -> str:
        """Return a warning of prompts and completions that the model can't hold; empty if it can."""
        longest = max(len(prompt.token_ids) for prompt in self.parts.prompts)
        fault = misfit(
            longest, self.recipe.rollout.max_completion_length, context_of(self.parts.model.config)
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

    def messages(self, result: StepResult) -> list[str]:
        return [
            f"Reward {name} raised; its rows count as not applicable (rewards/{name} counts them).\n{trace}"
            for name, trace in result.tracebacks.items()
        ]

    def prefetched(self) -> dict[str, Any] | None:
        return self.parts.rollouts.state_dict()
