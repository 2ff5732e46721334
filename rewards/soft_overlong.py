"""The soft overlong punishment: completions that come close to the limit lose up to 1."""

from __future__ import annotations

from r1rl.errors import RewardError


def soft_overlong(
    completion_ids: list[list[int]],
    max_completion_length: int,
    *,
    cache: int | None = None,
    max_length: int | None = None,
) -> list[float | None]:
    """Return DAPO's length reward (arXiv 2503.14476, equation 13), in tokens.

    Let L be the tokens of the completion, M = `max_length` (default: the limit of the rollout) and C =
    `cache` (default: a fifth of M, as in the paper). The reward is 0 up to M - C, then (M - C - L) / C, and
    -1 beyond M.
    """
    limit = max_completion_length if max_length is None else max_length
    ramp = max(1, limit // 5) if cache is None else cache
    if not 0 < ramp <= limit:
        raise RewardError(
            f"rewards: soft_overlong: cache must lie between 1 and the limit of {limit} tokens, not {ramp}."
        )
    return [min(0.0, max(-1.0, (limit - ramp - len(ids)) / ramp)) for ids in completion_ids]
