"""The report of a step: its metrics, its completions on disk, the completions that are shown.

Legend: B sequences of this process, K figures of `r1rl.distill.divergences.STATISTICS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from r1rl.distill.batches import TrainSequence
from r1rl.distill.divergences import STATISTICS
from r1rl.monitor import metric_names as names
from r1rl.monitor.curves import Panel
from r1rl.monitor.metrics import MetricAccumulator
from r1rl.monitor.progress import Column, ShownCompletion
from r1rl.text.reflection import reflects
from r1rl.types import FinishReason

METRIC_OF_STATISTIC = {
    "forward_kl": names.FORWARD_KL,
    "reverse_kl": names.REVERSE_KL,
    "jsd": names.JSD,
    "student_entropy": names.ENTROPY,
    "teacher_entropy": names.TEACHER_ENTROPY,
    "agreement": names.AGREEMENT,
}

COLUMNS = (
    Column("loss", names.LOSS, "{:.4f}"),
    Column("forward KL", names.FORWARD_KL, "{:.4f}"),
    Column("reverse KL", names.REVERSE_KL, "{:.4f}"),
    Column("agreement", names.AGREEMENT, "{:.1%}"),
    Column("length", names.MEAN_LENGTH, "{:.1f}"),
    Column("entropy", names.ENTROPY, "{:.3f}"),
    Column("rollout", names.TIME_ROLLOUT, "{:.0%}", names.TIME_STEP),
    Column("update", names.TIME_UPDATE, "{:.0%}", names.TIME_STEP),
    Column("step time", names.TIME_STEP, "{:.2f} s"),
)
"""The columns of the table on the terminal."""

PANELS = (
    Panel("Divergence that is trained", names.LOSS),
    Panel("Accuracy, held out", names.ACCURACY, "accuracy", percent=True, absent="no held-out problems"),
    Panel("Completion length (tokens)", names.MEAN_LENGTH, "mean_length"),
    Panel("Same likeliest token", names.AGREEMENT, percent=True),
    Panel("Entropy of the student (nats per token)", names.ENTROPY),
    Panel("KL(student || teacher)", names.REVERSE_KL),
)
"""The panels of curves.png."""


@dataclass(frozen=True, slots=True)
class Update:
    """The figures of an optimizer step over this process's sequences; the gradient norm is that of all
    processes.
    """

    divergence_B: Tensor
    """The divergence of each sequence, summed over its tokens, before the step."""
    weights_B: Tensor
    """The weight of each token of a sequence in the loss."""
    statistics_K: Tensor
    """The statistics, summed over tokens."""
    grad_norm: float
    learning_rate: float


def step_metrics(
    sequences: Sequence[TrainSequence], update: Update, seconds: dict[str, float], accelerator: Accelerator
) -> dict[str, float]:
    """Return the metrics of a step, over all processes. `seconds` are those of the slowest process."""
    accumulator = MetricAccumulator()
    lengths = [len(one.completion_ids) for one in sequences]
    accumulator.count(names.LOSS, float((update.weights_B * update.divergence_B).sum()))
    for name, total in zip(STATISTICS, update.statistics_K.tolist(), strict=True):
        accumulator.add(METRIC_OF_STATISTIC[name], total, sum(lengths))
    for one, length, total in zip(sequences, lengths, update.divergence_B.tolist(), strict=True):
        accumulator.add(names.LOSS_ON_POLICY if one.on_policy else names.LOSS_OFF_POLICY, total, length)
    accumulator.add_values(names.MEAN_LENGTH, lengths)
    written = [one for one in sequences if one.on_policy]
    accumulator.add_values(
        names.CLIPPED_RATIO, [float(one.finish_reason is FinishReason.LENGTH) for one in written]
    )
    accumulator.add_values(names.REFLECTION_RATE, [float(reflects(one.text)) for one in written])
    accumulator.count("tokens", sum(lengths))
    values = accumulator.collect(gather_object if accelerator.num_processes > 1 else None)
    values[names.TOKENS_PER_SECOND] = values.pop("tokens") / seconds["step"]
    values[names.LEARNING_RATE] = update.learning_rate
    values[names.SKIPPED_UPDATES] = float(not math.isfinite(update.grad_norm))
    if math.isfinite(update.grad_norm):
        values[names.GRAD_NORM] = update.grad_norm
    values.update({f"time/{phase}": spent for phase, spent in seconds.items()})
    return values


def completion_rows(sequences: Sequence[TrainSequence], divergence_B: Tensor) -> list[dict[str, Any]]:
    """Return one record per sequence, for completions/step-*.jsonl."""
    return [
        {
            "slot": one.slot,
            "problem_id": one.prompt.problem.id,
            "prompt": one.prompt.text,
            "answer": one.prompt.problem.answer,
            "completion": one.text,
            "on_policy": one.on_policy,
            "divergence": divergence,
            "finish_reason": one.finish_reason.value,
            "num_tokens": len(one.completion_ids),
        }
        for one, divergence in zip(sequences, divergence_B.tolist(), strict=True)
    ]


def shown_completions(
    sequences: Sequence[TrainSequence], divergence_B: Tensor, count: int
) -> list[ShownCompletion]:
    """Return the first completion of each of the first slots, to be read by people."""
    first = {one.slot: place for place, one in reversed(list(enumerate(sequences)))}
    return [
        ShownCompletion(
            problem=sequences[place].prompt.problem.problem,
            answer=sequences[place].prompt.problem.answer,
            text=sequences[place].prompt.prefill + sequences[place].text,
            verdict=f"{'the student' if sequences[place].on_policy else 'the file'}, divergence "
            f"{float(divergence_B[place]):.4f} per token",
            finish_reason=sequences[place].finish_reason.value,
        )
        for place in sorted(first.values())[:count]
    ]
