"""The search for near-duplicate texts: MinHash with locality-sensitive hashing finds candidates, and their
shingles decide.

A text is the set of its word n-grams (shingles), hashed to 64 bits. The Jaccard similarity of two sets is the
share of their union that both have. A MinHash signature has, for each of NUM_HASHES hash functions, the
smallest hash of the set; two signatures agree at a place with a probability equal to the similarity s. With
`bands` bands of `rows` values, two texts become candidates if some band is equal, with probability 1 - (1 -
s^rows)^bands (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", 3.4). Every
candidate is compared by its exact similarity, so nothing is removed by a chance hit. The search is offline
and deterministic.

Legend: K shingles of a text, H hash functions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

NUM_HASHES = 128
RECALL = 0.99
"""The least probability of becoming a candidate at the threshold."""
_WORD = re.compile(r"\d+(?:\.\d+)?|\w+|[^\w\s]")
Hashes = NDArray[np.uint64]


def words_of(text: str) -> list[str]:
    """Return the words in lower case, the numbers and the single signs of a text."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=1 << 18)
def word_hash(word: str) -> int:
    """Return a hash of 64 bits that is the same in every process."""
    return int.from_bytes(
        blake2b(word.encode("utf-8", errors="backslashreplace"), digest_size=8).digest(), "little"
    )


def shingles_of(text: str, ngram: int) -> Hashes:
    """Return the distinct hashed word n-grams of a text in ascending order [K].

    The only shingle of a text with fewer words is all its words together.
    """
    hashes = np.array([word_hash(word) for word in words_of(text)], dtype=np.uint64)
    if not len(hashes):
        return hashes
    size = min(ngram, len(hashes))
    count = len(hashes) - size + 1
    mixed = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        mixed = mix(mixed * np.uint64(0x9E3779B97F4A7C15) + hashes[place : place + count])
    return np.unique(mixed)


def mix(values: Hashes) -> Hashes:
    """Apply a bijection of 64 bits that spreads every bit (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def jaccard(first: Hashes, second: Hashes) -> float:
    """Return the share of the union that both have, or 0 if both are empty."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - both
    return both / union if union else 0.0


class NearDuplicateIndex:
    """The texts that were kept so far; `find` tells which of them a new text resembles."""

    def __init__(self, threshold: float, ngram: int) -> None:
        self.threshold = threshold
        self.ngram = ngram
        self.rows = max(
            rows for rows in (1, 2, 4, 8, 16, 32) if rows == 1 or _recall(threshold, rows) >= RECALL
        )
        self._factors_H = mix(np.arange(1, NUM_HASHES + 1, dtype=np.uint64)) | np.uint64(1)
        self._buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
        self._texts: list[str] = []

    def find(self, text: str) -> int | None:
        """Return the first kept text that is at least as similar as the threshold, or None without one.

        The text is given by its number in the order of `add`.
        """
        shingles_K = shingles_of(text, self.ngram)
        candidates = {place for band in self._bands(shingles_K) for place in self._buckets.get(band, ())}
        for place in sorted(candidates):
            if jaccard(shingles_K, shingles_of(self._texts[place], self.ngram)) >= self.threshold:
                return place
        return None

    def add(self, text: str) -> None:
        """Keep a text."""
        for band in self._bands(shingles_of(text, self.ngram)):
            self._buckets[band].append(len(self._texts))
        self._texts.append(text)

    def _bands(self, shingles_K: Hashes) -> list[tuple[int, bytes]]:
        if not len(shingles_K):
            return []
        signature_H = np.min(mix(shingles_K[:, None] * self._factors_H[None, :]), axis=0)
        return [
            (start, signature_H[start : start + self.rows].tobytes())
            for start in range(0, NUM_HASHES, self.rows)
        ]


def _recall(similarity: float, rows: int) -> float:
    return 1 - (1 - similarity**rows) ** (NUM_HASHES // rows)


def near_duplicates(
    texts: Sequence[str], threshold: float, ngram: int, groups: Sequence[Hashable]
) -> list[int | None]:
    """Return, for each text, the earlier kept one of its group that it is a near duplicate of, or None if it
    is kept.
    """
    found: list[int | None] = [None] * len(texts)
    members: dict[Hashable, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    for places in members.values():
        index = NearDuplicateIndex(threshold, ngram)
        kept: list[int] = []
        for place in places if len(places) > 1 else ():
            earlier = index.find(texts[place])
            if earlier is None:
                index.add(texts[place])
                kept.append(place)
            else:
                found[place] = kept[earlier]
    return found
