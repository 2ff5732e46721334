"""The cost of an update, counted: the operations of forward and backward, by which passes and processes are
balanced.

    operations = 6 P_decoder * positions + 6 P_head * completion tokens + 12 L D_query * pairs

A parameter costs a multiplication and an addition per token in the forward pass and twice that in the
backward pass (Kaplan et al., 2001.08361, section 2.1). A frozen one has no gradient of its own: 4 operations
in the place of 6. A pair is a query and a key that it sees; each costs 4 D_query operations per layer forward
(scores, and the mixture of values), D_query being heads times head size, and twice that backward. Activation
checkpointing is not counted: these are the operations that are useful. In a mixture of experts every expert
is counted, so there only the proportions mean something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class PassCosts:
    """Operations of forward and backward per unit of work."""

    position: float
    """A token in the decoder."""
    completion_token: float
    """A token whose logprob is computed, in the head."""
    pair: float
    """A query and a key that it sees, over all layers."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> PassCosts:
        """Count the costs of this model; call it before the parameters are sharded."""
        config = model.config.get_text_config()
        head: Tensor = cast(Any, model.get_output_embeddings()).weight
        embedding: Tensor = cast(Any, model.get_input_embeddings()).weight
        outside = {id(head), id(embedding)}
        decoder = sum(
            operations(parameter) for parameter in model.parameters() if id(parameter) not in outside
        )
        heads = getattr(config, "num_attention_heads", 0)  # state-space models have none
        size = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
        return cls(decoder, operations(head), 12.0 * config.num_hidden_layers * heads * size)

    def sequences(self, prompt_length: int, completion_lengths: Sequence[int]) -> float:
        """Return the operations of completions of one prompt, which is computed once.

        The last token of a completion predicts nothing and is not computed.
        """
        fed = [length - 1 for length in completion_lengths]
        pairs = prompt_length * (prompt_length + 1) / 2 + sum(
            count * prompt_length + count * (count + 1) / 2 for count in fed
        )
        return (
            self.position * (prompt_length + sum(fed))
            + self.completion_token * sum(completion_lengths)
            + self.pair * pairs
        )


def operations(parameter: Tensor) -> float:
    """Return the operations of a weight matrix per token.

    They are 2 forward, 2 backward for the input's gradient, and 2 for the matrix's own if it has one.
    """
    return (6.0 if parameter.requires_grad else 4.0) * parameter.numel()
