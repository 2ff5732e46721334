"""A reward that knows nothing of the answer: the control beside a real one."""

from __future__ import annotations

import hashlib
from collections import Counter

from r1rl.errors import RewardError


def random_reward(
    completions: list[str], problem: list[str], *, probability: float = 0.5, seed: int = 0
) -> list[float | None]:
    """Return 1 with a fixed probability, else 0 ("Spurious rewards", arXiv 2506.10947).

    All that a run gains with this reward, it owes to other causes. The draw is a hash of the seed, the
    problem, the completion and the number of times that the batch had both before. So a resumed run repeats
    it, and completions with the same text are drawn one by one.
    """
    if not 0.0 <= probability <= 1.0:
        raise RewardError(f"rewards: random_reward: probability must lie between 0 and 1, not {probability}.")
    seen: Counter[tuple[str, str]] = Counter()
    rewards: list[float | None] = []
    for completion, asked in zip(completions, problem, strict=True):
        seen[asked, completion] += 1
        key = f"{seed}\0{asked}\0{completion}\0{seen[asked, completion]}".encode(errors="surrogatepass")
        draw = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) / 2**64
        rewards.append(float(draw < probability))
    return rewards
