"""The way from demonstrations to the rows that `r1rl sft` trains on: token ids, and labels where the loss is
to look.

    | prompt, prefill | text ............ | EOS |
      label -100        label = token id

The prompt's tokens are those that RL and evaluation give to the policy; what follows is what the policy must
then write itself, the token that ends a completion included. Nothing is ever cut: a demonstration that is too
long is left out and counted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase
from trl import pack_dataset

from r1rl.data.demonstration_tokens import TokenizedDemonstrations, tokenize, trained_end
from r1rl.data.demonstrations import LoadedDemonstrations
from r1rl.data.load import skipped_sentences
from r1rl.errors import DataError
from r1rl.seeds import derive_seed
from r1rl.sft.recipe import SFTRecipe

IGNORED = -100
"""The label of a token that is not trained."""
CHUNK = 1024
"""Demonstrations in one arrow chunk."""


def make_rows(
    recipe: SFTRecipe, loaded: LoadedDemonstrations, tokenizer: PreTrainedTokenizerBase
) -> tuple[datasets.Dataset, list[str]]:
    """Return the rows (input_ids, labels, with packing seq_lengths), and sentences about what was left out.
    Raises DataError if none is left.
    """
    demonstrations = list(loaded.demonstrations)
    if recipe.packing and recipe.data.shuffle:  # a row holds demonstrations that stand near each other
        random.Random(derive_seed(recipe.seed, "packing")).shuffle(demonstrations)
    end = trained_end(recipe.prompt, recipe.model, tokenizer)
    tokenized = tokenize(demonstrations, recipe.prompt, tokenizer, end, recipe.max_length)
    sentences = [*loaded.notes, *skipped_sentences(loaded.name, [*loaded.bad, *tokenized.bad])]
    if not tokenized.sequences:
        raise DataError(" ".join([f"{loaded.name}: no demonstration is left.", *sentences]))
    rows = as_dataset(tokenized)
    if recipe.packing:
        datasets.disable_progress_bars()
        rows = pack_dataset(rows, recipe.max_length, "bfd")
    return rows, sentences


def as_dataset(tokenized: TokenizedDemonstrations) -> datasets.Dataset:
    """Return the columns input_ids and labels, as arrow chunks: a Python list of ids would take eight times
    their memory.
    """
    chunks: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for first in range(0, len(tokenized.sequences), CHUNK):
        sequences, lengths = (
            tokenized.sequences[first : first + CHUNK],
            tokenized.prompt_lengths[first : first + CHUNK],
        )
        labels = [ids.copy() for ids in sequences]
        for one, length in zip(labels, lengths, strict=True):
            one[:length] = IGNORED
        offsets = np.cumsum([0, *map(len, sequences)], dtype=np.int32)
        for name, arrays in (("input_ids", sequences), ("labels", labels)):
            chunks[name].append(pa.ListArray.from_arrays(offsets, np.concatenate(arrays)))
    return datasets.Dataset(pa.table({name: pa.chunked_array(parts) for name, parts in chunks.items()}))


def parts_of(row: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the demonstrations of a row, as ids of prompt and of the trained text."""
    start = 0
    for length in row.get("seq_lengths") or [len(row["input_ids"])]:
        ids, labels = row["input_ids"][start : start + length], row["labels"][start : start + length]
        trained = sum(label != IGNORED for label in labels)
        yield ids[: length - trained], ids[length - trained :]
        start += length
