"""The update phase: optimizer steps on the sequences of one rollout.

    old and reference logprobs, once per rollout, where they are needed
    for each of num_iterations passes, for each of num_minibatches minibatches:
        weights of the tokens, from counts over all processes             r1rl.grpo.aggregation
        for each micro-batch: logprobs, loss, backward                    r1rl.grpo.logprobs, r1rl.grpo.losses
        clip, step, schedule

Sequences that can't change the gradient are neither forwarded nor counted twice; every process makes the same number of passes,
because sharded and replicated models synchronise in them.

Legend: B sequences of this process, K their completion tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from r1rl import metric_names as names
from r1rl.config.schema import GRPORecipe
from r1rl.distributed import max_over_processes, reduce_max, reduce_sum
from r1rl.grpo.aggregation import count_trained, loss_weights, sequences_needed, trained_sequences
from r1rl.grpo.batching import MicroBatch, TrainBatch, collect_token_values, filler, loss_inputs, make_micro_batches, move
from r1rl.grpo.logprobs import EntropyMode
from r1rl.grpo.loss_metrics import LossMetrics
from r1rl.grpo.losses import policy_loss
from r1rl.optimization import clip_and_step, exchange_gradients


class PolicyUpdate:
    """Trains the policy on rollouts. `policy` is the prepared `PolicyForward`, `reference` a frozen one (None when beta is 0)."""

    def __init__(
        self,
        recipe: GRPORecipe,
        accelerator: Accelerator,
        policy: nn.Module,
        reference: nn.Module | None,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        sampler_is_exact: bool,
    ) -> None:
        """`sampler_is_exact`: the rollout engine computes the same logprobs as the trainer, so they can stand for the old ones."""
        self.recipe = recipe
        self.accelerator = accelerator
        self.policy = policy
        self.reference = reference
        self.optimizer = optimizer
        self.schedule = schedule
        self.sampler_is_exact = sampler_is_exact
        self.entropy: EntropyMode = "gradient" if recipe.algorithm.entropy_coefficient != 0.0 else "value"

    def run(self, batch: TrainBatch, progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, float]:
        """Every optimizer step on one rollout; returns the metrics of the loss, means over all its steps and processes."""
        algorithm = self.recipe.algorithm
        trained_B = trained_sequences(batch.lengths_B, batch.truncated_B, algorithm)
        needed_B = sequences_needed(batch.advantages_B, trained_B, algorithm)
        batch = self._with_fixed_logprobs(batch, needed_B)
        rollout_counts = reduce_sum(self.accelerator, count_trained(batch.lengths_B, trained_B))
        parts: list[LossMetrics] = []
        norms: list[float] = []
        for rows in self._minibatches(batch.num_sequences):
            counts = reduce_sum(self.accelerator, count_trained(batch.lengths_B[rows], trained_B[rows]))
            weights_B = torch.zeros_like(batch.advantages_B)
            weights_B[rows] = loss_weights(
                batch.lengths_B[rows], trained_B[rows], counts, rollout_counts, algorithm, self.recipe.rollout.max_completion_length
            )
            micro_batches = make_micro_batches(batch, rows[needed_B[rows]].tolist(), self.recipe.update)
            parts += self._accumulate(batch, micro_batches, weights_B, progress)
            learning_rate = float(self.schedule.get_last_lr()[0])
            max_norm = self.recipe.optimizer.max_grad_norm
            norms.append(clip_and_step(self.accelerator, self.policy, self.optimizer, self.schedule, max_norm))
        return self._metrics(parts, norms, learning_rate, needed_B)

    def _minibatches(self, num_sequences: int) -> Iterator[Tensor]:
        """Rows of each optimizer step: the same contiguous minibatches in every pass, each a whole number of groups."""
        for _ in range(self.recipe.algorithm.num_iterations):
            yield from torch.arange(num_sequences).chunk(self.recipe.algorithm.num_minibatches)

    def _accumulate(
        self, batch: TrainBatch, micro_batches: list[MicroBatch], weights_B: Tensor, progress: Callable[[int, int], None]
    ) -> list[LossMetrics]:
        """Forward and backward of a minibatch; the gradients of all processes are then those of the whole minibatch."""
        passes = max(1, max_over_processes(self.accelerator, len(micro_batches)))
        # A minibatch without signal still makes one pass, with weight 0: Adam's moments decay as with any zero gradient.
        work = [(micro_batch, weights_B) for micro_batch in micro_batches]
        work += [(filler(batch), torch.zeros_like(weights_B))] * (passes - len(micro_batches))
        parts = []
        for done, (micro_batch, weights) in enumerate(work, start=1):
            with exchange_gradients(self.accelerator, self.policy, last=done == passes):
                on_device = move(micro_batch, self.accelerator.device)
                inputs = move(loss_inputs(batch, micro_batch, weights), self.accelerator.device)
                logprobs_N, entropy_N = self.policy(on_device.input_ids_RT, on_device.predictors_N, on_device.targets_N, self.entropy)
                loss, metrics = policy_loss(logprobs_N, entropy_N, inputs, self.recipe.algorithm)
                # Wrappers average the gradients of the processes; the weights are those of a sum.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            parts.append(metrics)
            progress(done, passes)
        return parts

    def _with_fixed_logprobs(self, batch: TrainBatch, needed_B: Tensor) -> TrainBatch:
        """The batch with the logprobs that stay the same during its optimizer steps, as far as the objective needs them.

        With one optimizer step the policy is the old policy, and nothing is computed for it.
        """
        algorithm = self.recipe.algorithm
        several_steps = algorithm.num_iterations * algorithm.num_minibatches > 1
        if several_steps and self.sampler_is_exact:
            batch = replace(batch, old_logprobs_K=batch.sampler_logprobs_K)
        elif several_steps:
            batch = replace(batch, old_logprobs_K=self._logprobs(self.policy, batch, needed_B))
        if self.reference is not None:
            batch = replace(batch, reference_logprobs_K=self._logprobs(self.reference, batch, needed_B))
        return batch

    @torch.no_grad()
    def _logprobs(self, model: nn.Module, batch: TrainBatch, needed_B: Tensor) -> Tensor:
        """Logprobs [K] of the needed sequences under `model`; NaN elsewhere, which nothing reads."""
        micro_batches = make_micro_batches(batch, needed_B.nonzero()[:, 0].tolist(), self.recipe.update)
        passes = max_over_processes(self.accelerator, len(micro_batches))
        values = []
        for micro_batch in micro_batches + [filler(batch)] * (passes - len(micro_batches)):
            on_device = move(micro_batch, self.accelerator.device)
            with self.accelerator.autocast():
                values.append(model(on_device.input_ids_RT, on_device.predictors_N, on_device.targets_N, "none")[0])
        return collect_token_values(batch, micro_batches, values[: len(micro_batches)])

    def _metrics(self, parts: list[LossMetrics], norms: list[float], learning_rate: float, needed_B: Tensor) -> dict[str, float]:
        values = LossMetrics.merge(parts).values(
            lambda total: reduce_sum(self.accelerator, total), lambda extreme: reduce_max(self.accelerator, extreme)
        )
        needed, sequences = reduce_sum(
            self.accelerator, torch.tensor([int(needed_B.sum()), needed_B.numel()], dtype=torch.float64)
        ).tolist()
        finite = [norm for norm in norms if math.isfinite(norm)]
        values[names.TRAINED_SHARE] = needed / sequences
        values[names.SKIPPED_UPDATES] = float(len(norms) - len(finite))
        values[names.LEARNING_RATE] = learning_rate
        if finite:
            values[names.GRAD_NORM] = sum(finite) / len(finite)
        return values
