"""Optimizer steps whose loss is computed by a trainer of TRL; the run around them is r1rl's own.

TRL's SFTTrainer and RewardTrainer bring collation, loss and its metrics. The order of the data, accumulation
over micro-batches and processes, clipping and the step are done here, so that a run goes on exactly where it
was, whatever the number of processes:

    rows of step s = the next `batch_size` ones of the run's order; process r of W takes every W-th of them
    gradient       = that of the mean over all trained tokens (SFT) or pairs (reward model) of the step
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from r1rl.compute.distributed import max_over_processes, own_share, reduce_sum
from r1rl.compute.optimization import clip_and_step, exchange_gradients
from r1rl.config.schema import OptimizerConfig
from r1rl.data import PromptOrder
from r1rl.monitor import metric_names as names
from r1rl.runs.checkpoint import TrainingState
from r1rl.runs.contract import RunParts

TRL_METRICS = {
    "entropy": names.ENTROPY,
    "mean_token_accuracy": names.TOKEN_ACCURACY,
    "accuracy": names.PAIR_ACCURACY,
    "margin": names.PAIR_MARGIN,
}
"""The metrics of TRL that are kept, and their names here."""


Arguments = TypeVar("Arguments", SFTConfig, RewardConfig)


class TRLRecipe(Protocol):
    """The part of a recipe that its steps need."""

    batch_size: int
    micro_batch_size: int

    @property
    def optimizer(self) -> OptimizerConfig:
        """AdamW and its schedule."""
        ...


@dataclass(kw_only=True)
class TRLParts(RunParts):
    """The parts of a run whose loss a trainer of TRL computes."""

    trainer: SFTTrainer | RewardTrainer
    rows: Dataset
    order: PromptOrder


@dataclass(frozen=True, slots=True)
class TRLStep:
    """The result of a step."""

    metrics: dict[str, float]
    rows: list[tuple[int, dict[str, Any]]]
    """This process's rows and their places in the step."""


class TRLSteps:
    """The steps of a run, which are counted in its `state`."""

    def __init__(
        self,
        trainer: SFTTrainer | RewardTrainer,
        accelerator: Accelerator,
        policy: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        rows: Dataset,
        order: PromptOrder,
        state: TrainingState,
        *,
        batch_size: int,
        micro_batch_size: int,
        max_grad_norm: float,
        length_of: Callable[[Mapping[str, Any]], int],
        progress: Callable[[str, int, int], None],
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Take the parts of a run: `policy` and `optimizer` as accelerate prepared them; `length_of` counts
        the tokens of a row.

        `collate` makes the inputs of a micro-batch in the place of the trainer's own; `around` is a context
        for the forward and backward pass of each.
        """
        self.trainer = trainer
        self.accelerator = accelerator
        self.policy = policy
        self.optimizer = optimizer
        self.schedule = schedule
        self.rows = rows
        self.order = order
        self.state = state
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.max_grad_norm = max_grad_norm
        self.length_of = length_of
        self.progress = progress
        self.collate = collate or trainer.data_collator
        self.around = around
        trainer.accelerator = accelerator  # the one that prepared the policy

    @classmethod
    def of_run(
        cls,
        recipe: TRLRecipe,
        parts: TRLParts,
        state: TrainingState,
        length_of: Callable[[Mapping[str, Any]], int],
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> TRLSteps:
        """Return the steps of a run with these parts; the other arguments are those of the constructor."""
        return cls(
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
            length_of=length_of,
            progress=parts.display.phase,
            collate=collate,
            around=around,
        )

    def step(self) -> TRLStep:
        """Do one optimizer step on the next `batch_size` rows. A gradient that is not finite is thrown away
        and counted.
        """
        started = time.perf_counter()
        places = own_share(self.accelerator, list(enumerate(self.order.take(self.batch_size))))
        own = [(place, self.rows[index]) for place, index in places]
        loss = self._accumulate([row for _, row in sorted(own, key=lambda pair: self.length_of(pair[1]))])
        learning_rate = float(self.schedule.get_last_lr()[0])
        norm = clip_and_step(self.accelerator, self.policy, self.optimizer, self.schedule, self.max_grad_norm)
        tokens = sum(self.length_of(row) for _, row in own)
        sums = reduce_sum(self.accelerator, torch.tensor([loss, float(tokens)], dtype=torch.float64)).tolist()
        seconds = max_over_processes(self.accelerator, int(1e6 * (time.perf_counter() - started))) / 1e6
        self.state.step += 1
        self.state.order = self.order.state_dict()
        self.state.seconds += seconds
        metrics = {
            names.LOSS: sums[0] / self.accelerator.num_processes,
            **self._trl_metrics(),
            names.LEARNING_RATE: learning_rate,
            names.SKIPPED_UPDATES: float(not math.isfinite(norm)),
            names.TOKENS: sums[1],
            names.TIME_STEP: seconds,
            names.TOKENS_PER_SECOND: sums[1] / seconds,
        }
        if math.isfinite(norm):
            metrics[names.GRAD_NORM] = norm
        return TRLStep(metrics, own)

    def _accumulate(self, rows: list[dict[str, Any]]) -> float:
        """Run forward and backward of this process's rows, short ones first; return the sum of their losses,
        as TRL scales them.
        """
        chunks = [
            rows[start : start + self.micro_batch_size]
            for start in range(0, len(rows), self.micro_batch_size)
        ]
        batches: list[dict[str, Any]] = [self.collate(chunk) for chunk in chunks]
        trained = None
        # the loss is a sum over tokens, divided by all that the step trains in all processes
        if "labels" in batches[0]:
            trained = sum(batch["labels"].ne(-100).sum() for batch in batches)
            trained = reduce_sum(self.accelerator, torch.as_tensor(trained)).to(self.accelerator.device)
        # What TRL divides a loss by that is a mean over the micro-batch.
        self.trainer.current_gradient_accumulation_steps = 1 if trained is not None else len(batches)
        losses = []
        for done, batch in enumerate(batches, start=1):
            with exchange_gradients(self.accelerator, self.policy, done == len(batches)), self.around():
                losses.append(self.trainer.training_step(self.policy, batch, trained))
            self.progress("update", done, len(batches))
        return float(torch.stack(losses).sum())

    def _trl_metrics(self) -> dict[str, float]:
        """Return the means over the micro-batches, which TRL has taken over the processes."""
        collected = self.trainer._metrics["train"]
        values = {
            ours: sum(collected[theirs]) / len(collected[theirs])
            for theirs, ours in TRL_METRICS.items()
            if collected.get(theirs)
        }
        collected.clear()
        return values


def trl_arguments(
    kind: type[Arguments], accelerator: Accelerator, output_dir: str, **settings: Any
) -> Arguments:
    """Return the arguments of a trainer of TRL: to compute as accelerate was set up here, and to leave
    everything else alone.
    """
    with warnings.catch_warnings():
        # 5.23 has a new name for gradient_checkpointing; 5.17 has only this one
        warnings.simplefilter("ignore", FutureWarning)
        arguments = kind(
            output_dir=output_dir,
            bf16=accelerator.mixed_precision == "bf16",
            use_cpu=accelerator.device.type == "cpu",
            accelerator_config={"use_configured_state": True},
            gradient_checkpointing=False,  # the model was loaded with it where the recipe says so
            remove_unused_columns=False,
            report_to=[],
            disable_tqdm=True,
            **settings,
        )
    arguments._n_gpu = min(1, arguments.n_gpu)  # further GPUs of the machine are for further processes
    # not that of the launcher, where the recipe says otherwise
    arguments.mixed_precision = accelerator.mixed_precision
    return arguments
