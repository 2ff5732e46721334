"""The repetition penalty: the share of repeated token n-grams. It works on token ids, so in every
language.
"""

from __future__ import annotations

from r1rl.errors import RewardError


def repetition(
    completion_ids: list[list[int]], *, ngram: int = 3, max_penalty: float = -1.0
) -> list[float | None]:
    """Return (1 - distinct n-grams / n-grams) * `max_penalty`.

    It is that of Yeo et al., arXiv 2502.03373, section 4.3, as open-r1 and TRL compute it. The value is 0 for
    a completion of fewer than `ngram` tokens. `max_penalty` is at most 0.
    """
    if ngram < 1:
        raise RewardError(f"rewards: repetition: ngram must be at least 1, not {ngram}.")
    if max_penalty > 0:
        raise RewardError(
            f"rewards: repetition: max_penalty must not be positive, not {max_penalty}: it would reward "
            f"repetition."
        )
    return [_repeated_share(ids, ngram) * max_penalty for ids in completion_ids]


def _repeated_share(ids: list[int], ngram: int) -> float:
    total = len(ids) - ngram + 1
    if total < 1:
        return 0.0
    distinct = len(set(zip(*(ids[start:] for start in range(ngram)), strict=False)))
    return 1 - distinct / total
