"""The prompts of a recipe as its model's tokenizer sees them, and the check that they fit into the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1rl import models
from r1rl.config.awaited import AWAITED_MODEL
from r1rl.config.schema import ModelConfig, PromptConfig, SampledModelConfig
from r1rl.data import build_prompts
from r1rl.errors import UserError, first_line
from r1rl.models.loading import load_config, load_tokenizer
from r1rl.preflight.findings import Findings
from r1rl.sampling_jobs.loading import context_of, misfit
from r1rl.text.prompts import PromptTemplate
from r1rl.types import Problem, Prompt


class ModelUnavailable(Exception):
    """The error of a tokenizer that can't be loaded here, such as that of a hub model without a network."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The rendered prompts and the room that the model has for them."""

    prompts: list[Prompt]
    dropped: int
    """The number of prompts that are longer than the recipe allows."""
    context: int | None
    """The longest sequence that the model's configuration allows, in tokens."""


def render_prompts(
    model: ModelConfig | SampledModelConfig,
    prompt: PromptConfig,
    problems: Sequence[Problem],
    max_prompt_tokens: int | None,
) -> Prompts:
    """Return all prompts of the recipe. Raises ModelUnavailable without a tokenizer, and UserError for a
    template that can't work.
    """
    if model.path == AWAITED_MODEL:
        raise ModelUnavailable("model.path: the model is not there yet.")
    folder = models.resolve(model.path)
    try:
        tokenizer = load_tokenizer(folder, model.revision)
        config = load_config(folder, model.revision)
    except UserError as error:
        reason = first_line(error.__cause__ or error)
        raise ModelUnavailable(
            f"model.path: the tokenizer of {model.path} can't be loaded here ({reason})."
        ) from error
    prompts, dropped = build_prompts(problems, PromptTemplate(prompt, tokenizer), max_prompt_tokens)
    return Prompts(prompts, dropped, context_of(config))


def add_prompts(findings: Findings, rendered: Prompts, max_completion_length: int, length_key: str) -> None:
    """Add the lengths, an example, and a warning where prompt and completion do not fit into the model.
    `length_key` names the limit's key.
    """
    lengths = sorted(len(prompt.token_ids) for prompt in rendered.prompts)
    middle, long, longest = (lengths[round(share * (len(lengths) - 1))] for share in (0.5, 0.95, 1.0))
    dropped = f"; {rendered.dropped} over data.max_prompt_tokens are dropped" if rendered.dropped else ""
    findings.rows.append(
        ("prompts", f"{middle} tokens in the middle, {long} at 95 %, {longest} at most{dropped}")
    )
    findings.rows.append(
        ("", f"with {length_key} {max_completion_length}: {longest + max_completion_length} tokens at most")
    )
    findings.rows.append(("example", rendered.prompts[0].text))
    findings.prompt_tokens = longest
    fault = misfit(longest, max_completion_length, rendered.context)
    if fault is not None:
        findings.warnings.append(f"{fault}: lower {length_key} or data.max_prompt_tokens.")
