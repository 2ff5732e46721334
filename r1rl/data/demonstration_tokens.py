"""The tokens of demonstrations: prompts as RL and evaluation render them, the text after them, and the token
that ends it.

Nothing is ever cut: a demonstration that is too long is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import GenerationConfig, PreTrainedTokenizerBase

from r1rl import models
from r1rl.config.schema import ModelConfig, PromptConfig
from r1rl.data.demonstrations import Demonstration
from r1rl.data.rows import BadRow, RowFault
from r1rl.text.prompts import CHAT, PromptTemplate, end_of_turn_id, ids_before_text, resolve_eos_token_ids
from r1rl.types import Problem, Prompt

CHUNK = 1024
"""The number of demonstrations that are tokenized in one call."""


@dataclass(slots=True)
class TokenizedDemonstrations:
    """The token ids of the demonstrations that can be used, and the rows that can't."""

    sequences: list[np.ndarray] = field(default_factory=list)
    prompt_lengths: list[int] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    """The demonstration that each of the sequences was made from."""
    bad: list[BadRow] = field(default_factory=list)


def trained_end(prompt: PromptConfig, model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that every demonstration ends with, always one of those that end a completion in RL
    and evaluation.

    It is the first of the recipe's `prompt.eos_token_ids`; with the chat template the token that ends a turn;
    else the EOS token of the tokenizer or, if that has none, of the model. Return None only if there is none
    at all and stop strings end the completions. Raise `RecipeError` if nothing could end one.
    """
    generation = None
    if tokenizer.eos_token_id is None:
        try:
            generation = GenerationConfig.from_pretrained(
                models.resolve(model.path), revision=model.revision or "main"
            )
        except OSError:
            generation = None
    ending = resolve_eos_token_ids(prompt, tokenizer, generation)
    if prompt.eos_token_ids:
        return prompt.eos_token_ids[0]
    turn = end_of_turn_id(tokenizer) if prompt.template == CHAT else None
    preferred = next((one for one in (turn, tokenizer.eos_token_id) if one is not None), None)
    return preferred if preferred is not None else next(iter(ending), None)


def tokenize(
    demonstrations: Sequence[Demonstration],
    prompt: PromptConfig,
    tokenizer: PreTrainedTokenizerBase,
    end: int | None,
    max_length: int,
) -> TokenizedDemonstrations:
    """Return the token ids of each demonstration: prompt, text, and the token `end`, unless the text ends
    with it already.

    The demonstrations are of one form: either all have a problem, or all have their prompt.
    """
    has_problem = demonstrations[0].problem is not None
    template = PromptTemplate(prompt if has_problem else PromptConfig(template="none"), tokenizer)
    result = TokenizedDemonstrations()
    for start in range(0, len(demonstrations), CHUNK):
        chunk = demonstrations[start : start + CHUNK]
        prompts = template.render_batch(
            [Problem("", str(one.problem if has_problem else one.prompt), None) for one in chunk]
        )
        for demonstration, made, ids in zip(
            chunk, prompts, _completion_ids(chunk, prompts, tokenizer), strict=True
        ):
            if isinstance(ids, BadRow):
                result.bad.append(ids)
                continue
            if end is not None and ids[-1:] != [end]:
                ids = [*ids, end]
            length = len(made.token_ids) + len(ids)
            if length > max_length:
                result.bad.append(
                    BadRow(
                        demonstration.place,
                        RowFault.TOO_LONG,
                        f"{length} tokens, more than max_length ({max_length})",
                    )
                )
                continue
            result.sequences.append(np.array([*made.token_ids, *ids], dtype=np.int32))
            result.prompt_lengths.append(len(made.token_ids))
            result.demonstrations.append(demonstration)
    return result


def _completion_ids(
    demonstrations: Sequence[Demonstration], prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase
) -> Iterator[list[int] | BadRow]:
    """Yield the tokens after each prompt.

    Prompt and text are tokenized together if the result begins with the prompt's tokens. If a token would
    form across the border, the text is tokenized by itself: the policy always gets the whole prompt and
    continues from there.
    """
    texts = [one.text.removeprefix(made.prefill) for one, made in zip(demonstrations, prompts, strict=True)]
    together = tokenizer(
        [made.text + text for made, text in zip(prompts, texts, strict=True)], add_special_tokens=False
    )["input_ids"]
    first_ids = ids_before_text(tokenizer)
    for one, made, text, whole in zip(demonstrations, prompts, texts, together, strict=True):
        if not one.text.startswith(made.prefill):
            detail = f"the text begins with {one.text[:20]!r}, not with prompt.prefill ({made.prefill!r})"
            yield BadRow(one.place, RowFault.OTHER_PREFILL, detail)
        elif not text.strip():
            yield BadRow(one.place, RowFault.MISSING_VALUE, "nothing follows the prefill")
        else:
            # As in a rendered prompt, the tokenizer's BOS token stands before the text.
            length = len(made.token_ids)
            found = next(
                (ids[length:] for ids in (whole, first_ids + whole) if ids[:length] == made.token_ids), None
            )
            yield tokenizer(text, add_special_tokens=False)["input_ids"] if found is None else found
