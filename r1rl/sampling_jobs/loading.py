"""Configuration, tokenizer and model of a target, and the check that its prompts and completions fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from r1rl.config.schema import PromptConfig
from r1rl.data.benchmarks import LoadedBenchmark
from r1rl.errors import UserError
from r1rl.models.loading import load_config, load_model, load_tokenizer
from r1rl.policy.copies import frozen_copy
from r1rl.sampling_jobs.targets import Target
from r1rl.text.prompts import PromptTemplate
from r1rl.types import Problem, Prompt

KEY = "models"
"""The key that messages name."""


def load_target_config(target: Target) -> PretrainedConfig:
    """Load the configuration of a target's model. Raises UserError if transformers finds no model there."""
    if target.given is not None:
        return target.given.model.config
    return load_config(target.path, target.revision, KEY, target.label)


def load_target_tokenizer(target: Target) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a target's model, or the one that was saved with its adapter.

    Raises UserError if it can't be loaded.
    """
    if target.given is not None:
        given, name = target.given.tokenizer, target.given.model.name_or_path
        if given is None and not name:
            raise UserError(
                f"models: {target.label} was given as an object that no folder tells a tokenizer for: give "
                f"its tokenizer too."
            )
        return load_tokenizer(str(name) if given is None else given, None, KEY, target.label)
    adapter = target.adapter
    if adapter is not None and adapter.has_tokenizer:
        return load_tokenizer(adapter.path, adapter.revision, KEY, target.label)
    return load_tokenizer(target.path, target.revision, KEY, target.label)


def load_target_model(
    target: Target, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Load a target's model onto the device to sample from, an adapter merged into it.

    A model in memory is left as it is: one that lies on another device is copied. Raises UserError if the
    model can't be loaded, or does not fit the tokenizer that was saved with its adapter.
    """
    if target.given is not None:
        model = target.given.model
        return model if model.device == device else frozen_copy(model, dtype, device)
    if target.adapter is not None:
        embeddings = load_target_config(target).get_text_config().vocab_size
        if len(tokenizer) > embeddings:
            raise UserError(
                f"models: {target.label}: the adapter's tokenizer has {len(tokenizer)} tokens, but "
                f"{target.path} {embeddings} embeddings. "
                "An adapter that adds tokens must be merged by the program that trained it."
            )
    model = load_model(
        target.path, dtype, revision=target.revision, adapter=target.adapter, key=KEY, label=target.label
    )
    model.eval().requires_grad_(False)
    return torch.nn.Module.to(model, device)


def context_of(config: PretrainedConfig) -> int | None:
    """Return the longest sequence that a model's configuration allows, in tokens; None if it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def misfit(prompt: int, max_completion_length: int, context: int | None) -> str | None:
    """Return why a prompt and its completion (in tokens) are more than the model can hold; None if they fit.

    A model writes nonsense beyond its context, which would count as wrong.
    """
    needed = prompt + max_completion_length
    if context is None or needed <= context:
        return None
    return (
        f"the longest prompt has {prompt} tokens and the completion may have {max_completion_length}, "
        f"together {needed}, but the model's "
        f"configuration allows {context}"
    )


@dataclass(frozen=True, slots=True)
class RenderedTarget:
    """A target whose weights are not loaded yet: its tokenizer, and the prompts of every benchmark."""

    target: Target
    tokenizer: PreTrainedTokenizerBase
    context: int | None
    """The longest sequence that the model's configuration allows, in tokens; None where it does not say."""
    prompts: dict[str, list[Prompt]]
    """The prompts of a benchmark, by its name."""


def render_target(
    target: Target, prompt: PromptConfig, benchmarks: Sequence[LoadedBenchmark]
) -> RenderedTarget:
    """Load a target's configuration and tokenizer, and render the prompts of the benchmarks.

    Raises UserError if transformers finds no model there.
    """
    config, tokenizer = load_target_config(target), load_target_tokenizer(target)
    renderer = PromptRenderer(prompt, tokenizer)
    prompts = {one.name: renderer.render(one.problems, raw=one.is_probe) for one in benchmarks}
    return RenderedTarget(target, tokenizer, context_of(config), prompts)


class PromptRenderer:
    """The recipe's template, and the bare one of problems that are to be continued, for one tokenizer."""

    def __init__(self, prompt: PromptConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self._template = PromptTemplate(prompt, tokenizer)
        self._bare = PromptTemplate(PromptConfig(template="none"), tokenizer)

    def render(self, problems: Sequence[Problem], raw: bool = False) -> list[Prompt]:
        """Return the prompts of problems; `raw`: the problem's text and nothing else."""
        return (self._bare if raw else self._template).render_batch(problems)


def check_fit(rendered: RenderedTarget, benchmarks: Sequence[LoadedBenchmark]) -> str:
    """Return a sentence about the longest prompts and completions of the benchmarks and the model's limit.

    Raises UserError if they do not fit, for all benchmarks at once.
    """
    context, label = rendered.context, rendered.target.label
    longest = {
        one.name: max(len(prompt.token_ids) for prompt in rendered.prompts[one.name]) for one in benchmarks
    }
    faults = []
    for benchmark in benchmarks:
        fault = misfit(longest[benchmark.name], benchmark.config.max_completion_length, context)
        faults += [] if fault is None else [f"  {benchmark.name}: {fault}"]
    if faults and context is not None:
        room = context - max(longest.values())
        remedy = (
            f"max_completion_length={room} fits all of them." if room > 0 else "Leave out what does not fit."
        )
        raise UserError(
            "\n".join([f"models: {label} can't hold the prompts and completions:", *faults, remedy])
        )
    widest = max(benchmarks, key=lambda one: longest[one.name] + one.config.max_completion_length)
    lengths = (
        f"up to {longest[widest.name]} tokens of prompt and {widest.config.max_completion_length} of "
        f"completion ({widest.name})"
    )
    limit = "the model names no limit" if context is None else f"the model holds {context}"
    return f"{label}: {lengths}; {limit}"
