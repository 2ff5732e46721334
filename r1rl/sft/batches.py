"""How packed rows reach the model: as one sequence in which no demonstration sees another, or, where the
model can't, padded.

Both give the loss and the gradient of each demonstration by itself. Packed attention is that of the GRPO
update (`r1rl.attention.packed`): kernels for sequences of different lengths on a GPU, rectangles of equal
length elsewhere; a mask over the whole row would cost its length squared.
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
"""What TRL's collator adds for transformers' own FlashAttention."""

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


class RowBatches:
    """Collates the rows of a forward pass, and sets the model's attention while the pass lasts."""

    def __init__(
        self, collate: Collate, pad_token_id: int, model: PreTrainedModel, layout: Layout | None
    ) -> None:
        """`collate`: TRL's for the rows as they are; `layout`: how packed rows are computed, None: rows hold
        one demonstration each.
        """
        self.model = model
        self.layout = layout
        self._collate = collate
        self._pad = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The model's inputs, and labels."""
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
        """A context for forward and backward of a pass."""
        return (
            packed_attention_in(self.model)
            if self.layout is not None and self.layout.packed
            else nullcontext()
        )


def demonstrations_of(row: dict[str, Any]) -> list[dict[str, list[int]]]:
    """The demonstrations of a packed row, each a row of its own."""
    ends = torch.tensor(row["seq_lengths"]).cumsum(0).tolist()
    places = zip([0, *ends], ends, strict=False)
    return [{name: row[name][start:end] for name in ("input_ids", "labels")} for start, end in places]
