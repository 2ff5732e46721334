"""The samplers that write completions: the rollout engine here, or a server (r1rl.sampling_jobs.endpoint)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from r1rl.config.schema import PromptConfig, SamplingConfig
from r1rl.errors import UserError
from r1rl.models.loading import resolve_dtype
from r1rl.objective.sampling import Sampling
from r1rl.rollout import EngineSetup, RolloutEngine, make_engine
from r1rl.sampling_jobs.loading import (
    PromptRenderer,
    context_of,
    load_target_model,
    load_target_tokenizer,
    misfit,
)
from r1rl.sampling_jobs.targets import Target
from r1rl.scoring.limits import find_cuts
from r1rl.text.prompts import resolve_eos_token_ids
from r1rl.types import Problem, Prompt, Sample


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to sample."""

    prompt: Prompt
    sample: int
    seed: int


class SamplingRecipe(Protocol):
    """The part of a recipe that a sampler reads, whichever command's it is."""

    prompt: PromptConfig
    sampling: SamplingConfig
    engine: str
    max_rows: int


class Sampler(Protocol):
    """A writer of completions, each from its request's seed alone, in whatever order they finish."""

    context: int | None
    """The longest sequence, in tokens, that is known to fit; None where it is not known."""

    def render(self, problems: Sequence[Problem], raw: bool = False) -> list[Prompt]:
        """Return the prompts of problems in the recipe's template; `raw`: the problem's text and nothing
        else.
        """
        ...

    def sample(
        self, requests: Sequence[Request], max_completion_length: int, raw: bool = False
    ) -> Iterator[Sample]:
        """Yield the completions, as they finish. `raw` leaves the recipe's stop strings out and decodes
        greedily.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return what belongs in the manifest: engine, dtype, EOS ids."""
        ...


class EngineSampler:
    """The rollout engine on a model that is loaded here."""

    def __init__(
        self,
        engine: RolloutEngine,
        tokenizer: PreTrainedTokenizerBase,
        recipe: SamplingRecipe,
        eos_token_ids: tuple[int, ...],
        dtype: torch.dtype,
        context: int | None,
    ) -> None:
        """Bind an engine to a recipe. `context` is the longest sequence that the model's configuration
        allows, in tokens.
        """
        self.engine = engine
        self.recipe = recipe
        self.eos_token_ids = eos_token_ids
        self.dtype = dtype
        self.context = context
        self.tokenizer = tokenizer
        self._renderer = PromptRenderer(recipe.prompt, tokenizer)

    def render(self, problems: Sequence[Problem], raw: bool = False) -> list[Prompt]:
        """See `Sampler`."""
        return self._renderer.render(problems, raw)

    def sample(
        self, requests: Sequence[Request], max_completion_length: int, raw: bool = False
    ) -> Iterator[Sample]:
        """See `Sampler`. Every completion is a group of its own, so that any part of them can be sampled
        again.

        Raises UserError if the longest prompt and completion are more than the model can hold: what it wrote
        beyond would count as wrong.
        """
        prompts = [request.prompt.token_ids for request in requests]
        fault = misfit(max(len(prompt) for prompt in prompts), max_completion_length, self.context)
        if fault is not None:
            raise UserError(f"max_completion_length: {fault}. Lower max_completion_length.")
        sampling = self.sampling(max_completion_length, raw)
        for group in self.engine.generate(prompts, 1, sampling, [request.seed for request in requests]):
            request, completion = requests[group.index], group.completions[0]
            yield Sample(
                problem=request.prompt.problem.id,
                sample=request.sample,
                seed=request.seed,
                text=completion.text,
                tokens=len(completion.token_ids),
                finish_reason=completion.finish_reason.value,
                cuts=find_cuts(completion.token_ids, completion.text, self.tokenizer, max_completion_length),
            )

    def sampling(self, max_completion_length: int, raw: bool) -> Sampling:
        """Return the recipe's sampling parameters, or greedy decoding."""
        if raw:
            return Sampling(max_completion_length, temperature=0.0, eos_token_ids=self.eos_token_ids)
        drawn = self.recipe.sampling
        return Sampling.of(
            drawn,
            max_completion_length,
            self.eos_token_ids,
            self.recipe.prompt.stop,
            drawn.repetition_penalty,
        )

    def describe(self) -> dict[str, Any]:
        """See `Sampler`."""
        return {
            "engine": self.engine.name,
            "dtype": str(self.dtype).removeprefix("torch."),
            "eos_token_ids": list(self.eos_token_ids),
        }


def load_engine_sampler(
    target: Target,
    recipe: SamplingRecipe,
    device: torch.device,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> tuple[EngineSampler, str | None]:
    """Load a model with the engine that samples from it, and return it with the hub commit that the model was
    loaded from (None for a folder).

    `tokenizer` is the target's, where it was loaded before. Raises UserError if something can't be loaded.
    """
    dtype = resolve_dtype(target.config.dtype, device)
    tokenizer = tokenizer or load_target_tokenizer(target)
    model = load_target_model(target, tokenizer, dtype, device)
    engine = make_engine(recipe.engine, EngineSetup(model, tokenizer, recipe.max_rows, dtype))
    eos = resolve_eos_token_ids(recipe.prompt, tokenizer, model.generation_config)
    sampler = EngineSampler(engine, tokenizer, recipe, eos, dtype, context_of(model.config))
    return sampler, getattr(model.config, "_commit_hash", None)
