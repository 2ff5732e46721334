"""Short natural text for trials: errors that random tokens show are not those that text shows."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

SAMPLE_TEXTS = (
    "A farmer plants 12 rows of 8 apple trees, and in spring 3 rows more. How many trees are in the orchard? "
    "At first there are 12 times 8, which is 96 trees. The 3 new rows hold 3 times 8, which is 24 trees. "
    "Together these are 96 + 24 = 120 trees. Let me check: 15 rows of 8 are 120. The answer is 120.",
    "Find the largest prime factor of 91. We try small primes one after the other: 91 is odd, so 2 does not "
    "divide it, its digits add up to 10, so 3 does not, and it ends neither in 0 nor in 5. But 7 x 13 is 91. "
    "Both factors are prime, and the larger one is 13. Therefore the answer is 13.",
    "In 1969 two people walked on the moon while a third stayed in orbit. They brought back stones and dust, "
    "which were shared among laboratories in many countries. Wait, that leaves a question: how old are the "
    "stones? Most of them are between three and four and a half billion years old.",
)
MOST_TOKENS = 64
FEWEST_TOKENS = 24


def sample_tokens(
    tokenizer: PreTrainedTokenizerBase | None, vocabulary: int, most: int | None = None
) -> list[list[int]]:
    """Return the beginnings of the sample texts as token ids below `vocabulary`, at most `most` tokens each.

    Texts of which fewer than 24 such tokens are left are dropped, so a tokenizer that knows no words, or
    none, gives an empty list.
    """
    if tokenizer is None:
        return []
    most = min(most or MOST_TOKENS, MOST_TOKENS)
    rows = [[token for token in tokenizer(text)["input_ids"] if token < vocabulary] for text in SAMPLE_TEXTS]
    return [row[:most] for row in rows if len(row[:most]) >= FEWEST_TOKENS]
