"""Distillation: one step of it.

For a batch of prompts x with completions y, student p_S (theta) and frozen teacher p_T (GKD, arXiv
2306.13649, algorithm 1):

    (x, y):   y ~ p_S(. | x) for a share lambda of the prompts, from a file for the others      sources
    L(theta) = sum_b sum_t w_b D( p_T(. | x_b, y_b<t) || p_S(. | x_b, y_b<t) )            forward, divergences
    theta <- AdamW(theta, grad L)        D's gradient alone: none flows through the sampling of y

D is the forward or reverse KL divergence or the generalised JSD over the whole shared vocabulary; w_b makes
it a mean over tokens, or over the tokens of each completion and then over completions. docs/distillation.md
has the choices.

Legend: B sequences of this process, N completion tokens of a micro-batch, K figures of STATISTICS.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r1rl.compute.distributed import max_over_processes, reduce_sum
from r1rl.compute.optimization import clip_and_step, exchange_gradients
from r1rl.compute.phase_clock import PhaseClock
from r1rl.distill.batches import TrainSequence, make_micro_batches
from r1rl.distill.divergences import STATISTICS, sequence_weights
from r1rl.distill.recipe import DistillRecipe
from r1rl.distill.report import Update, step_metrics
from r1rl.distill.setup import DistillParts
from r1rl.runs.checkpoint import TrainingState


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one step: its metrics (the same in every process), and this process's sequences with
    their divergence per token [B].
    """

    metrics: dict[str, float]
    sequences: list[TrainSequence]
    divergence_B: Tensor


class DistillTrainer:
    """The steps of a distillation run. It owns a step's order; everything that does work is in
    `DistillParts`.
    """

    def __init__(self, recipe: DistillRecipe, parts: DistillParts, state: TrainingState) -> None:
        self.recipe = recipe
        self.parts = parts
        self.state = state

    def step(self) -> StepResult:
        """Do one step; the equation is above."""
        clock = PhaseClock(self.parts.accelerator)
        with clock.phase("rollout"):
            sequences = self.parts.order.take(self.state.step)
        with clock.phase("update"):
            update = self.update(sequences)
        self.state.step += 1
        self.state.order = self.parts.order.state_dict()
        self.state.seconds += clock.stop()
        lengths_B = torch.tensor([len(one.completion_ids) for one in sequences])
        metrics = step_metrics(sequences, update, clock.slowest(), self.parts.accelerator)
        return StepResult(metrics, sequences, update.divergence_B / lengths_B)

    def update(self, sequences: list[TrainSequence]) -> Update:
        """Do one optimizer step on these sequences and those of the other processes."""
        parts, accelerator, device = self.parts, self.parts.accelerator, self.parts.accelerator.device
        lengths_B = torch.tensor([len(one.completion_ids) for one in sequences])
        tokens, count = reduce_sum(accelerator, torch.tensor([int(lengths_B.sum()), len(sequences)])).tolist()
        weights_B = sequence_weights(lengths_B, tokens, count, self.recipe.divergence).to(device)
        divergence_B = torch.zeros(len(sequences), dtype=torch.float64, device=device)
        statistics_K = torch.zeros(len(STATISTICS), dtype=torch.float64, device=device)
        micro_batches = make_micro_batches(sequences, self.recipe.update)
        # Every process runs the same number of micro-batches, because models synchronise in them; a further
        # one has weight 0.
        passes = max_over_processes(accelerator, len(micro_batches))
        for done in range(1, passes + 1):
            is_own = done <= len(micro_batches)
            batch = micro_batches[done - 1 if is_own else -1].on(device)
            with exchange_gradients(accelerator, parts.policy, last=done == passes):
                taught = parts.teacher.states(batch.input_ids_RT, batch.predictors_N)
                divergence_N, statistics_NK = parts.policy(batch.input_ids_RT, batch.predictors_N, taught)
                loss = (weights_B[batch.sequence_N] * divergence_N).sum() * float(is_own)
                # Wrappers average the gradients of the processes; the weights are those of a sum.
                accelerator.backward(loss * accelerator.num_processes)
            if is_own:
                divergence_B.index_add_(0, batch.sequence_N, divergence_N.detach().double())
                statistics_K += statistics_NK.double().sum(0)
            parts.display.phase("update", done, passes)
        learning_rate = float(parts.schedule.get_last_lr()[0])
        norm = clip_and_step(
            accelerator, parts.policy, parts.optimizer, parts.schedule, self.recipe.optimizer.max_grad_norm
        )
        return Update(divergence_B.cpu(), weights_B.cpu(), statistics_K.cpu(), norm, learning_rate)
