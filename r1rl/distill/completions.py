"""Completions from a file, such as `r1rl generate` and `r1rl select` write, read as `r1rl sft` reads them.

The prompt is what the student gets in RL and evaluation; all that follows is learnt, the token that ends a
completion included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from r1rl.data.demonstration_tokens import tokenize, trained_end
from r1rl.data.demonstrations import Demonstration, LoadedDemonstrations
from r1rl.data.load import skipped_sentences
from r1rl.data.rows import BadRow, RowFault
from r1rl.distill.recipe import DistillRecipe
from r1rl.distill.vocabulary import known_part
from r1rl.errors import DataError


@dataclass(frozen=True, slots=True)
class PreparedCompletion:
    """A row as tokens."""

    demonstration: Demonstration
    prompt_ids: np.ndarray
    completion_ids: np.ndarray


@dataclass(frozen=True, slots=True)
class PreparedCompletions:
    """The rows that are used, and sentences about the others."""

    rows: Sequence[PreparedCompletion]
    messages: Sequence[str]


def prepare_completions(
    recipe: DistillRecipe, loaded: LoadedDemonstrations, tokenizer: PreTrainedTokenizerBase, shared: int
) -> PreparedCompletions:
    """Return the recipe's rows as tokens, in their order. `shared` is the number of ids that the teacher
    knows too.

    A row whose prompt has a token that the teacher does not know is left out; one whose completion has it is
    used up to there. Raises DataError if none is left.
    """
    assert recipe.completions is not None
    end = trained_end(recipe.prompt, recipe.model, tokenizer)
    tokenized = tokenize(loaded.demonstrations, recipe.prompt, tokenizer, end, recipe.completions.max_length)
    rows: list[PreparedCompletion] = []
    bad = [*loaded.bad, *tokenized.bad]
    cut = 0
    for ids, length, demonstration in zip(
        tokenized.sequences, tokenized.prompt_lengths, tokenized.demonstrations, strict=True
    ):
        prompt_ids, completion_ids = ids[:length], ids[length:]
        if int(prompt_ids.max()) >= shared:
            bad.append(
                BadRow(
                    demonstration.place,
                    RowFault.FOREIGN_TOKEN,
                    f"token id {int(prompt_ids.max())} in its prompt",
                )
            )
            continue
        known = known_part(completion_ids.tolist(), shared)
        cut += len(known) < len(completion_ids)
        rows.append(PreparedCompletion(demonstration, prompt_ids, completion_ids[: len(known)]))
    messages = [*loaded.notes, *skipped_sentences(loaded.name, bad)]
    if cut:
        messages.append(
            f"{loaded.name}: {cut} completions are used up to a token that only the student's tokenizer has."
        )
    if not rows:
        raise DataError(" ".join([f"completions: no row of {loaded.name} can be used.", *messages]))
    return PreparedCompletions(rows, messages)
