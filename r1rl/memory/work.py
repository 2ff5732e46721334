"""The quantities that a memory estimate starts from: a model's shape, a launch, and the work on one
process.
"""

from __future__ import annotations

from dataclasses import dataclass

GB = 10**9
CARD_BYTES = 80 * GB
"""Bytes of the card that `r1rl check` reckons with, whatever is in the machine: a recipe is often checked on
another one.
"""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a decoder that its memory depends on."""

    parameters: int
    largest_layer: int
    """Parameters of its largest layer."""
    outside_layers: int
    """Parameters of embeddings, final norm and head."""
    layers: int
    hidden: int
    intermediate: int
    queries: int
    """Width of all query heads together."""
    keys: int
    """Width of all key heads together; the values have the same."""
    vocabulary: int
    context: int | None
    norms_heads: bool = False
    """A flag, true if queries and keys have norms of their own, as in Qwen3."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """The sizes of LoRA adapters that their memory depends on."""

    parameters: int
    """Parameters of all matrices A and B."""
    adapted: int
    """Parameters of the matrices that have an adapter: the rollout has a copy of them, with the adapters
    merged.
    """


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes of a run and the cards that they have."""

    processes: int = 1
    sharded: bool = False
    """A flag, true under FSDP2, which shares out weights, gradients and moments."""
    on_gpu: bool = True
    card_bytes: int = CARD_BYTES

    @property
    def shards(self) -> int:
        """The number of parts that the training state is cut into."""
        return self.processes if self.sharded else 1


@dataclass(frozen=True, slots=True)
class Work:
    """The work that is done with the model on one process."""

    trains: bool = True
    rows: int = 0
    """Sequences that decode at once where there is room for all of them."""
    max_rows: int = 0
    """The recipe's own limit of rows; 0: none."""
    length: int = 0
    """Tokens of a decoding row, prompt and completion."""
    update_tokens: int = 0
    """Tokens of a micro-batch."""
    logit_tokens: int = 0
    """Tokens whose logits exist at the same time in the loss."""
    logit_vocabularies: int = 1
    """The number of vocabularies of logits at a time; two where a teacher's exist beside the student's."""
    gradient_checkpointing: bool = False
    compiled: bool = False
    """A flag, true if the policy's forward is compiled (`update.compile`)."""
    fused_logits: bool = False
    """A flag, true if a kernel makes the gradient from the logits (`r1rl.policy.logprob_kernel`)."""
    has_reference: bool = False
    overlaps: bool = False
    """A flag, true if the next rollout is sampled during the update (`rollout.one_step_off`), from a copy of
    the weights on a CPU, too.
    """
    teacher: ModelShape | None = None
    adapters: Adapters | None = None
    """The adapters that are trained in the place of the model's own weights."""
