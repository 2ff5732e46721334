"""The parts of a reward model's run: pairs, model, optimizer, schedule, and TRL's trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from trl import RewardConfig, RewardTrainer

from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.data import PromptOrder
from r1rl.data.preferences import read_preferences
from r1rl.models.loading import SCORER, load_trained
from r1rl.reward_model.pairs import TokenizedPair, split, tokenize_pairs
from r1rl.reward_model.recipe import RewardModelRecipe
from r1rl.runs.inputs import Given
from r1rl.runs.rows import SharedRows
from r1rl.runs.start import RunStart
from r1rl.runs.trl_steps import TRLParts, trl_arguments
from r1rl.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class TokenizedPairs:
    """The pairs as the model reads them."""

    tokenizer: PreTrainedTokenizerBase
    rows: SharedRows
    """The pairs that are trained."""
    held_out: list[TokenizedPair]


@dataclass(frozen=True, slots=True)
class RewardModelPreflight:
    """The data that a run starts from."""

    messages: list[str] = field(default_factory=list)
    """Sentences about pairs that are not used."""
    tokenized: TokenizedPairs | None = None
    """The pairs; None before a run is launched."""

    def close(self) -> None:
        """Do nothing: there is nothing to end."""


@dataclass(kw_only=True)
class RewardModelParts(TRLParts):
    """Everything that a run works with."""

    held_out: list[TokenizedPair]


def read_pairs(
    recipe: RewardModelRecipe, tokenizer: PreTrainedTokenizerBase, given: Given
) -> tuple[list[TokenizedPair], list[TokenizedPair], list[str]]:
    """Return the pairs to train on, at most `evaluation.num_pairs` held-out ones, and sentences about rows
    that can't be used.
    """
    pairs, sentences = tokenize_pairs(read_preferences(recipe.data, rows=given.rows), tokenizer, recipe)
    trained, held_out = split(pairs, recipe.evaluation.share)
    if recipe.evaluation.data is not None:
        held_out, more = tokenize_pairs(
            read_preferences(recipe.evaluation.data, "evaluation.data", given.evaluation_rows),
            tokenizer,
            recipe,
        )
        sentences += more
        shared = len({pair.problem for pair in trained} & {pair.problem for pair in held_out})
        if shared:
            sentences.append(
                f"{shared} problems of the held-out pairs are also in the training data: their accuracy "
                f"proves little."
            )
    return trained, held_out[: recipe.evaluation.num_pairs], sentences


def build_parts(start: RunStart[RewardModelRecipe], checked: RewardModelPreflight) -> RewardModelParts:
    """Load the model (from the checkpoint when a run goes on) and connect everything."""
    assert checked.tokenized is not None  # made before the run directory was
    recipe, accelerator, tokenizer = start.recipe, start.accelerator, checked.tokenized.tokenizer
    rows = checked.tokenized.rows.share(accelerator, start.directory.path / "rows")
    model = load_scorer(recipe, start.checkpoint, start.given.model)
    nn.Module.to(model, accelerator.device)
    arguments = trl_arguments(
        RewardConfig,
        accelerator,
        str(start.directory.path),
        max_length=None,
        center_rewards_coefficient=recipe.center_coefficient or None,
    )
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    policy, optimizer = accelerator.prepare(model, make_optimizer(model, recipe.optimizer))
    return RewardModelParts(
        accelerator=accelerator,
        display=start.display,
        tokenizer=tokenizer,
        model=model,
        policy=policy,
        order=PromptOrder(len(rows), recipe.seed, recipe.data.shuffle),
        optimizer=optimizer,
        schedule=make_schedule(optimizer, recipe.max_steps, recipe.optimizer),
        trainer=trainer,
        rows=rows,
        held_out=checked.tokenized.held_out,
    )


def load_scorer(
    recipe: RewardModelRecipe, checkpoint: Path | None = None, given: PreTrainedModel | None = None
) -> PreTrainedModel:
    """Return the model with one output; where there is none yet, its weights are drawn from the recipe's
    seed.
    """
    torch.manual_seed(derive_seed(recipe.seed, "score head"))
    with _quiet():
        return load_trained(recipe.model, checkpoint, kind=SCORER, given=given, num_labels=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out transformers' report that a causal language model has no score head: it gets one here."""
    former = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(former)
