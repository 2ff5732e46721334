"""`r1rl reward-model`: a model that scores answers, from pairs of which one was preferred, with the loss of
TRL's RewardTrainer.

    L = - mean over pairs of  log sigmoid(s(problem, chosen) - s(problem, rejected))

That is the Bradley-Terry model (Ouyang et al., 2203.02155).

The score s is one output at the last token of the text that `r1rl.text.scored_text` makes of problem and
answer, the same text that the reward `reward_model` scores in RL. docs/reward_model.md tells about data and
choices. The life of a run is `r1rl.runs.training_run`'s.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from accelerate import Accelerator
from datasets import Dataset
from rich.table import Table

from r1rl.errors import UserError
from r1rl.models.loading import load_tokenizer
from r1rl.monitor import metric_names as names
from r1rl.monitor.curves import Panel
from r1rl.monitor.progress import Column, ShownCompletion
from r1rl.monitor.summary import format_estimate
from r1rl.reward_model.pairs import TokenizedPair, as_rows, figures, row_length, score_pairs
from r1rl.reward_model.preflight import check_settings
from r1rl.reward_model.recipe import RewardModelRecipe
from r1rl.reward_model.setup import (
    RewardModelParts,
    RewardModelPreflight,
    TokenizedPairs,
    build_parts,
    read_pairs,
)
from r1rl.runs.contract import Measured
from r1rl.runs.inputs import Given
from r1rl.runs.rows import SharedRows, check_batch, with_max_steps
from r1rl.runs.start import RunStart
from r1rl.runs.training_run import TrainingRun
from r1rl.runs.trl_steps import TRLStep, TRLSteps

COLUMNS = (
    Column("loss", names.LOSS, "{:.4f}"),
    Column("pair accuracy", names.PAIR_ACCURACY, "{:.1%}"),
    Column("margin", names.PAIR_MARGIN, "{:.3f}"),
    Column("grad norm", names.GRAD_NORM, "{:.2f}"),
    Column("tokens/s", names.TOKENS_PER_SECOND, "{:,.0f}"),
    Column("step time", names.TIME_STEP, "{:.2f} s"),
)
PANELS = (
    Panel("Loss", names.LOSS),
    Panel("Pairs whose chosen answer scores higher", names.PAIR_ACCURACY, "accuracy", percent=True),
    Panel("Margin between chosen and rejected", names.PAIR_MARGIN, "margin"),
    Panel("Gradient norm", names.GRAD_NORM),
    Panel("Learning rate", names.LEARNING_RATE),
    Panel("Tokens per second", names.TOKENS_PER_SECOND),
)


def run(recipe: RewardModelRecipe, recipe_path: Path, resume: str | None = None) -> None:
    """Train as `r1rl reward-model` does; see `TrainingRun.start` and `TrainingRun.train`."""
    RewardModelRun.start(recipe, recipe_path, resume).train()


class RewardModelRun(TrainingRun[RewardModelRecipe, RewardModelPreflight, RewardModelParts, TRLStep]):
    """A run of a reward model from its first (or next) step to its summary."""

    columns: ClassVar = COLUMNS
    panels: ClassVar = PANELS
    loads_with = "AutoModelForSequenceClassification"

    @classmethod
    def preflight(cls, recipe: RewardModelRecipe, recipe_path: Path, given: Given) -> RewardModelPreflight:
        if given.rewards:
            raise UserError("rewards: a reward model is trained on pairs, so no reward can be given.")
        check_settings(recipe, given)
        return RewardModelPreflight()

    @classmethod
    def settle(
        cls, recipe: RewardModelRecipe, checked: RewardModelPreflight, accelerator: Accelerator, given: Given
    ) -> tuple[RewardModelRecipe, RewardModelPreflight]:
        check_batch(recipe.batch_size, recipe.micro_batch_size, accelerator.num_processes)
        tokenizer = load_tokenizer(given.tokenizer or recipe.model.path, recipe.model.revision)

        def make() -> tuple[Dataset, tuple[list[TokenizedPair], list[str]]]:
            trained, held_out, messages = read_pairs(recipe, tokenizer, given)
            return as_rows(trained), (held_out, messages)

        rows, (held_out, messages) = SharedRows.make(accelerator, make)
        tokenized = TokenizedPairs(tokenizer, rows, held_out)
        return with_max_steps(recipe, rows.count), replace(checked, messages=messages, tokenized=tokenized)

    @classmethod
    def build(cls, start: RunStart[RewardModelRecipe], checked: RewardModelPreflight) -> RewardModelParts:
        return build_parts(start, checked)

    def __init__(
        self, start: RunStart[RewardModelRecipe], checked: RewardModelPreflight, parts: RewardModelParts
    ) -> None:
        super().__init__(start, checked, parts)
        self.trainer = TRLSteps.of_run(self.recipe, parts, self.state, length_of=row_length)

    def step(self) -> TRLStep:
        return self.trainer.step()

    def greeting(self) -> str:
        parts, recipe = self.parts, self.recipe
        return (
            f"{self.directory.path}: {parts.model.num_parameters() / 1e6:.1f}M parameters on "
            f"{self.accelerator.device}, {self.accelerator.num_processes} process(es); {len(parts.rows)} "
            f"pairs, "
            f"{len(parts.held_out)} held out; {recipe.max_steps} steps of {recipe.batch_size} pairs."
        )

    def completion_rows(self, result: TRLStep) -> list[dict[str, Any]]:
        """Return the pairs that the step trained, as the model reads them."""
        decode = self.parts.tokenizer.decode
        return [
            {"slot": place, "chosen": decode(row["chosen_ids"]), "rejected": decode(row["rejected_ids"])}
            for place, row in result.rows
        ]

    def shown_completions(self, result: TRLStep) -> list[ShownCompletion]:
        shown = self.completion_rows(result)[: self.recipe.logging.show_completions]
        return [
            ShownCompletion(f"chosen\n{one['chosen']}", None, f"rejected\n{one['rejected']}", "a pair", "")
            for one in shown
        ]

    def measure(self, during: bool) -> Measured | None:
        """Score the held-out pairs."""
        pairs = self.parts.held_out[: self.recipe.evaluation.during_pairs] if during else self.parts.held_out
        if not pairs:
            return None
        scores = score_pairs(
            self.parts.policy,
            self.parts.trainer.data_collator,
            pairs,
            self.recipe.micro_batch_size,
            self.accelerator,
            lambda done, total: self.display.phase("evaluation", done, total),
        )
        found = figures(pairs, scores)
        rows = [
            {"problem": pair.problem, "chosen_score": chosen, "rejected_score": rejected}
            for pair, (chosen, rejected) in zip(pairs, scores, strict=True)
        ]
        return Measured(found, {"figures": found, "pairs": rows})

    def summary(self) -> dict[str, Any]:
        """Return accuracy and margin before and after, each with its 95 % interval."""
        moments = [
            (moment, self.state.evaluations[moment])
            for moment in ("before", "after")
            if moment in self.state.evaluations
        ]
        found = {
            f"{name}_{moment}": record[name] for moment, record in moments for name in ("accuracy", "margin")
        }
        return {**found, "evaluations": self.state.evaluations}

    def conclude(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Print the table before and after."""
        if after is None:
            return
        title = f"Held-out pairs ({after['num_pairs']} of {after['num_problems']} problems; 95 % intervals)"
        table = Table(title=title, title_justify="left", header_style="bold")
        moments = [
            (title, record) for title, record in (("before", before), ("after", after)) if record is not None
        ]
        for heading in ("", *(title for title, _ in moments)):
            table.add_column(heading, justify="right" if heading else "left")
        for title, name, percent in (("pair accuracy", "accuracy", True), ("margin", "margin", False)):
            table.add_row(title, *(format_estimate(record[name], percent) for _, record in moments))
        self.display.console.print(table)
