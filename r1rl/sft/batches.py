"""The form in which packed rows reach the model: one sequence in which no demonstration sees another, or
padded rows.

Rows are padded if the model can't compute the packed form. Both forms give the loss and the gradient of each
demonstration by itself. Packed attention is that of the GRPO update (`r1rl.attention.packed`): kernels for
sequences of different lengths on a GPU, rectangles of equal length elsewhere. A mask over the whole row would
cost its length squared.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from r1rl.attention.packed import Segment
from r1rl.attention.rectangles import RowsPlan
from r1rl.attention.varlen import VarlenPlan
from r1rl.policy.layout import packed_attention_in
from r1rl.policy.packing import Layout

KERNEL_INPUTS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
"""The inputs that TRL's collator adds for transformers' own FlashAttention."""

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


class RowBatches:
    """A collator of the rows of a micro-batch, which also sets the model's attention for the time of its
    passes.
    """

    def __init__(
        self, collate: Collate, pad_token_id: int, model: PreTrainedModel, layout: Layout | None
    ) -> None:
        """Keep the model and its collator.

        `collate` is TRL's collator for the rows as they are. `layout` says how packed rows are computed; None
        means that rows hold one demonstration each.
        """
        self.model = model
        self.layout = layout
        self._collate = collate
        self._pad = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the model's inputs, and labels."""
        if self.layout is None:
            return self._collate(rows)
        if not self.layout.packed:
            return self._pad([part for row in rows for part in demonstrations_of(row)])
        batch = self._collate(rows)
        starts = batch["cu_seq_lens_q"].tolist()
        segments = [Segment(start, end - start) for start, end in pairwise(starts)]
        kernel = self.layout.kernel
        plan = RowsPlan.of(segments) if kernel is None else VarlenPlan.of(segments, kernel)
        return {
            **{name: value for name, value in batch.items() if name not in KERNEL_INPUTS},
            "packed_plan": plan.sent_by(lambda tensor: tensor.to(self.model.device)),
        }

    def around(self) -> AbstractContextManager[None]:
        """Return a context for the forward and the backward pass of a micro-batch."""
        return (
            packed_attention_in(self.model)
            if self.layout is not None and self.layout.packed
            else nullcontext()
        )


def demonstrations_of(row: dict[str, Any]) -> list[dict[str, list[int]]]:
    """Return the demonstrations of a packed row, each as a row of its own."""
    ends = torch.tensor(row["seq_lengths"]).cumsum(0).tolist()
    places = zip([0, *ends], ends, strict=False)
    return [{name: row[name][start:end] for name in ("input_ids", "labels")} for start, end in places]
