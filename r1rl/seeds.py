"""Seeds derived from names and counters.

So no random stream has a hidden state that a resumed run would lack.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed for one purpose: a hash of the run's seed and of the parts that name the stream.

    Streams of different purposes or counters are independent, and a stream can be made again at any time from
    the same parts: `derive_seed(recipe.seed, "rollout", step, slot)`.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
