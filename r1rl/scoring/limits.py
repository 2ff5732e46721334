"""One sampling at the highest token limit tells the score at every lower one: the same completions, cut off
and graded again.

A completion is drawn token by token from its own seed, so its first L tokens are what a limit of L would have
given.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from r1rl.scoring.estimators import powers_of_two

SHORTEST_LIMIT = 32


def lower_limits(longest: int) -> list[int]:
    """Return the powers of two from 32 on that are below the limit: there the score is told besides the limit
    itself.
    """
    return [limit for limit in powers_of_two(longest) if SHORTEST_LIMIT <= limit < longest]


def find_cuts(
    token_ids: Sequence[int], text: str, tokenizer: PreTrainedTokenizerBase, longest: int
) -> tuple[tuple[int, int], ...]:
    """Return (tokens, characters) for each lower limit that would have cut the completion: how much of `text`
    its first tokens make.

    A character of which the limit leaves only some bytes does not count.
    """
    limits = [limit for limit in lower_limits(longest) if limit < len(token_ids)]
    beginnings = [
        str(tokenizer.decode(list(token_ids[:limit]), skip_special_tokens=True)) for limit in limits
    ]
    return tuple(
        (limit, _shared(beginning, text)) for limit, beginning in zip(limits, beginnings, strict=True)
    )


def _shared(one: str, other: str) -> int:
    """Return how many first characters two texts have in common."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
