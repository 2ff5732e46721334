"""The reference engine: transformers' `generate`, driven so that it draws from the same random streams as the
native one.

Everything about the model (padding, positions, masks, cache) is transformers'; the law and the streams of the
sampling are r1rl's. In float32 both engines give the same completions, token for token.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from r1rl.compute.trials import Trial
from r1rl.config.engines import IN_PROCESS
from r1rl.objective.sampling import Sampling
from r1rl.rollout.requests import GroupCollector, check_request
from r1rl.rollout.sampler import sample, stream_key, uniforms
from r1rl.rollout.stopping import Stopping, StoppingRules
from r1rl.rollout.weights import RolloutWeights
from r1rl.types import CompletionGroup, FinishReason


class ReferenceEngine:
    """See `RolloutEngine`."""

    name = "transformers"
    properties = IN_PROCESS

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_rows: int = 0,
        dtype: torch.dtype | None = None,
        reason: str = "",
        own_copy: bool = False,
    ) -> None:
        self.weights = RolloutWeights(model, dtype, own_copy)
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.reason = reason
        self.trials: list[Trial] = []
        self.stopping = StoppingRules(tokenizer, self.weights.output_vocabulary)

    def refresh(self) -> None:
        """Copy the policy's weights into the rollout's precision, where that is another one."""
        self.weights.refresh()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        refresh: bool = True,
    ) -> Iterator[CompletionGroup]:
        """See `RolloutEngine.generate`. Groups come when the slowest completion of their `generate` call has
        ended.
        """
        check_request(prompts, num_generations, sampling, seeds, self.weights.input_vocabulary)
        return self._stream(prompts, num_generations, sampling, seeds, self.stopping.of(sampling), refresh)

    def _stream(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        sampling: Sampling,
        seeds: Sequence[int],
        stopping: Stopping,
        refresh: bool,
    ) -> Iterator[CompletionGroup]:
        if refresh:
            self.refresh()
        groups = GroupCollector(self.tokenizer, len(prompts), num_generations)
        rows = [
            (prompt, generation) for prompt in range(len(prompts)) for generation in range(num_generations)
        ]
        size = self.max_rows or max(1, len(rows))
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            keys = [stream_key(seeds[prompt], generation) for prompt, generation in chunk]
            groups.add(
                [
                    (prompt, generation, *ended)
                    for (prompt, generation), ended in zip(
                        chunk,
                        self._complete([prompts[prompt] for prompt, _ in chunk], keys, sampling, stopping),
                        strict=True,
                    )
                ]
            )
            yield from groups.take()

    def _complete(
        self, prompts: Sequence[Sequence[int]], keys: list[int], sampling: Sampling, stopping: Stopping
    ) -> list[tuple[list[int], list[float], FinishReason]]:
        """Call `generate` once: left-padded prompts, one row each."""
        device = self.weights.device
        width = max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        ids_BT = torch.tensor(
            [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)], device=device
        )
        mask_BT = torch.arange(width, device=device) >= torch.tensor(padding, device=device)[:, None]
        drawing = StreamSampling(sampling, torch.tensor(keys, device=device), mask_BT)
        with self.weights.borrowed() as borrowed:
            model: Any = borrowed
            own_defaults, model.generation_config = model.generation_config, GenerationConfig()
            try:
                ids_BT = model.generate(
                    ids_BT,
                    attention_mask=mask_BT.long(),
                    generation_config=GenerationConfig(
                        do_sample=False,
                        max_new_tokens=sampling.max_completion_length,
                        pad_token_id=0,
                        return_dict_in_generate=False,
                    ),
                    logits_processor=LogitsProcessorList([drawing]),
                    stopping_criteria=StoppingCriteriaList([StreamStopping(stopping, width)]),
                )
            finally:
                model.generation_config = own_defaults
        logprobs = torch.stack(drawing.logprobs, 1).tolist()
        completions = []
        for tokens, values in zip(ids_BT[:, width:].tolist(), logprobs, strict=True):
            count, reason = stopping.end(tokens, 0) or (len(tokens), FinishReason.LENGTH)
            completions.append((tokens[:count], values[:count], reason))
        return completions


class StreamSampling(LogitsProcessor):
    """A draw of each row's token from its own stream, which is left as the only one for greedy decoding."""

    def __init__(self, sampling: Sampling, keys_B: Tensor, prompt_mask_BT: Tensor) -> None:
        self.sampling = sampling
        self.keys_B = keys_B
        self.prompt_mask_BT = prompt_mask_BT
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Draw a token for each row from the model's logits `scores` [B, V]."""
        seen_BV = None
        if self.sampling.repetition_penalty != 1.0:
            width = self.prompt_mask_BT.shape[1]
            seen_BV = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, input_ids[:, width:], True)
            row_B, column_B = self.prompt_mask_BT.nonzero(as_tuple=True)
            seen_BV[row_B, input_ids[row_B, column_B]] = True
        step_B = torch.full_like(self.keys_B, len(self.logprobs))
        token_B, logprob_B = sample(scores, self.sampling, uniforms(self.keys_B, step_B, 1)[:, 0], seen_BV)
        self.logprobs.append(logprob_B)
        return torch.full_like(scores, -torch.inf).scatter_(1, token_B[:, None], 0.0)


class StreamStopping(StoppingCriteria):
    """Ends rows at EOS tokens and stop strings."""

    def __init__(self, stopping: Stopping, prompt_width: int) -> None:
        self.stopping = stopping
        self.prompt_width = prompt_width

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return a bool for each row: it ends with their newest token; transformers remembers it."""
        tokens = input_ids[:, self.prompt_width :].tolist()
        return torch.tensor(
            [self.stopping.end(row, len(row) - 1) is not None for row in tokens], device=input_ids.device
        )
