"""`r1rl sft`: supervised fine-tuning on demonstrations, with the loss of TRL's SFTTrainer on what follows the
prompt.

    L = - 1 / N sum over the N trained tokens of a step of log pi(token | all before it in its demonstration)

The prompt is rendered by the template of the recipe's `prompt` section, as RL and evaluation do; the token
that ends a completion is trained. docs/sft.md tells about the data and the choices. The life of a run is
`r1rl.runs.training_run`'s.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from accelerate import Accelerator

from r1rl.data.demonstrations import read_demonstrations
from r1rl.models.loading import load_tokenizer
from r1rl.monitor import metric_names as names
from r1rl.monitor.curves import Panel
from r1rl.monitor.progress import Column, ShownCompletion
from r1rl.runs.evaluated_run import EvaluatedRun
from r1rl.runs.inputs import Given
from r1rl.runs.rows import SharedRows, check_batch, with_max_steps
from r1rl.runs.start import RunStart
from r1rl.runs.trl_steps import TRLStep, TRLSteps
from r1rl.sft.preflight import SFTPreflight, TokenizedRows, preflight
from r1rl.sft.recipe import SFTRecipe
from r1rl.sft.rows import make_rows, parts_of
from r1rl.sft.setup import SFTParts, build_parts

COLUMNS = (
    Column("loss", names.LOSS, "{:.4f}"),
    Column("token accuracy", names.TOKEN_ACCURACY, "{:.1%}"),
    Column("entropy", names.ENTROPY, "{:.3f}"),
    Column("grad norm", names.GRAD_NORM, "{:.2f}"),
    Column("tokens/s", names.TOKENS_PER_SECOND, "{:,.0f}"),
    Column("step time", names.TIME_STEP, "{:.2f} s"),
)
PANELS = (
    Panel("Loss (nats per token)", names.LOSS),
    Panel("Tokens that the model finds likeliest", names.TOKEN_ACCURACY, percent=True),
    Panel("Accuracy on held-out problems", "", "accuracy", percent=True, absent="no held-out problems"),
    Panel("Length of held-out answers (tokens)", "", "mean_length", absent="no held-out problems"),
    Panel("Entropy (nats per token)", names.ENTROPY),
    Panel("Gradient norm", names.GRAD_NORM),
)


def run(recipe: SFTRecipe, recipe_path: Path, resume: str | None = None) -> None:
    """Train as `r1rl sft` does; see `TrainingRun.start` and `TrainingRun.train`."""
    SFTRun.start(recipe, recipe_path, resume).train()


class SFTRun(EvaluatedRun[SFTRecipe, SFTPreflight, SFTParts, TRLStep]):
    """A run of supervised fine-tuning from its first (or next) step to its summary."""

    columns: ClassVar = COLUMNS
    panels: ClassVar = PANELS

    @classmethod
    def preflight(cls, recipe: SFTRecipe, recipe_path: Path, given: Given) -> SFTPreflight:
        return preflight(recipe, recipe_path, given)

    @classmethod
    def settle(
        cls, recipe: SFTRecipe, checked: SFTPreflight, accelerator: Accelerator, given: Given
    ) -> tuple[SFTRecipe, SFTPreflight]:
        check_batch(recipe.batch_size, recipe.micro_batch_size, accelerator.num_processes)
        tokenizer = load_tokenizer(given.tokenizer or recipe.model.path, recipe.model.revision)
        rows, messages = SharedRows.make(
            accelerator,
            lambda: make_rows(recipe, read_demonstrations(recipe.data, rows=given.rows), tokenizer),
        )
        tokenized = TokenizedRows(tokenizer, rows)
        return with_max_steps(recipe, rows.count), replace(checked, messages=messages, tokenized=tokenized)

    @classmethod
    def build(cls, start: RunStart[SFTRecipe], checked: SFTPreflight) -> SFTParts:
        return build_parts(start, checked)

    def __init__(self, start: RunStart[SFTRecipe], checked: SFTPreflight, parts: SFTParts) -> None:
        super().__init__(start, checked, parts)
        self.trainer = TRLSteps.of_run(
            self.recipe,
            parts,
            self.state,
            length_of=lambda row: len(row["input_ids"]),
            collate=parts.batches,
            around=parts.batches.around,
        )

    def step(self) -> TRLStep:
        return self.trainer.step()

    def greeting(self) -> str:
        recipe, num_rows = self.recipe, len(self.parts.rows)
        row = (
            f"a row holds up to {recipe.max_length} tokens of demonstrations"
            if recipe.packing
            else "a row is a demonstration"
        )
        return (
            f"{self.directory.path}: {self.parts.model.num_parameters() / 1e6:.1f}M parameters on "
            f"{self.accelerator.device}, {self.accelerator.num_processes} process(es); {num_rows} rows "
            f"({row}); "
            f"{recipe.max_steps} steps of {recipe.batch_size} rows, "
            f"{recipe.max_steps * recipe.batch_size / num_rows:.2f} passes."
        )

    def completion_rows(self, result: TRLStep) -> list[dict[str, Any]]:
        """Return each demonstration that the step trained, with its special tokens, cut where the loss
        begins.
        """
        decode = self.parts.tokenizer.decode
        return [
            {
                "slot": place,
                "prompt": decode(prompt),
                "completion": decode(trained),
                "num_tokens": len(trained),
            }
            for place, row in result.rows
            for prompt, trained in parts_of(row)
        ]

    def shown_completions(self, result: TRLStep) -> list[ShownCompletion]:
        shown = self.completion_rows(result)[: self.recipe.logging.show_completions]
        return [
            ShownCompletion(one["prompt"], None, one["completion"], "a demonstration", "eos") for one in shown
        ]
