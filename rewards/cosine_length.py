"""The reward of length by correctness: right answers are worth more the shorter they are, wrong ones cost
less the longer they are.
"""

from __future__ import annotations

import math

from r1rl.errors import RewardError


def cosine_length(
    completion_ids: list[list[int]],
    outcome: list[float | None],
    max_completion_length: int,
    *,
    correct: tuple[float, float] = (1.0, 0.5),
    wrong: tuple[float, float] = (-1.0, -0.5),
    max_length: int | None = None,
) -> list[float | None]:
    """Return the cosine-scaled length reward, in tokens.

    It is that of Yeo et al., "Demystifying Long Chain-of-Thought", arXiv 2502.03373, section 4.2. With L
    tokens, M = `max_length` (default: the limit of the rollout) and (first, last) = `correct` or `wrong`:

        r = last + (first - last) / 2 * (1 + cos(pi * min(L, M) / M))

    So `first` is paid at length 0 and `last` from M on. An answer is correct if the recipe's outcome reward
    is at least 1; a row without an outcome has no length reward.
    """
    limit = max_completion_length if max_length is None else max_length
    if limit < 1:
        raise RewardError(f"rewards: cosine_length: max_length must be at least 1 token, not {limit}.")
    for name, ends in (("correct", correct), ("wrong", wrong)):
        if len(ends) != 2:
            raise RewardError(
                f"rewards: cosine_length: {name} must be two numbers [at length 0, at the limit], not "
                f"{ends!r}."
            )
    return [
        None if result is None else _cosine(len(ids), limit, *(correct if result >= 1 else wrong))
        for ids, result in zip(completion_ids, outcome, strict=True)
    ]


def _cosine(length: int, limit: int, first: float, last: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * min(length, limit) / limit))
