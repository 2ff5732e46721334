"""`r1rl sft`: supervised fine-tuning on demonstrations, with the loss of TRL's SFTTrainer on what follows the
prompt.

    L = - 1 / N  sum over the N trained tokens of a step of  log pi(token | everything before it in its demonstration)

The prompt is rendered by the template of the recipe's `prompt` section, as RL and evaluation do; the token
that ends a completion is trained. docs/sft.md tells about the data and the choices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer

from r1rl import models
from r1rl.compute.accelerator import make_accelerator
from r1rl.compute.distributed import from_main_process, is_sharded
from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.compute.trials import trial_report
from r1rl.config.schema import UpdateConfig
from r1rl.data import PromptOrder, build_prompts, column_names
from r1rl.data.demonstration_tokens import trained_end
from r1rl.data.demonstrations import read_demonstrations
from r1rl.memory.activation_checkpointing import settle_checkpointing
from r1rl.monitor import metric_names as names
from r1rl.monitor.curves import Panel
from r1rl.monitor.progress import Column, ProgressDisplay, ShownCompletion
from r1rl.objective.sampling import Sampling
from r1rl.policy.layout import agreed_layout, choose_layout
from r1rl.policy.loading import load_policy, load_tokenizer
from r1rl.preflight.problems import read_held_out
from r1rl.preflight.settings import check_model_folder, check_trackers
from r1rl.rewards import RewardSet
from r1rl.rollout import RolloutEngine, build_engine
from r1rl.runs.checkpoint import TrainingState
from r1rl.runs.held_out_run import HeldOutRun
from r1rl.runs.run_directory import RunDirectory, check_writable
from r1rl.runs.training_run import open_run, starting_state
from r1rl.runs.trl_steps import TRLStep, TRLSteps, check_batch, share_rows, steps_of, trl_arguments
from r1rl.sft.batches import RowBatches
from r1rl.sft.recipe import SFTRecipe
from r1rl.sft.rows import make_rows, parts_of
from r1rl.text.prompts import CHAT, PromptTemplate, resolve_eos_token_ids, template_text
from r1rl.types import Problem, Prompt

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


@dataclass
class SFTParts:
    """Everything that a run works with; see `r1rl.runs.held_out_run.HeldOutParts`."""

    accelerator: Accelerator
    display: ProgressDisplay
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    policy: nn.Module
    engine: RolloutEngine
    sampling: Sampling
    evaluation_prompts: list[Prompt]
    rewards: RewardSet | None
    order: PromptOrder
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    trainer: SFTTrainer
    rows: Dataset
    batches: RowBatches


def run(recipe: SFTRecipe, recipe_path: Path, resume: str | None = None) -> None:
    """`r1rl sft`. `resume`: "latest", or a checkpoint folder of the run. Raises UserError before the model is
    loaded.
    """
    disable_progress_bar()  # of loading and saving models: the run has a bar of its own
    held_out, rewards = preflight(recipe, recipe_path)
    try:
        recipe = replace(recipe, model=replace(recipe.model, path=models.pinned(recipe.model.path)))
        accelerator = make_accelerator(recipe.model, recipe.logging, recipe.output_dir)
        check_batch(recipe.batch_size, recipe.micro_batch_size, accelerator.num_processes)
        tokenizer = load_tokenizer(recipe.model.path, recipe.model.revision)
        made: list[Dataset] = []

        def read() -> tuple[int, list[str]]:
            rows, sentences = make_rows(recipe, read_demonstrations(recipe.data), tokenizer)
            made.append(rows)
            return len(rows), sentences

        num_rows, sentences = from_main_process(accelerator, read)
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
        parts = build_parts(
            recipe, held_out, rewards, accelerator, display, tokenizer, rows, checkpoint, directory
        )
        SFTRun(recipe, parts, state, directory, checkpoint).train()
    finally:
        if rewards is not None:
            rewards.close()


def preflight(recipe: SFTRecipe, recipe_path: Path) -> tuple[list[Problem], RewardSet | None]:
    """Check what needs neither tokenizer nor demonstrations; the held-out problems and what scores them
    (None: there are none).
    """
    check_writable(recipe.output_dir)
    check_model_folder(recipe.model.path)
    check_trackers(recipe.logging)
    if recipe.prompt.template != CHAT:
        template_text(recipe.prompt.template)
    held_out = read_held_out(recipe.evaluation).problems
    if not held_out:
        return [], None
    return held_out, RewardSet(recipe.rewards, recipe.outcome, recipe_path.parent, column_names(held_out))


def build_parts(
    recipe: SFTRecipe,
    held_out: list[Problem],
    rewards: RewardSet | None,
    accelerator: Accelerator,
    display: ProgressDisplay,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    checkpoint: Path | None,
    directory: RunDirectory,
) -> SFTParts:
    """Load the model (from `checkpoint` when a run goes on) and connect everything."""
    model = load_policy(recipe.model, checkpoint)
    ending = resolve_eos_token_ids(recipe.prompt, tokenizer, model.generation_config)
    end = trained_end(recipe.prompt, recipe.model, tokenizer)
    if model.generation_config is not None and end is not None:
        # Whoever generates with the checkpoint stops where it was taught to stop.
        model.generation_config.eos_token_id = [end, *(one for one in ending if one != end)]
    prompts = build_prompts(held_out, PromptTemplate(recipe.prompt, tokenizer), None)[0] if held_out else []
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    nn.Module.to(model, accelerator.device)
    # Before the trainer is made: it gives the model a forward pass of its own, which a copy for the rollout
    # would not have.
    engine = build_engine(
        recipe.evaluation.engine, model, tokenizer, recipe.evaluation.max_rows, dtype, is_sharded(accelerator)
    )
    layout = None
    if recipe.packing:
        layout = agreed_layout(
            accelerator, choose_layout(model, UpdateConfig(share_prompts=False), dtype, tokenizer)
        )
    for line in trial_report([*([] if layout is None else layout.trials), *engine.trials]):
        display.message(line)
    trainer = make_trainer(recipe, model, tokenizer, rows, accelerator, directory)
    policy, optimizer = accelerator.prepare(model, make_optimizer(model, recipe.optimizer))
    return SFTParts(
        accelerator=accelerator,
        display=display,
        tokenizer=tokenizer,
        model=model,
        policy=policy,
        engine=engine,
        sampling=Sampling.of(
            recipe.evaluation.sampling, recipe.evaluation.max_completion_length, ending, recipe.prompt.stop
        ),
        evaluation_prompts=prompts,
        rewards=rewards,
        order=PromptOrder(len(rows), recipe.seed, recipe.data.shuffle),
        optimizer=optimizer,
        schedule=make_schedule(optimizer, recipe.max_steps, recipe.optimizer),
        trainer=trainer,
        rows=rows,
        batches=RowBatches(trainer.data_collator, tokenizer.pad_token_id, model, layout),
    )


def make_trainer(
    recipe: SFTRecipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    accelerator: Accelerator,
    directory: RunDirectory,
) -> SFTTrainer:
    """TRL's trainer, for its collation, loss and metrics. The rows are prepared: it neither tokenizes nor
    cuts them.
    """
    prepared = {
        "packing": recipe.packing,
        "max_length": recipe.max_length,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    arguments = trl_arguments(SFTConfig, accelerator, str(directory.path), **prepared)
    return SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)


class SFTRun(HeldOutRun[TRLStep]):
    """A run from its first (or next) step to its summary."""

    panels = PANELS

    def __init__(
        self,
        recipe: SFTRecipe,
        parts: SFTParts,
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
            length_of=lambda row: len(row["input_ids"]),
            progress=parts.display.phase,
            collate=parts.batches,
            around=parts.batches.around,
        )
        super().__init__(recipe, parts, steps, state, directory, checkpoint)
        self.sft_recipe = recipe
        self.rows = parts.rows

    def greeting(self) -> str:
        recipe = self.sft_recipe
        row = (
            f"a row holds up to {recipe.max_length} tokens of demonstrations"
            if recipe.packing
            else "a row is a demonstration"
        )
        return (
            f"{self.directory.path}: {self.parts.model.num_parameters() / 1e6:.1f}M parameters on "
            f"{self.accelerator.device}, "
            f"{self.accelerator.num_processes} process(es); {len(self.rows)} rows ({row}); "
            f"{recipe.max_steps} steps of "
            f"{recipe.batch_size} rows, {recipe.max_steps * recipe.batch_size / len(self.rows):.2f} passes."
        )

    def completion_rows(self, result: TRLStep) -> list[dict[str, Any]]:
        """What the step trained: each demonstration with its special tokens, cut where the loss begins."""
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
