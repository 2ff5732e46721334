"""The parts of an SFT run: model, engine for held-out problems, optimizer, schedule, and TRL's trainer."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import Accelerator
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from r1rl.compute.accelerator import compute_dtype
from r1rl.compute.distributed import is_sharded
from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.config.schema import UpdateConfig
from r1rl.data import PromptOrder, build_prompts
from r1rl.data.demonstration_tokens import trained_end
from r1rl.models.loading import load_policy
from r1rl.objective.sampling import Sampling
from r1rl.policy.layout import agreed_layout, choose_layout
from r1rl.rollout import EngineSetup, make_engine
from r1rl.runs.evaluated_run import EvaluatedParts
from r1rl.runs.run_directory import RunDirectory
from r1rl.runs.start import RunStart
from r1rl.runs.trl_steps import TRLParts, trl_arguments
from r1rl.sft.batches import RowBatches
from r1rl.sft.preflight import SFTPreflight
from r1rl.sft.recipe import SFTRecipe
from r1rl.text.prompts import PromptTemplate, resolve_eos_token_ids


@dataclass(kw_only=True)
class SFTParts(EvaluatedParts, TRLParts):
    """Everything that a run works with."""

    batches: RowBatches


def build_parts(start: RunStart[SFTRecipe], checked: SFTPreflight) -> SFTParts:
    """Load the model (from the checkpoint when a run goes on) and connect everything."""
    assert checked.tokenized is not None  # made before the run directory was
    recipe, accelerator, display = start.recipe, start.accelerator, start.display
    tokenizer, held_out = checked.tokenized.tokenizer, checked.evaluation_problems
    rows = checked.tokenized.rows.share(accelerator, start.directory.path / "rows")
    model = load_policy(recipe.model, start.checkpoint, given=start.given.model)
    ending = resolve_eos_token_ids(recipe.prompt, tokenizer, model.generation_config)
    end = trained_end(recipe.prompt, recipe.model, tokenizer)
    if model.generation_config is not None and end is not None:
        # Whoever generates with the checkpoint stops where it was taught to stop.
        model.generation_config.eos_token_id = [end, *(one for one in ending if one != end)]
    prompts = build_prompts(held_out, PromptTemplate(recipe.prompt, tokenizer), None)[0] if held_out else []
    dtype = compute_dtype(accelerator)
    nn.Module.to(model, accelerator.device)
    # Before the trainer is made: it gives the model a forward pass of its own, which a copy for the rollout
    # would not have.
    evaluation = recipe.evaluation
    setup = EngineSetup(model, tokenizer, evaluation.max_rows, dtype, own_copy=is_sharded(accelerator))
    engine = make_engine(evaluation.engine, setup)
    layout = None
    if recipe.packing:
        layout = agreed_layout(
            accelerator, choose_layout(model, UpdateConfig(share_prompts=False), dtype, tokenizer)
        )
    start.report_trials([*([] if layout is None else layout.trials), *engine.trials])
    trainer = make_trainer(recipe, model, tokenizer, rows, accelerator, start.directory)
    policy, optimizer = accelerator.prepare(model, make_optimizer(model, recipe.optimizer))
    return SFTParts(
        accelerator=accelerator,
        display=display,
        tokenizer=tokenizer,
        model=model,
        policy=policy,
        engine=engine,
        sampling=Sampling.of(
            evaluation.sampling,
            evaluation.max_completion_length,
            ending,
            recipe.prompt.stop,
            evaluation.sampling.repetition_penalty,
        ),
        evaluation_prompts=prompts,
        rewards=checked.rewards,
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
    """Return TRL's trainer, for its collation, loss and metrics. The rows are prepared: it neither tokenizes
    nor cuts them.
    """
    prepared = {
        "packing": recipe.packing,
        "max_length": recipe.max_length,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    arguments = trl_arguments(SFTConfig, accelerator, str(directory.path), **prepared)
    return SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
