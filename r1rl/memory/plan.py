"""The memory that each GPU needs for a model, a launch and a piece of work. docs/memory.md derives every
formula.

    always     master weights 4 N, Adam's moments 8 N                  shared out under FSDP2, else whole
               rollout copy 2 N, reference 2 N, teacher 2 N_teacher    whole on every GPU
    rollout    keys and values of the rows that decode, and their logits
    update     gradients 4 N, weights in the precision of the forward pass, activations of one micro-batch,
               one chunk of logits

Rollout and update follow each other, so that the total is `always` and the larger of the two. N: the model's
parameters. With adapters of n parameters on layers of M, the model is frozen in the forward pass's precision,
2 N, and is the reference itself; master weights, moments and gradients are n's, and the rollout copy is 2 M.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from r1rl.memory.work import CARD_BYTES, GB, Adapters, Launch, ModelShape, Work

RESERVE_BYTES = 3 * GB
"""Bytes for CUDA's context, NCCL's buffers and what torch's allocator can't use because it lies in pieces."""
MASTER, MOMENTS, GRADIENT, HALF = 4, 8, 4, 2
"""Bytes of a parameter: float32 weights, AdamW's two moments, float32 gradients, bfloat16 copies."""
CHUNK_LOGIT_BYTES = 16
"""Bytes of a token and vocabulary entry in the loss: bfloat16 logits (2), float32 ones (4), their gradient
(4), a copy (4), in bfloat16 (2).
"""
FUSED_LOGIT_BYTES = 4
"""Bytes of the same where a kernel makes the gradient from the logits: both in bfloat16."""
ROLLOUT_LOGIT_BYTES = 32
"""Bytes of a row and vocabulary entry while decoding, as in `r1rl.rollout.native.memory`."""
KEPT_SHARE = 0.1
"""The share of the card that the largest cache has which is kept during the update, with the captured steps
that refer to it (`r1rl.rollout.native.memory`).
"""
ROLLOUT_SHARE = 0.9
"""The share of the free memory that rows may take: the engine's own rule."""

Phase = Literal["always", "rollout", "update"]


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the estimate."""

    name: str
    phase: Phase
    bytes: int
    formula: str


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The estimate for one GPU (or, on a CPU, one process)."""

    parts: tuple[Part, ...]
    rows_at_once: int
    """Rows that decode at once beside what is always there; 0 if nothing is sampled."""
    work: Work = field(repr=False)
    card_bytes: int = CARD_BYTES

    def of(self, phase: Phase) -> int:
        """Return the bytes of a phase's own parts."""
        return sum(part.bytes for part in self.parts if part.phase == phase)

    @property
    def total(self) -> int:
        """The largest number of bytes at any moment."""
        phases = self.of("rollout"), self.of("update")
        return self.of("always") + (sum(phases) if self.work.overlaps else max(phases))

    @property
    def fits(self) -> bool:
        """A flag, true if the card is enough for the total."""
        return self.total <= self.card_bytes


def key_value_bytes(shape: ModelShape, element: int) -> int:
    """Return the bytes of one token's keys and values over all layers: 2 L keys element."""
    return 2 * shape.layers * shape.keys * element


def activation_bytes(shape: ModelShape, checkpointed: bool, compiled: bool = False) -> int:
    """Return the bytes that one token of a micro-batch keeps for the backward pass.

    A layer keeps 20 hidden + 4 queries + 4 keys + 8 intermediate (docs/memory.md); with gradient
    checkpointing all layers keep their input, 4 hidden, and one layer at a time the rest. A compiled layer
    keeps 12 hidden + 4 queries + 4 keys + 6 intermediate, and the backward pass of one layer takes 8 hidden +
    6 intermediate more. Norms of queries and keys keep 6 bytes of each entry, compiled 4.
    """
    normed = shape.queries + shape.keys if shape.norms_heads else 0
    if compiled:
        kept = 12 * shape.hidden + 4 * shape.queries + 4 * shape.keys + 6 * shape.intermediate + 4 * normed
        return shape.layers * kept + 8 * shape.hidden + 6 * shape.intermediate
    layer = 20 * shape.hidden + 4 * shape.queries + 4 * shape.keys + 8 * shape.intermediate + 6 * normed
    return shape.layers * 4 * shape.hidden + layer if checkpointed else shape.layers * layer


def plan_memory(shape: ModelShape, launch: Launch, work: Work) -> MemoryPlan:
    """Return the estimate. Where not all rows fit at once, the rollout takes them in turns, as the engine
    does by itself.
    """
    element = HALF if launch.on_gpu else MASTER
    parts = _always(shape, launch, work, element)
    if work.trains:
        parts += _update(shape, launch, work)
    rows = 0
    if work.rows:
        row = work.length * key_value_bytes(shape, element) + ROLLOUT_LOGIT_BYTES * shape.vocabulary
        free = launch.card_bytes - sum(part.bytes for part in parts if part.phase == "always")
        wanted = min(work.rows, work.max_rows or work.rows)
        rows = min(wanted, max(1, int(free * ROLLOUT_SHARE) // row)) if launch.on_gpu else wanted
        cache = rows * work.length * key_value_bytes(shape, element)
        parts += [
            Part(
                "keys and values",
                "rollout",
                cache,
                f"{rows} rows x {work.length} tokens x {key_value_bytes(shape, element):,} bytes",
            ),
            Part(
                "logits of a token",
                "rollout",
                rows * ROLLOUT_LOGIT_BYTES * shape.vocabulary,
                f"{rows} rows x 32 x {shape.vocabulary:,}",
            ),
        ]
        if work.trains and launch.on_gpu and not work.overlaps and cache <= KEPT_SHARE * launch.card_bytes:
            parts.append(Part("kept keys and values", "update", cache, "as above, for the next rollout"))
    return MemoryPlan(tuple(parts), rows, work, launch.card_bytes)


def _always(shape: ModelShape, launch: Launch, work: Work, element: int) -> list[Part]:
    if work.adapters is not None:
        return _always_with_adapters(shape, launch, work.adapters, element)
    count, shards = shape.parameters, launch.shards
    cut = f" / {shards}" if shards > 1 else ""
    parts = []
    if work.trains:
        parts += [
            Part("master weights", "always", MASTER * count // shards, f"4 x N{cut}"),
            Part("Adam's moments", "always", MOMENTS * count // shards, f"8 x N{cut}"),
        ]
    if work.rows and work.trains and (launch.on_gpu or launch.sharded or work.overlaps):
        parts.append(Part("rollout copy", "always", element * count, f"{element} x N"))
    if not work.trains:
        parts.append(Part("weights", "always", element * count, f"{element} x N"))
    if work.has_reference:
        parts.append(Part("reference policy", "always", element * count, f"{element} x N"))
    if work.teacher is not None:
        parts.append(
            Part(
                "teacher",
                "always",
                element * work.teacher.parameters,
                f"{element} x {work.teacher.parameters / 1e9:.2f}e9",
            )
        )
    return [*parts, *_reserve(launch)]


def _always_with_adapters(shape: ModelShape, launch: Launch, adapters: Adapters, element: int) -> list[Part]:
    return [
        Part("frozen weights", "always", element * shape.parameters, f"{element} x N"),
        Part("adapters", "always", MASTER * adapters.parameters, f"4 x {adapters.parameters:,}"),
        Part("Adam's moments", "always", MOMENTS * adapters.parameters, f"8 x {adapters.parameters:,}"),
        Part(
            "rollout copy",
            "always",
            element * adapters.adapted,
            f"{element} x {adapters.adapted:,}, the adapted matrices",
        ),
        *_reserve(launch),
    ]


def _reserve(launch: Launch) -> list[Part]:
    return (
        [Part("reserve", "always", RESERVE_BYTES, "CUDA context, NCCL, fragments")] if launch.on_gpu else []
    )


def _update(shape: ModelShape, launch: Launch, work: Work) -> list[Part]:
    count, shards = shape.parameters if work.adapters is None else work.adapters.parameters, launch.shards
    trained = "N" if work.adapters is None else f"{count:,}"
    parts = [
        Part(
            "gradients",
            "update",
            GRADIENT * count // shards,
            f"4 x {trained}{f' / {shards}' if shards > 1 else ''}",
        )
    ]
    if launch.sharded:
        gathered = shape.outside_layers + 2 * shape.largest_layer
        parts.append(
            Part("gathered weights", "update", HALF * gathered, "2 x (embeddings and head + 2 layers)")
        )
    else:
        if launch.processes > 1:
            parts.append(
                Part(
                    "gradient buckets",
                    "update",
                    GRADIENT * count,
                    f"4 x {trained}, of data parallel training",
                )
            )
        if launch.on_gpu:
            parts.append(
                Part("weights in bfloat16", "update", HALF * count, f"2 x {trained}, for the forward pass")
            )
    per_token = activation_bytes(shape, work.gradient_checkpointing, work.compiled)
    logits = (
        (FUSED_LOGIT_BYTES if work.fused_logits else CHUNK_LOGIT_BYTES)
        * shape.vocabulary
        * work.logit_vocabularies
    )
    parts += [
        Part(
            "activations",
            "update",
            work.update_tokens * per_token,
            f"{work.update_tokens:,} tokens x {per_token:,} bytes",
        ),
        Part(
            "logits of a chunk",
            "update",
            work.logit_tokens * logits,
            f"{work.logit_tokens:,} tokens x {logits:,} bytes",
        ),
    ]
    return parts
