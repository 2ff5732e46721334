"""Who writes the completions: the rollout engine here, or a server (r1rl.evaluation.endpoint)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from r1rl.config.evaluate import EvaluateRecipe
from r1rl.config.schema import PromptConfig
from r1rl.errors import UserError
from r1rl.evaluation.limits import find_cuts
from r1rl.evaluation.sample_log import Sample
from r1rl.evaluation.targets import Target
from r1rl.prompts import PromptTemplate, resolve_eos_token_ids
from r1rl.rollout import RolloutEngine, build_engine
from r1rl.sampling import Sampling
from r1rl.types import Problem, Prompt


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to sample."""

    prompt: Prompt
    sample: int
    seed: int


class Sampler(Protocol):
    """Writes completions, each from its request's seed alone, in whatever order they finish."""

    def render(self, problems: Sequence[Problem], raw: bool = False) -> list[Prompt]:
        """The prompts of problems in the recipe's template; `raw`: the problem's text and nothing else."""
        ...

    def sample(self, requests: Sequence[Request], max_completion_length: int, raw: bool = False) -> Iterator[Sample]:
        """The completions, as they finish. `raw` leaves the recipe's stop strings out and decodes greedily."""
        ...

    def describe(self) -> dict[str, Any]:
        """What belongs in the manifest: engine, dtype, EOS ids."""
        ...


class EngineSampler:
    """The rollout engine on a model that is loaded here."""

    def __init__(
        self,
        engine: RolloutEngine,
        tokenizer: PreTrainedTokenizerBase,
        recipe: EvaluateRecipe,
        eos_token_ids: tuple[int, ...],
        dtype: torch.dtype,
        context: int | None,
    ) -> None:
        """`context`: the longest sequence that the model's configuration allows, in tokens."""
        self.engine = engine
        self.recipe = recipe
        self.eos_token_ids = eos_token_ids
        self.dtype = dtype
        self.context = context
        self._tokenizer = tokenizer
        self._template = PromptTemplate(recipe.prompt, tokenizer)
        self._bare = PromptTemplate(PromptConfig(template="none"), tokenizer)

    def render(self, problems: Sequence[Problem], raw: bool = False) -> list[Prompt]:
        """See `Sampler`."""
        return (self._bare if raw else self._template).render_batch(problems)

    def sample(self, requests: Sequence[Request], max_completion_length: int, raw: bool = False) -> Iterator[Sample]:
        """See `Sampler`. Every completion is a group of its own, so that any part of them can be sampled again.

        Raises UserError if the longest prompt and completion are more than the model can hold: what it wrote beyond would count as wrong.
        """
        prompts = [request.prompt.token_ids for request in requests]
        needed = max(len(prompt) for prompt in prompts) + max_completion_length
        if self.context is not None and needed > self.context:
            raise UserError(
                f"max_completion_length is {max_completion_length}: with the longest prompt that is {needed} tokens, but the model's "
                f"configuration allows {self.context}. Lower max_completion_length."
            )
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
                cuts=find_cuts(completion.token_ids, completion.text, self._tokenizer, max_completion_length),
            )

    def sampling(self, max_completion_length: int, raw: bool) -> Sampling:
        """The recipe's sampling parameters, or greedy decoding."""
        if raw:
            return Sampling(max_completion_length, temperature=0.0, eos_token_ids=self.eos_token_ids)
        drawn = self.recipe.sampling
        return Sampling(
            max_completion_length=max_completion_length,
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            top_k=drawn.top_k,
            min_p=drawn.min_p,
            repetition_penalty=drawn.repetition_penalty,
            eos_token_ids=self.eos_token_ids,
            stop=tuple(self.recipe.prompt.stop),
        )

    def describe(self) -> dict[str, Any]:
        """See `Sampler`."""
        return {"engine": self.engine.name, "dtype": str(self.dtype).removeprefix("torch."), "eos_token_ids": list(self.eos_token_ids)}


def check_loadable(target: Target) -> None:
    """Raises UserError if transformers finds no model there: said before the other models are evaluated."""
    if target.config.endpoint is None:
        try:
            AutoConfig.from_pretrained(target.path, revision=target.config.revision)
        except (OSError, ValueError) as error:
            raise _not_loadable(target, error) from error


def _not_loadable(target: Target, error: Exception) -> UserError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    where = target.path if Path(target.path).is_dir() else f"{target.path}, which is no folder here, so it was looked for on the hub"
    return UserError(f"models: {target.label} can't be loaded from {where}: {lines[0]}")


def load_engine_sampler(target: Target, recipe: EvaluateRecipe, device: torch.device) -> tuple[EngineSampler, str | None]:
    """The sampler of a model, and the hub commit that it was loaded from (None for a folder). Raises UserError if it can't be loaded."""
    wanted = target.config.dtype
    half = wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda")
    dtype = torch.bfloat16 if half else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(target.path, revision=target.config.revision)
        model = AutoModelForCausalLM.from_pretrained(target.path, revision=target.config.revision, dtype=dtype)
    except (OSError, ValueError) as error:
        raise _not_loadable(target, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.eval().requires_grad_(False)
    torch.nn.Module.to(model, device)
    engine = build_engine(recipe.engine, model, tokenizer, recipe.max_rows, dtype)
    eos = resolve_eos_token_ids(recipe.prompt, tokenizer, model.generation_config)
    sampler = EngineSampler(engine, tokenizer, recipe, eos, dtype, getattr(model.config, "max_position_embeddings", None))
    return sampler, getattr(model.config, "_commit_hash", None)
