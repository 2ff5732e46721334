"""Pairs of answers as token ids, split into those that are trained and those that are held out, and how well
a model tells them apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from r1rl.compute.distributed import gather_shares, own_share
from r1rl.data.load import skipped_sentences
from r1rl.data.preferences import LoadedPreferences, Preference
from r1rl.data.rows import BadRow, RowFault
from r1rl.errors import DataError
from r1rl.reward_model.recipe import RewardModelRecipe
from r1rl.scoring.intervals import mean_estimate, rate_estimate
from r1rl.seeds import derive_seed
from r1rl.text.scored_text import scored_answer, scored_token_ids


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair as the model reads it."""

    problem: str
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of both texts."""
        return len(self.chosen_ids) + len(self.rejected_ids)


def tokenize_pair(
    pair: Preference, tokenizer: PreTrainedTokenizerBase, answer_only: bool, max_length: int
) -> TokenizedPair | BadRow:
    """Return the pair as the reward `reward_model` would read both answers, or why it can't be trained."""
    texts = []
    for name, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        part = scored_answer(answer, answer_only=answer_only)
        if not part:
            return BadRow(
                pair.place, RowFault.NO_ANSWER_FOUND, f"nothing follows the thoughts of the {name} answer"
            )
        texts.append(scored_token_ids(tokenizer, pair.problem, part))
    if texts[0] == texts[1]:
        return BadRow(
            pair.place, RowFault.SAME_ANSWERS, "what is scored of chosen and rejected is the same text"
        )
    longest = max(map(len, texts))
    if longest > max_length:
        return BadRow(pair.place, RowFault.TOO_LONG, f"{longest} tokens, more than max_length ({max_length})")
    return TokenizedPair(pair.problem, *texts)


def tokenize_pairs(
    loaded: LoadedPreferences, tokenizer: PreTrainedTokenizerBase, recipe: RewardModelRecipe
) -> tuple[list[TokenizedPair], list[str]]:
    """Return the pairs that can be used, and sentences about the rows that can't. Raises DataError if none is
    left.
    """
    pairs, bad = [], list(loaded.bad)
    for pair in loaded.pairs:
        found = tokenize_pair(pair, tokenizer, recipe.answer_only, recipe.max_length)
        if isinstance(found, BadRow):
            bad.append(found)
        else:
            pairs.append(found)
    sentences = skipped_sentences(loaded.name, bad)
    if not pairs:
        raise DataError(" ".join([f"{loaded.name}: no pair is left.", *sentences]))
    return pairs, sentences


def split(pairs: Sequence[TokenizedPair], share: float) -> tuple[list[TokenizedPair], list[TokenizedPair]]:
    """Return the pairs to train on and those held out: the problems that a hash of their text chooses, so
    that no problem is in both.

    Raises DataError if nothing is left to train on, or if a share was asked for and nothing is held out.
    """
    if share == 0.0:
        return list(pairs), []
    drawn = [derive_seed(0, "held-out pairs", pair.problem) / 2**63 < share for pair in pairs]
    trained = [pair for pair, out in zip(pairs, drawn, strict=True) if not out]
    held_out = [pair for pair, out in zip(pairs, drawn, strict=True) if out]
    if not trained or not held_out:
        raise DataError(
            f"evaluation.share is {share:g}, which splits the {len(pairs)} pairs into {len(trained)} to "
            f"train on and {len(held_out)} "
            "held out: change it, or name held-out pairs with evaluation.data."
        )
    return trained, held_out


def as_rows(pairs: Sequence[TokenizedPair]) -> datasets.Dataset:
    """Return the columns that TRL's RewardTrainer reads."""
    return datasets.Dataset.from_dict(
        {name: [getattr(pair, name) for pair in pairs] for name in ("chosen_ids", "rejected_ids")}
    )


def row_length(row: Any) -> int:
    """Return the tokens of a row."""
    return len(row["chosen_ids"]) + len(row["rejected_ids"])


@torch.no_grad()
def score_pairs(
    policy: nn.Module,
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    pairs: Sequence[TokenizedPair],
    micro_batch_size: int,
    accelerator: Accelerator,
    progress: Callable[[int, int], None],
) -> list[tuple[float, float]]:
    """Return the scores of the chosen and the rejected answer of each pair, in order. Every process makes the
    same number of forward passes.
    """
    share = own_share(accelerator, range(len(pairs)))
    order = sorted(share, key=lambda place: pairs[place].length)
    width = -(-len(pairs) // accelerator.num_processes)  # sharded models synchronise in every pass
    padded = order + [0] * (width - len(order))
    scores: dict[int, tuple[float, float]] = {}
    was_training = policy.training
    policy.eval()
    for start in range(0, width, micro_batch_size):
        places = padded[start : start + micro_batch_size]
        batch = collate(
            [
                {"chosen_ids": pairs[place].chosen_ids, "rejected_ids": pairs[place].rejected_ids}
                for place in places
            ]
        )
        logits = (
            policy(**{name: value.to(accelerator.device) for name, value in batch.items()}, use_cache=False)
            .logits[:, 0]
            .float()
            .cpu()
        )
        for place, chosen, rejected in zip(
            places, logits[: len(places)].tolist(), logits[len(places) :].tolist(), strict=True
        ):
            scores[place] = (chosen, rejected)
        progress(min(start + micro_batch_size, width), width)
    policy.train(was_training)
    return gather_shares(accelerator, [scores[place] for place in share])


def figures(pairs: Sequence[TokenizedPair], scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return JSON values: `accuracy`, the share of pairs whose chosen answer scores higher (a tie counts
    half), and the mean `margin`.

    Both have their 95 % interval over problems, since pairs of one problem are not independent.
    """
    right: dict[str, list[float]] = defaultdict(list)
    margins: dict[str, list[float]] = defaultdict(list)
    for pair, (chosen, rejected) in zip(pairs, scores, strict=True):
        right[pair.problem].append(1.0 if chosen > rejected else 0.5 if chosen == rejected else 0.0)
        margins[pair.problem].append(chosen - rejected)
    return {
        "num_pairs": len(pairs),
        "num_problems": len(right),
        "accuracy": rate_estimate([sum(values) / len(values) for values in right.values()]),
        "margin": mean_estimate([sum(values) / len(values) for values in margins.values()]),
    }
