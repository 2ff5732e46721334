"""Completions from a file, such as `r1rl generate` and `r1rl select` write: which rows can be used, and their tokens.

A row has a problem and a completion; of the rest two columns matter. `prefill` is what the completion's writer was given as its first
words, after the template; a row without it gets the recipe's. `finish_reason` says how the completion ended: after "length" and "stop"
nothing is known of how it would go on; after anything else, and where it is missing, the EOS token follows and is learnt too.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from r1rl.config.schema import DataConfig, PromptConfig
from r1rl.distill.vocabulary import known_part
from r1rl.errors import DataError
from r1rl.preflight import read_section
from r1rl.prompts import PromptTemplate
from r1rl.sampling import Sampling
from r1rl.types import FinishReason, Problem, Prompt

SHOWN_BAD_ROWS = 3
"""Bad rows that a message quotes."""


@dataclass(frozen=True, slots=True)
class WrittenCompletion:
    """One usable row."""

    problem: Problem
    text: str
    prefill: str | None
    """None: the recipe's."""
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class LoadedCompletions:
    """The usable rows, and sentences about the others."""

    rows: list[WrittenCompletion]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PreparedCompletion:
    """A row as tokens."""

    prompt: Prompt
    completion_ids: Sequence[int]
    text: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class PreparedCompletions:
    """All rows as tokens, and how many were left out or cut."""

    rows: list[PreparedCompletion]
    dropped: int
    """Rows whose prompt is too long or has tokens that the teacher does not know, or that have nothing to learn."""
    cut: int
    """Rows that end before their completion does: it was too long, or went on with a token that the teacher does not know."""


def read_completions(data: DataConfig, seed: int) -> LoadedCompletions:
    """The rows of the recipe's `completions`. Raises DataError if the file can't be used or no row is left."""
    loaded = read_section(data, seed, "completions")
    columns = dict.fromkeys(name for problem in loaded.problems for name in problem.columns)
    if "completion" not in columns:
        raise DataError(
            f"completions: {data.source} has no column named completion. It has: problem, {', '.join(columns)}. "
            "Say which one it is, in completions: columns: {completion: ...}."
        )
    rows: list[WrittenCompletion] = []
    bad: list[str] = []
    for problem in loaded.problems:
        text, prefill = problem.columns.get("completion"), problem.columns.get("prefill")
        if not isinstance(text, str) or not isinstance(prefill, str | None):
            bad.append(f"{problem.place}: {'completion' if not isinstance(text, str) else 'prefill'} is no text")
        else:
            rows.append(WrittenCompletion(problem, text, prefill, _finish_reason(problem.columns.get("finish_reason"))))
    if not rows:
        raise DataError(f"completions: no row of {data.source} can be used; {bad[0]}.")
    warnings = list(loaded.warnings)
    if bad:
        more = f"; and {len(bad) - SHOWN_BAD_ROWS} more" if len(bad) > SHOWN_BAD_ROWS else ""
        warnings.append(f"{data.source}: {len(bad)} {'row' if len(bad) == 1 else 'rows'} skipped: {'; '.join(bad[:SHOWN_BAD_ROWS])}{more}.")
    return LoadedCompletions(rows, loaded.notes, warnings)


def _finish_reason(written: object) -> FinishReason:
    return next((reason for reason in (FinishReason.LENGTH, FinishReason.STOP) if reason == written), FinishReason.EOS)


def prepare_completions(
    rows: Sequence[WrittenCompletion],
    prompt: PromptConfig,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    shared: int,
    max_prompt_tokens: int | None,
) -> PreparedCompletions:
    """The rows as tokens, in their order. `shared` is the number of ids that the teacher knows too.

    Raises DataError if none is left.
    """
    prompts = _render(rows, prompt, tokenizer)
    texts = tokenizer([row.text for row in rows], add_special_tokens=False)["input_ids"]
    prepared: list[PreparedCompletion] = []
    cut = 0
    for row, rendered, ids in zip(rows, prompts, texts, strict=True):
        if not usable(rendered, shared, max_prompt_tokens):
            continue
        whole = [*ids, sampling.eos_token_ids[0]] if row.finish_reason is FinishReason.EOS and sampling.eos_token_ids else ids
        kept = known_part(whole[: sampling.max_completion_length], shared)
        if not kept:
            continue
        cut += len(kept) < len(whole)
        reason = row.finish_reason if len(kept) == len(whole) else FinishReason.LENGTH
        # An array takes 4 bytes a token, a list of Python's integers up to 36.
        prepared.append(PreparedCompletion(rendered, array("i", kept), row.text, reason))
    if not prepared:
        raise DataError(
            f"completions: none of the {len(rows)} rows can be used: prompts of more than completions.max_prompt_tokens, with tokens that "
            "the teacher does not know, or without a completion."
        )
    return PreparedCompletions(prepared, len(rows) - len(prepared), cut)


def usable(prompt: Prompt, shared: int, max_prompt_tokens: int | None) -> bool:
    """True if both models can read the prompt and it is not too long."""
    return max(prompt.token_ids) < shared and (max_prompt_tokens is None or len(prompt.token_ids) <= max_prompt_tokens)


def _render(rows: Sequence[WrittenCompletion], config: PromptConfig, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """The prompt of each row, with the prefill that its writer had."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[config.prefill if row.prefill is None else row.prefill].append(place)
    rendered: dict[int, Prompt] = {}
    for prefill, group in places.items():
        template = PromptTemplate(replace(config, prefill=prefill), tokenizer)
        rendered.update(zip(group, template.render_batch([rows[place].problem for place in group]), strict=True))
    return [rendered[place] for place in range(len(rows))]
