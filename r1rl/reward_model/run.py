"""`r1rl reward-model`: a model that scores answers, from pairs of which one was preferred, with the loss of
TRL's RewardTrainer.

    L = - mean over pairs of  log sigmoid(s(problem, chosen) - s(problem, rejected))      (Bradley-Terry; Ouyang et al., 2203.02155)

The score s is one output at the last token of the text that `r1rl.text.scored_text` makes of problem and
answer, the same text that the reward `reward_model` scores in RL. docs/reward_model.md tells about data and
choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from datasets import Dataset
from rich.table import Table
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from trl import RewardConfig, RewardTrainer

from r1rl import models
from r1rl.compute.accelerator import make_accelerator
from r1rl.compute.distributed import from_main_process
from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.data import PromptOrder
from r1rl.data.preferences import read_preferences
from r1rl.memory.activation_checkpointing import settle_checkpointing
from r1rl.monitor import metric_names as names
from r1rl.monitor.curves import Panel
from r1rl.monitor.progress import Column, ProgressDisplay, ShownCompletion
from r1rl.monitor.summary import format_estimate
from r1rl.policy.loading import load_tokenizer, load_trained
from r1rl.reward_model.pairs import (
    TokenizedPair,
    as_rows,
    figures,
    row_length,
    score_pairs,
    split,
    tokenize_pairs,
)
from r1rl.reward_model.preflight import check_settings
from r1rl.reward_model.recipe import PairEvaluationConfig, RewardModelRecipe
from r1rl.runs.checkpoint import TrainingState
from r1rl.runs.run_directory import RunDirectory
from r1rl.runs.training_run import TrainingRun, open_run, starting_state
from r1rl.runs.trl_steps import TRLStep, TRLSteps, check_batch, share_rows, steps_of, trl_arguments
from r1rl.seeds import derive_seed

COLUMNS = (
    Column("loss", names.LOSS, "{:.4f}"),
    Column("pairs told apart", names.PAIR_ACCURACY, "{:.1%}"),
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


@dataclass
class RewardModelParts:
    """Everything that a run works with; see `r1rl.runs.training_run.RunParts`."""

    accelerator: Accelerator
    display: ProgressDisplay
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    policy: nn.Module
    order: PromptOrder
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    trainer: RewardTrainer
    rows: Dataset
    held_out: list[TokenizedPair]


def run(recipe: RewardModelRecipe, recipe_path: Path, resume: str | None = None) -> None:
    """`r1rl reward-model`. `resume`: "latest", or a checkpoint folder of the run. Raises UserError before the
    model is loaded.
    """
    transformers_logging.disable_progress_bar()  # of loading and saving models: the run has a bar of its own
    check_settings(recipe)
    recipe = replace(recipe, model=replace(recipe.model, path=models.pinned(recipe.model.path)))
    accelerator = make_accelerator(recipe.model, recipe.logging, recipe.output_dir)
    check_batch(recipe.batch_size, recipe.micro_batch_size, accelerator.num_processes)
    tokenizer = load_tokenizer(recipe.model.path, recipe.model.revision)
    made: list[Dataset] = []

    def read() -> tuple[int, list[TokenizedPair], list[str]]:
        trained, held_out, sentences = read_pairs(recipe, tokenizer)
        made.append(as_rows(trained))
        return len(trained), held_out, sentences

    num_rows, held_out, sentences = from_main_process(accelerator, read)
    recipe = replace(
        recipe, max_steps=recipe.max_steps or steps_of(recipe.epochs, num_rows, recipe.batch_size)
    )
    recipe, decided = settle_checkpointing(recipe, accelerator)
    directory, checkpoint = open_run(recipe, resume, accelerator)
    rows = share_rows(accelerator, made, directory.path / "rows")
    state = starting_state(checkpoint)
    display = ProgressDisplay(
        recipe.max_steps,
        state.step,
        columns=COLUMNS,
        live=recipe.logging.live,
        enabled=accelerator.is_main_process,
    )
    for sentence in (*sentences, *decided):
        display.message(sentence)
    parts = build_parts(recipe, accelerator, display, tokenizer, rows, held_out, checkpoint, directory)
    RewardModelRun(recipe, parts, state, directory, checkpoint).train()


def read_pairs(
    recipe: RewardModelRecipe, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[TokenizedPair], list[TokenizedPair], list[str]]:
    """The pairs to train on, at most `evaluation.num_pairs` held-out ones, and sentences about rows that
    can't be used.
    """
    pairs, sentences = tokenize_pairs(read_preferences(recipe.data), tokenizer, recipe)
    trained, held_out = split(pairs, recipe.evaluation.share)
    if recipe.evaluation.data is not None:
        held_out, more = tokenize_pairs(
            read_preferences(recipe.evaluation.data, "evaluation.data"), tokenizer, recipe
        )
        sentences += more
        shared = len({pair.problem for pair in trained} & {pair.problem for pair in held_out})
        if shared:
            sentences.append(
                f"{shared} problems of the held-out pairs are also in the training data: their accuracy "
                f"proves little."
            )
    return trained, held_out[: recipe.evaluation.num_pairs], sentences


def build_parts(
    recipe: RewardModelRecipe,
    accelerator: Accelerator,
    display: ProgressDisplay,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    held_out: list[TokenizedPair],
    checkpoint: Path | None,
    directory: RunDirectory,
) -> RewardModelParts:
    """Load the model (from `checkpoint` when a run goes on) and connect everything."""
    model = load_scorer(recipe, checkpoint)
    nn.Module.to(model, accelerator.device)
    arguments = trl_arguments(
        RewardConfig,
        accelerator,
        str(directory.path),
        max_length=None,
        center_rewards_coefficient=recipe.center_coefficient or None,
    )
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    policy, optimizer = accelerator.prepare(model, make_optimizer(model, recipe.optimizer))
    return RewardModelParts(
        accelerator=accelerator,
        display=display,
        tokenizer=tokenizer,
        model=model,
        policy=policy,
        order=PromptOrder(len(rows), recipe.seed, recipe.data.shuffle),
        optimizer=optimizer,
        schedule=make_schedule(optimizer, recipe.max_steps, recipe.optimizer),
        trainer=trainer,
        rows=rows,
        held_out=held_out,
    )


def load_scorer(recipe: RewardModelRecipe, checkpoint: Path | None = None) -> PreTrainedModel:
    """The model with one output; where there is none yet, its weights are drawn from the recipe's seed."""
    torch.manual_seed(derive_seed(recipe.seed, "score head"))
    with _quiet():
        return load_trained(
            AutoModelForSequenceClassification,
            "sequence classification model",
            recipe.model,
            checkpoint,
            num_labels=1,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report that a causal language model has no score head: it gets one here."""
    former = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(former)


class RewardModelRun(TrainingRun[TRLStep]):
    """A run from its first (or next) step to its summary."""

    panels: ClassVar[Sequence[Panel]] = PANELS
    loads_with = "AutoModelForSequenceClassification"
    parts: RewardModelParts

    def __init__(
        self,
        recipe: RewardModelRecipe,
        parts: RewardModelParts,
        state: TrainingState,
        directory: RunDirectory,
        checkpoint: Path | None,
    ) -> None:
        steps = TRLSteps(
            parts.trainer,
            parts.accelerator,
            parts.policy,
            parts.optimizer,
            parts.schedule,
            parts.rows,
            parts.order,
            state,
            batch_size=recipe.batch_size,
            micro_batch_size=recipe.micro_batch_size,
            max_grad_norm=recipe.optimizer.max_grad_norm,
            length_of=row_length,
            progress=parts.display.phase,
        )
        super().__init__(recipe, parts, steps, state, directory, checkpoint)
        self.batch_size, self.micro_batch_size = recipe.batch_size, recipe.micro_batch_size
        self.held_out_plan: PairEvaluationConfig = recipe.evaluation

    def greeting(self) -> str:
        parts = self.parts
        return (
            f"{self.directory.path}: {parts.model.num_parameters() / 1e6:.1f}M parameters on "
            f"{self.accelerator.device}, "
            f"{self.accelerator.num_processes} process(es); {len(parts.rows)} pairs, {len(parts.held_out)} "
            f"held out; "
            f"{self.recipe.max_steps} steps of {self.batch_size} pairs."
        )

    def completion_rows(self, result: TRLStep) -> list[dict[str, Any]]:
        """The pairs that the step trained, as the model reads them."""
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

    def evaluate(self, name: str, during: bool) -> None:
        """Score the held-out pairs; the figures go into the state, every score into evaluations/."""
        pairs = self.parts.held_out[: self.held_out_plan.during_pairs] if during else self.parts.held_out
        if not pairs:
            return
        scores = score_pairs(
            self.parts.policy,
            self.parts.trainer.data_collator,
            pairs,
            self.micro_batch_size,
            self.accelerator,
            lambda done, total: self.display.phase("evaluation", done, total),
        )
        found = figures(pairs, scores)
        self.state.evaluations[name] = {"step": self.state.step, **found}
        if self.accelerator.is_main_process:
            rows = [
                {"problem": pair.problem, "chosen_score": chosen, "rejected_score": rejected}
                for pair, (chosen, rejected) in zip(pairs, scores, strict=True)
            ]
            self.directory.write_evaluation(name, {"figures": found, "pairs": rows})
        if found["accuracy"] is not None:
            self.accelerator.log({"evaluation/accuracy": found["accuracy"]["value"]}, step=self.state.step)

    def summary(self) -> dict[str, Any]:
        """Accuracy and margin before and after, each with its 95 % interval."""
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
        """The table before and after."""
        if after is None:
            return
        title = f"Held-out pairs ({after['num_pairs']} of {after['num_problems']} problems; 95 % intervals)"
        table = Table(title=title, title_justify="left", header_style="bold")
        moments = [
            (title, record) for title, record in (("before", before), ("after", after)) if record is not None
        ]
        for heading in ("", *(title for title, _ in moments)):
            table.add_column(heading, justify="right" if heading else "left")
        for title, name, percent in (("told apart", "accuracy", True), ("margin", "margin", False)):
            table.add_row(title, *(format_estimate(record[name], percent) for _, record in moments))
        self.display.console.print(table)
