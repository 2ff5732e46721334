"""The native rollout engine: any transformers decoder through its own forward, on the policy's weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.attention.rollout import ATTENTION_NAME
from r1rl.compute.graphs import Capture
from r1rl.config.engines import IN_PROCESS
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.allocation import Allocator
from r1rl.rollout.native.compiled import Backend
from r1rl.rollout.native.decoding import Decoding
from r1rl.rollout.native.trial import TAKEN, check_model, choose_method, join_projections
from r1rl.rollout.requests import GroupCollector, check_request
from r1rl.rollout.stopping import StoppingRules
from r1rl.rollout.weights import RolloutWeights
from r1rl.types import CompletionGroup


class NativeEngine:
    """The engine that runs any transformers decoder on the policy's own weights; see `RolloutEngine`."""

    name = "native"
    properties = IN_PROCESS

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_rows: int = 0,
        dtype: torch.dtype | None = None,
        reason: str = "",
        look_every: int = 0,
        own_copy: bool = False,
        capture: Capture | None = None,
        compiler: Backend | None = None,
    ) -> None:
        """Make the engine, and try which faster ways it may take; `trials` keeps the records.

        `look_every`: steps between two looks at the tokens; 0: 4 on a CPU, where looking is free, 32 on a
        GPU. `capture`: how decode steps are made replayable; None: as CUDA graphs on a GPU, elsewhere not at
        all. `compiler`: of the decoder layers in decode steps; None: they are not compiled. Raises
        UnsupportedModel if the model's logits are not those of its own forward.
        """
        self.weights = RolloutWeights(model, dtype, own_copy)
        self.tokenizer = tokenizer
        self.reason = reason
        self.look_every = look_every or (4 if self.weights.device.type == "cpu" else 32)
        self.stopping = StoppingRules(tokenizer, self.weights.output_vocabulary)
        on_gpu = self.weights.device.type == "cuda"
        logits, trial = check_model(self.weights, tokenizer, thorough=on_gpu or capture is not None)
        self.trials = [trial]
        if self.weights.is_copy and on_gpu:
            self.trials.append(join_projections(logits, model, split=compiler is not None))
        method, trials = choose_method(logits, capture, compiler)
        self.trials += trials
        self.reason += "".join(f"; {TAKEN[one.part]}" for one in trials if one.accepted and one.part in TAKEN)
        self.allocator = Allocator(self.weights.device, max_rows, method)
        self._addresses = self.weights.addresses()

    def refresh(self) -> None:
        """Copy the policy's weights into the rollout's precision, where that is another one."""
        self.weights.refresh()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        sampling: Sampling,
        seeds: Sequence[int],
        limits: Sequence[Sequence[int]] | None = None,
        refresh: bool = True,
    ) -> Iterator[CompletionGroup]:
        """Sample groups of completions, see `RolloutEngine.generate`.

        `limits` [P][G]: tokens of each completion, where the sampling's limit is too high.
        """
        check_request(prompts, num_generations, sampling, seeds, self.weights.input_vocabulary, limits)
        if limits is None:
            limits = [[sampling.max_completion_length] * num_generations] * len(prompts)
        stopping = self.stopping.of(sampling)
        groups = GroupCollector(self.tokenizer, len(prompts), num_generations)
        decoding = Decoding(
            prompts, limits, sampling, seeds, stopping, groups, self.allocator, self.look_every
        )
        return self._stream(decoding, groups, refresh)

    def _stream(self, decoding: Decoding, groups: GroupCollector, refresh: bool) -> Iterator[CompletionGroup]:
        if refresh:
            self.refresh()
        if self._addresses != (addresses := self.weights.addresses()):
            self._addresses = addresses
            decoding.allocator.forget()
        while decoding.is_running:
            # The model is borrowed only while it runs: the caller's code between two groups sees it
            # unchanged.
            with self.weights.borrowed(ATTENTION_NAME) as model:
                while decoding.is_running and not groups.complete:
                    decoding.advance(model)
            yield from groups.take()
        decoding.close()
        yield from groups.take()
