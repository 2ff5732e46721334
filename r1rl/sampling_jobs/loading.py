"""From a target to its configuration, tokenizer and model; and whether its prompts and completions fit into
the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from r1rl.config.schema import PromptConfig
from r1rl.data.benchmarks import LoadedBenchmark
from r1rl.errors import HubUnreachable, UserError
from r1rl.models.adapters import merge_adapter
from r1rl.sampling_jobs.targets import Target
from r1rl.text.prompts import PromptTemplate


def load_config(target: Target) -> PretrainedConfig:
    """The model's configuration. Raises UserError if transformers finds no model there."""
    try:
        return AutoConfig.from_pretrained(target.path, revision=target.revision)
    except (OSError, ValueError) as error:
        raise _not_loadable(target, error) from error


def load_tokenizer(target: Target) -> PreTrainedTokenizerBase:
    """The model's tokenizer, or the one that was saved with an adapter. Raises UserError if it can't be
    loaded.
    """
    adapter = target.adapter
    path, revision = (
        (adapter.path, adapter.revision)
        if adapter is not None and adapter.has_tokenizer
        else (target.path, target.revision)
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise _not_loadable(target, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(target: Target, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype) -> PreTrainedModel:
    """The model on the CPU, an adapter merged into it. Raises UserError if it can't be loaded or does not fit
    the tokenizer.

    An adapter is added in float32 and the sum is rounded to `dtype` once.
    """
    adapter = target.adapter
    model: PreTrainedModel
    try:
        model = AutoModelForCausalLM.from_pretrained(
            target.path, revision=target.revision, dtype=dtype if adapter is None else torch.float32
        )
    except (OSError, ValueError) as error:
        raise _not_loadable(target, error) from error
    if adapter is not None:
        embeddings = model.config.get_text_config().vocab_size
        if len(tokenizer) > embeddings:
            raise UserError(
                f"models: {target.label}: the adapter's tokenizer has {len(tokenizer)} tokens, but "
                f"{target.path} {embeddings} embeddings. "
                "An adapter that adds tokens must be merged by the program that trained it."
            )
        model = merge_adapter(model, adapter)
        for parameter in (
            model.parameters()
        ):  # parameters only: the frequencies of rotary embeddings are buffers and stay float32
            parameter.data = parameter.data.to(dtype)
    return model.eval().requires_grad_(False)


def context_of(config: PretrainedConfig) -> int | None:
    """The longest sequence that a model's configuration allows, in tokens; None if it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def misfit(prompt: int, max_completion_length: int, context: int | None) -> str | None:
    """Why a prompt and its completion (in tokens) are more than the model can hold; None if they are not.

    What a model writes beyond its context is nonsense that would count as wrong.
    """
    needed = prompt + max_completion_length
    if context is None or needed <= context:
        return None
    return (
        f"the longest prompt has {prompt} tokens and the completion may have {max_completion_length}, "
        f"together {needed}, but the model's "
        f"configuration allows {context}"
    )


def check_fit(target: Target, prompt: PromptConfig, benchmarks: Sequence[LoadedBenchmark]) -> str:
    """How long the prompts and completions of the benchmarks may get, and what the model holds, as a
    sentence. Loads no weights.

    Raises UserError if they do not fit, for all benchmarks at once, or if transformers finds no model there.
    """
    context, tokenizer = context_of(load_config(target)), load_tokenizer(target)
    template, bare = (
        PromptTemplate(prompt, tokenizer),
        PromptTemplate(PromptConfig(template="none"), tokenizer),
    )
    longest, faults = {}, []
    for benchmark in benchmarks:
        prompts = (bare if benchmark.is_probe else template).render_batch(benchmark.problems)
        longest[benchmark.name] = max(len(one.token_ids) for one in prompts)
        fault = misfit(longest[benchmark.name], benchmark.config.max_completion_length, context)
        faults += [] if fault is None else [f"  {benchmark.name}: {fault}"]
    if faults and context is not None:
        room = context - max(longest.values())
        remedy = (
            f"max_completion_length={room} fits all of them." if room > 0 else "Leave out what does not fit."
        )
        raise UserError(
            "\n".join([f"models: {target.label} can't hold the prompts and completions:", *faults, remedy])
        )
    widest = max(benchmarks, key=lambda one: longest[one.name] + one.config.max_completion_length)
    lengths = f"up to {longest[widest.name]} tokens of prompt and {widest.config.max_completion_length} of completion ({widest.name})"
    return f"{target.label}: {lengths}; {'the model names no limit' if context is None else f'the model holds {context}'}"


def _not_loadable(target: Target, error: Exception) -> UserError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    where = (
        target.path
        if Path(target.path).is_dir()
        else f"{target.path}, which is no folder here, so it was looked for on the hub"
    )
    kind = UserError if Path(target.path).is_dir() else HubUnreachable
    return kind(f"models: {target.label} can't be loaded from {where}: {lines[0]}")
