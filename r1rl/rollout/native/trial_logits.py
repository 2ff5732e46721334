"""Logits of a few tokens by the model's own forward, which all ways to decode are compared with.

The plain way is the model's own forward in the rollout's precision, and the reference is the same in float32
(`r1rl.compute.trials`). It takes the rollout's weights: the cost of their rounding is no error of a way.

Legend: R rows, S steps, K rows of one prompt, T tokens of a sequence, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.attention.rollout import ATTENTION_NAME
from r1rl.compute.sample_text import sample_tokens
from r1rl.compute.trials import Comparison, Outputs, Standard
from r1rl.rollout.native.cache import RowCache
from r1rl.rollout.native.forward import decode_step, prefill, start_rows
from r1rl.rollout.native.method import StepMethod
from r1rl.rollout.native.rows import Row
from r1rl.rollout.weights import RolloutWeights

STEPS = 12
"""Decode steps of a trial."""
SMALL, LARGE = (6, 64), (40, 256)
"""Rows, and columns of the cache. They differ in everything that varies between steps: what is compiled for
the second serves all sizes.
"""


@dataclass(frozen=True, slots=True)
class TrialInput:
    """Tokens for prefill and decode steps, the same for every way."""

    name: str
    prompts: list[list[int]]
    """Equal lengths are neighbours."""
    places: list[int]
    """The prompt of each row."""
    fed_SR: Tensor
    columns: int


class LogitTrial:
    """The logits of the model's own forward on a few inputs, that all ways to decode are compared with."""

    def __init__(
        self, weights: RolloutWeights, tokenizer: PreTrainedTokenizerBase | None, thorough: bool
    ) -> None:
        """Compute the standards. `thorough`: with more rows too, for ways that depend on their number."""
        self.weights = weights
        context = getattr(weights.model.config.get_text_config(), "max_position_embeddings", None)
        sizes = (SMALL, LARGE) if thorough else (SMALL,)
        inputs = [random_input(weights, size, context) for size in sizes]
        if texts := sample_tokens(tokenizer, weights.input_vocabulary, context):
            inputs.append(text_input(weights, texts))
        with weights.borrowed() as model:
            self.standards = [
                (given, Standard(partial(own_logits, model, given), weights.device, weights.dtype))
                for given in inputs
            ]

    def compare(self, method: StepMethod) -> list[Comparison]:
        """Return the errors of prefill and decode steps by this method, and those of the plain forward."""
        return [
            comparison
            for given, standard in self.standards
            for comparison in standard.compare(step_logits(self.weights, method, given))
        ]


def random_input(weights: RolloutWeights, size: tuple[int, int], context: int | None) -> TrialInput:
    """Return two prompts of random tokens, and random tokens to feed to `size` rows and columns.

    Together they stay within the model's `context`: beyond it, some rotary embeddings depend on the length of
    the whole sequence, so decode steps rightly differ from one forward.
    """
    count, columns = size
    prompts, rows, generator = trial_rows(weights)
    places = ([row.place for row in rows] * count)[:count]
    steps = STEPS if context is None else min(STEPS, max(1, context // 2))
    prompts = prompts if context is None else [prompt[: max(1, context - steps)] for prompt in prompts]
    fed_SR = torch.randint(weights.input_vocabulary, (steps, count), generator=generator)
    return TrialInput(f"random tokens in {count} rows", prompts, places, fed_SR.to(weights.device), columns)


def text_input(weights: RolloutWeights, texts: list[list[int]]) -> TrialInput:
    """Return the beginnings of texts as prompts, and what follows in each as the tokens to feed."""
    count, columns = SMALL
    cut = [(text, len(text) - STEPS - early) for text in texts for early in (0, STEPS // 2)]
    cut = sorted(cut, key=lambda pair: pair[1])[:count]
    fed_RS = torch.tensor([text[end : end + STEPS] for text, end in cut], device=weights.device)
    return TrialInput("text", [text[:end] for text, end in cut], [*range(len(cut))], fed_RS.T, columns)


def own_logits(model: PreTrainedModel, given: TrialInput, dtype: torch.dtype) -> Outputs:
    """Return the logits [(S + 1) R, V] after each prompt and each token fed, by the model's own forward.

    Nothing is cast to `dtype`: the model has it, or is run in `float32_arithmetic`.
    """
    logits: list[Tensor] = [torch.empty(0)] * len(given.places)
    for place, prompt in enumerate(given.prompts):
        rows = [row for row, its in enumerate(given.places) if its == place]
        fed_KS = given.fed_SR[:, rows].T
        ids_KT = torch.cat([torch.tensor([prompt] * len(rows), device=fed_KS.device), fed_KS], 1)
        logits_KTV = model(input_ids=ids_KT, use_cache=False).logits[:, len(prompt) - 1 :].float()
        for row, logits_TV in zip(rows, logits_KTV, strict=True):
            logits[row] = logits_TV
    return {f"logits of {given.name}": torch.stack(logits, 1).flatten(0, 1)}


def step_logits(weights: RolloutWeights, method: StepMethod, given: TrialInput) -> Outputs:
    """Return the logits [(S + 1) R, V] after each prompt and each token fed, by prefill and decode steps."""
    with weights.borrowed(ATTENTION_NAME) as model:
        prefilled = prefill(model, given.prompts)
        cache = RowCache(len(given.places) + 1, given.columns)
        cache.reserve(given.columns)
        start_rows(cache, prefilled, given.places)
        longest = max(map(len, given.prompts))
        positions_R = torch.tensor(
            [len(given.prompts[place]) for place in given.places], device=weights.device
        )
        logits = [prefilled.logits_PV[torch.tensor(given.places, device=weights.device)].float()]
        for step, fed_R in enumerate(given.fed_SR):
            width = longest + step + 1 if method.reads_whole_rows else cache.columns
            logits.append(decode_step(model, cache, fed_R, positions_R, width, method).float())
            positions_R = positions_R + 1
        return {f"logits of {given.name}": torch.stack(logits).flatten(0, 1)}


def trial_rows(weights: RolloutWeights) -> tuple[list[list[int]], list[Row], torch.Generator]:
    """Return two short prompts, three rows of each, and the generator that goes on from them."""
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(weights.input_vocabulary, (length,), generator=generator).tolist() for length in (5, 8)
    ]
    places = [(place, generation) for place in range(len(prompts)) for generation in range(3)]
    return (
        prompts,
        [Row(place, generation, len(prompts[place]), STEPS, place) for place, generation in places],
        generator,
    )
