"""Short sequences for a policy, forward and backward, by which its fast ways are judged.

Legend: B sequences, N completion tokens, D hidden size, K entries of the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.compute.sample_text import sample_tokens
from r1rl.compute.trials import Outputs, Standard
from r1rl.config.schema import UpdateConfig
from r1rl.policy.batching import MicroBatch, TrainBatch, build_train_batch, move_micro_batch
from r1rl.policy.costs import PassCosts
from r1rl.policy.logprobs import hidden_states
from r1rl.policy.packing import Layout, make_micro_batches
from r1rl.types import Completion, FinishReason

ENOUGH_NUMBERS = 2**16
"""Numbers of a gradient whose error is compared. With a few hundred, as the norms of a tiny model have, the
errors of two equally good ways differ by half by chance.
"""


class PolicyProbe:
    """Short sequences of random tokens, and of text where there is a tokenizer, for trials of a policy.

    The plain way is the padded forward under autocast. Its reference is the same without autocast: the
    policy's weights are float32 masters, or become float32 one operation at a time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        dtype: torch.dtype,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        """Prepare the sequences; nothing is computed yet."""
        self.model = model
        self.padded = Layout(packed=False, shares_prompts=False, costs=PassCosts.of(model))
        self.dtype = dtype
        self.batches = {"random tokens": random_batch(model)}
        embedding: Any = model.get_input_embeddings()
        if texts := sample_tokens(tokenizer, embedding.weight.shape[0], longest_input(model)):
            self.batches["text"] = text_batch(texts)

    @cached_property
    def standard(self) -> Standard:
        """The reference, and the plain way's errors."""
        with evaluating(self.model):
            return Standard(lambda dtype: self.outputs(self.padded, dtype), self.model.device, self.dtype)

    def outputs(self, layout: Layout, dtype: torch.dtype) -> Outputs:
        """Return hidden states [N, D] and a gradient [1, K] for each kind of tokens."""
        found: dict[str, Tensor] = {}
        for tokens, batch in self.batches.items():
            hidden_ND, gradient_1K = forward_and_backward(self.model, layout, batch, dtype)
            found |= {f"hidden states of {tokens}": hidden_ND, f"gradients of {tokens}": gradient_1K}
        return found


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Keep the model in eval mode in here, so that nothing is dropped out and no activation recomputed."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def longest_input(model: PreTrainedModel) -> int | None:
    """Return the number of positions that the model knows, or None."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def random_batch(model: PreTrainedModel) -> TrainBatch:
    """Return 19 tokens of 5 completions of 2 prompts, the same for every model of the same vocabulary."""
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> list[int]:
        # Not the padding token: its embedding may be zero, and a norm of zero multiplies gradients a
        # thousandfold in each layer.
        embedding: Any = model.get_input_embeddings()
        ids = torch.randint(embedding.weight.shape[0] - 1, (length,), generator=generator)
        padding = getattr(embedding, "padding_idx", None)
        return (ids if padding is None else ids + (ids >= padding)).tolist()

    prompts = [draw(length) for length in (3, 5)]
    return make_batch([(prompts[place // 3], draw(length)) for place, length in enumerate((4, 1, 6, 5, 3))])


def text_batch(texts: list[list[int]]) -> TrainBatch:
    """Return two completions of the first half of each text: the second half, and half of that."""
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts]
    return make_batch(
        [(prompt, rest[:count]) for prompt, rest in halves for count in (len(rest), len(rest) // 2)]
    )


def make_batch(sequences: list[tuple[list[int], list[int]]]) -> TrainBatch:
    """Return a batch of prompts and completions without advantages."""
    return build_train_batch(
        [prompt for prompt, _ in sequences],
        [Completion(ids, [], "", FinishReason.EOS) for _, ids in sequences],
        torch.zeros(len(sequences)),
    )


def forward_and_backward(
    model: PreTrainedModel, layout: Layout, batch: TrainBatch, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the hidden states [N, D] that predict the batch's tokens, and a gradient [1, K] from them.

    The gradient, in a random direction, is that of `probed_parameters`.
    """
    with torch.enable_grad():
        hidden_ND = states_of(model, layout, batch, dtype)
    generator = torch.Generator().manual_seed(1)
    directions_ND = torch.randn(hidden_ND.shape, generator=generator).to(hidden_ND.device)
    probed = probed_parameters(model)
    gradients = torch.autograd.grad((hidden_ND * directions_ND).sum(), probed, allow_unused=True)
    gradient_K = torch.cat([gradient.flatten().float() for gradient in gradients if gradient is not None])
    return hidden_ND.detach(), gradient_K[None]


def probed_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Return trained parameters with `ENOUGH_NUMBERS` numbers: those of one dimension, which lie in every
    layer, and as many of the smallest others as that takes.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen = [parameter for parameter in trained if parameter.ndim < 2]
    count = sum(parameter.numel() for parameter in chosen)
    for parameter in sorted((one for one in trained if one.ndim >= 2), key=torch.numel):
        if count >= ENOUGH_NUMBERS:
            break
        chosen.append(parameter)
        count += parameter.numel()
    return chosen


def states_of(model: PreTrainedModel, layout: Layout, batch: TrainBatch, dtype: torch.dtype) -> Tensor:
    """Return float32 hidden states [N, D] that predict the batch's tokens, in the order of these."""
    states, places = [], []
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype is not torch.float32):
        for micro_batch in make_micro_batches(batch, range(batch.num_sequences), layout, UpdateConfig()):
            states.append(predicting_states(model, move_micro_batch(micro_batch, model.device)))
            places.append(micro_batch.tokens_N)
    return torch.cat(states)[torch.cat(places).argsort().to(model.device)].float()


def predicting_states(model: PreTrainedModel, micro_batch: MicroBatch) -> Tensor:
    """Return the hidden states [N, D] that predict the micro-batch's completion tokens."""
    hidden_RTD = hidden_states(model, micro_batch.input_ids_RT, micro_batch.positions_RT, micro_batch.plan)
    return hidden_RTD.flatten(0, 1).index_select(0, micro_batch.predictors_N)
