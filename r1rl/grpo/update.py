"""The update phase: optimizer steps on the sequences of one rollout.

    every minibatch: its sequences shared out among the processes             r1rl.grpo.balance
                     and cut into passes                                      r1rl.policy.packing
    old and reference logprobs, once per rollout, where they are needed
    for each of num_iterations passes over the rollout, for each of num_minibatches minibatches:
        for each micro-batch: logprobs, loss, backward                        r1rl.policy.logprobs,
                                                                              r1rl.objective.losses
        clip, step, schedule

Sequences that can't change the gradient are not forwarded. Every process makes the same number of passes,
because sharded and replicated models synchronise in them. The host waits for the device once per optimizer
step (is the gradient finite?) and once for the metrics.

Legend: B sequences of this process, K their completion tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from r1rl.attention.steady import steady_attention
from r1rl.compute.distributed import max_over_processes, reduce_max, reduce_sum
from r1rl.compute.optimization import clip_and_step, exchange_gradients
from r1rl.grpo.balance import share_out
from r1rl.grpo.recipe import GRPORecipe
from r1rl.monitor import metric_names as names
from r1rl.objective.aggregation import count_trained, loss_weights, sequences_needed, trained_sequences
from r1rl.objective.loss_metrics import LossMetrics
from r1rl.objective.losses import policy_loss
from r1rl.objective.surrogates import SURROGATES, Surrogate
from r1rl.policy.batching import (
    MicroBatch,
    TrainBatch,
    collect_token_values,
    loss_inputs,
    move_loss_inputs,
    move_micro_batch,
)
from r1rl.policy.layout import packed_attention_in
from r1rl.policy.logprobs import EntropyMode
from r1rl.policy.packing import Layout, filler, make_micro_batches


@dataclass(frozen=True, slots=True)
class Minibatch:
    """The part of this process in one optimizer step."""

    weights_B: Tensor
    """`r1rl.objective.aggregation.loss_weights`; 0 for the sequences of other minibatches."""
    micro_batches: list[MicroBatch]
    passes: int
    """The number of micro-batches in the process that makes most of them. It is 1 at least, so that Adam's
    moments decay as with any zero gradient.
    """


class PolicyUpdate:
    """Trains the policy on rollouts. `policy` is the prepared `PolicyForward`, `reference` a frozen one (None
    when beta is 0).
    """

    def __init__(
        self,
        recipe: GRPORecipe,
        accelerator: Accelerator,
        policy: nn.Module,
        reference: nn.Module | None,
        models: Sequence[PreTrainedModel],
        layout: Layout,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        sampler_is_exact: bool,
        surrogate: Surrogate | None = None,
    ) -> None:
        """Keep what trains. `models`: those inside policy and reference. `sampler_is_exact`: the rollout
        engine computes the same logprobs as the trainer, so they can stand for the old ones. `surrogate`: the
        recipe's; None: the built-in one that the recipe names.
        """
        self.recipe = recipe
        self.accelerator = accelerator
        self.policy = policy
        self.reference = reference
        self.models = models
        self.layout = layout
        self.optimizer = optimizer
        self.schedule = schedule
        self.sampler_is_exact = sampler_is_exact
        self.surrogate = surrogate or SURROGATES[recipe.algorithm.surrogate]
        self.entropy: EntropyMode = "gradient" if recipe.algorithm.entropy_coefficient != 0.0 else "value"

    def run(
        self, batch: TrainBatch, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, float]:
        """Take every optimizer step on one rollout and return the metrics of the loss, means over all its
        steps and processes.
        """
        with packed_attention_in(*self.models) if self.layout.packed else steady_attention():
            return self._run(batch, progress)

    def _run(self, batch: TrainBatch, progress: Callable[[int, int], None]) -> dict[str, float]:
        algorithm = self.recipe.algorithm
        batch, rows_of = share_out(self.accelerator, batch, algorithm, self.layout, self.surrogate)
        trained_B = trained_sequences(batch.lengths_B, batch.truncated_B, algorithm)
        needed_B = sequences_needed(batch.advantages_B, trained_B, algorithm, self.surrogate)
        minibatches = self._minibatches(batch, rows_of, trained_B, needed_B)
        batch = self._with_fixed_logprobs(batch, needed_B)
        parts: list[LossMetrics] = []
        norms: list[float] = []
        for _ in range(algorithm.num_iterations):
            for minibatch in minibatches:
                parts += self._accumulate(batch, minibatch, progress)
                learning_rate = float(self.schedule.get_last_lr()[0])
                max_norm = self.recipe.optimizer.max_grad_norm
                norms.append(
                    clip_and_step(self.accelerator, self.policy, self.optimizer, self.schedule, max_norm)
                )
        return self._metrics(parts, norms, learning_rate, needed_B)

    def _minibatches(
        self, batch: TrainBatch, rows_of: Sequence[Tensor], trained_B: Tensor, needed_B: Tensor
    ) -> list[Minibatch]:
        """Return the optimizer steps of one pass over the rollout. Counts and numbers of passes are exchanged
        once for all of them.
        """
        own_counts = torch.stack([count_trained(batch.lengths_B[rows], trained_B[rows]) for rows in rows_of])
        counts = reduce_sum(self.accelerator, own_counts)
        cut = [self._cut(batch, rows[needed_B[rows]]) for rows in rows_of]
        passes = reduce_max(
            self.accelerator, torch.tensor([max(1, len(micro_batches)) for micro_batches in cut])
        ).tolist()
        minibatches = []
        for rows, own, most, minibatch_counts in zip(rows_of, cut, passes, counts, strict=True):
            weights_B = torch.zeros_like(batch.advantages_B)
            weights_B[rows] = loss_weights(
                batch.lengths_B[rows],
                trained_B[rows],
                minibatch_counts,
                counts.sum(0),
                self.recipe.algorithm,
                self.recipe.rollout.max_completion_length,
            )
            # Another process makes more passes: spreading the same work over as many saves this one memory,
            # and a filler.
            own = self._cut(batch, rows[needed_B[rows]], at_least=most) if len(own) < most else own
            minibatches.append(Minibatch(weights_B, own, most))
        return minibatches

    def _cut(self, batch: TrainBatch, rows: Tensor, at_least: int = 0) -> list[MicroBatch]:
        return make_micro_batches(batch, rows.tolist(), self.layout, self.recipe.update, at_least)

    def _accumulate(
        self, batch: TrainBatch, minibatch: Minibatch, progress: Callable[[int, int], None]
    ) -> list[LossMetrics]:
        """Forward and backward of a minibatch; the gradients of all processes are then those of the whole
        minibatch.
        """
        work = [(micro_batch, minibatch.weights_B) for micro_batch in minibatch.micro_batches]
        if len(work) < minibatch.passes:
            work += [(filler(batch, self.layout), torch.zeros_like(minibatch.weights_B))] * (
                minibatch.passes - len(work)
            )
        parts = []
        for done, (micro_batch, weights_B) in enumerate(work, start=1):
            with exchange_gradients(self.accelerator, self.policy, last=done == minibatch.passes):
                inputs = move_loss_inputs(loss_inputs(batch, micro_batch, weights_B), self.accelerator.device)
                logprobs_N, entropy_N = self._forward(self.policy, micro_batch, self.entropy)
                loss, metrics = policy_loss(
                    logprobs_N, entropy_N, inputs, self.recipe.algorithm, self.surrogate
                )
                # Wrappers average the gradients of the processes; the weights are those of a sum.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            parts.append(metrics)
            progress(done, minibatch.passes)
        return parts

    def _forward(
        self, model: nn.Module, micro_batch: MicroBatch, entropy: EntropyMode
    ) -> tuple[Tensor, Tensor | None]:
        """Return logprobs and entropies of the micro-batch's completion tokens, on the device."""
        it = move_micro_batch(micro_batch, self.accelerator.device)
        result: tuple[Tensor, Tensor | None] = model(
            it.input_ids_RT, it.predictors_N, it.targets_N, entropy, it.positions_RT, it.plan
        )
        return result

    def _with_fixed_logprobs(self, batch: TrainBatch, needed_B: Tensor) -> TrainBatch:
        """Return the batch with the logprobs that stay the same during its optimizer steps, as far as the
        objective needs them.

        With one optimizer step on completions of the policy itself, the policy is the old policy, and nothing
        is computed for it. Where the completions lag, the ratio to the policy that sampled corrects for that.
        Where the sampler's arithmetic is another, or nothing uses the ratio, the old policy is that of the
        update's start; the importance weight, which is capped, then takes in the lag.
        """
        algorithm = self.recipe.algorithm
        several_steps = algorithm.num_iterations * algorithm.num_minibatches > 1
        ratio_corrects = self.sampler_is_exact and not (batch.lagged and not self.surrogate.uses_ratio)
        if ratio_corrects and (several_steps or batch.lagged):
            batch = replace(batch, old_logprobs_K=batch.sampler_logprobs_K)
        elif several_steps:
            batch = replace(batch, old_logprobs_K=self._logprobs(self.policy, batch, needed_B))
        if self.reference is not None:
            batch = replace(batch, reference_logprobs_K=self._logprobs(self.reference, batch, needed_B))
        return batch

    @torch.no_grad()
    def _logprobs(self, model: nn.Module, batch: TrainBatch, needed_B: Tensor) -> Tensor:
        """Return logprobs [K] of the needed sequences under `model`; NaN elsewhere, which nothing reads."""
        micro_batches = self._cut(batch, needed_B.nonzero()[:, 0])
        passes = max_over_processes(self.accelerator, len(micro_batches))
        work = micro_batches
        if len(work) < passes:
            work = work + [filler(batch, self.layout)] * (passes - len(work))
        values = []
        for micro_batch in work:
            with self.accelerator.autocast():
                values.append(self._forward(model, micro_batch, "none")[0])
        return collect_token_values(batch, micro_batches, values[: len(micro_batches)])

    def _metrics(
        self, parts: list[LossMetrics], norms: list[float], learning_rate: float, needed_B: Tensor
    ) -> dict[str, float]:
        values = LossMetrics.merge(parts).values(
            lambda total: reduce_sum(self.accelerator, total),
            lambda extreme: reduce_max(self.accelerator, extreme),
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
