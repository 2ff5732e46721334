"""The end of a completion: EOS tokens and stop strings.

Legend: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from r1rl.objective.sampling import Sampling
from r1rl.types import FinishReason

REPLACEMENT = "\ufffd"  # what a tokenizer decodes incomplete UTF-8 to


class StoppingRules:
    """The `Stopping` of each set of rules. Remembered, since looking through a large vocabulary takes a
    second or two.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self._made: dict[tuple[tuple[int, ...], tuple[str, ...]], Stopping] = {}

    def of(self, sampling: Sampling) -> Stopping:
        """Return the rule for the EOS tokens and stop strings of `sampling`."""
        key = sampling.eos_token_ids, sampling.stop
        if key not in self._made:
            self._made[key] = Stopping(*key, self.tokenizer, self.vocabulary)
        return self._made[key]


class Stopping:
    """A rule that finds the end of completions.

    It is cheap on the device for most tokens, and exact on the host for the few that may end one.
    """

    def __init__(
        self,
        eos_token_ids: Sequence[int],
        stop: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: int,
    ) -> None:
        self.eos_token_ids = frozenset(eos_token_ids)
        self.stop = tuple(stop)
        self.tokenizer = tokenizer
        self.window = 4 * max(map(len, self.stop), default=0) + 16
        """Tokens decoded to look for a stop string: a character takes at most 4, the rest is room for tokens
        without text.
        """
        texts = token_texts(tokenizer, vocabulary) if self.stop else []
        self.completing = frozenset(
            token for token, text in enumerate(texts) if may_complete(text, self.stop)
        )
        """Tokens that may hold the last character of a stop string."""
        self.may_end_V = torch.zeros(vocabulary, dtype=torch.bool)
        self.may_end_V[[token for token in self.eos_token_ids | self.completing if token < vocabulary]] = True

    def end(self, tokens: Sequence[int], start: int) -> tuple[int, FinishReason] | None:
        """Return the first end among `tokens[start:]`, as (number of tokens kept, reason), or None if there
        is none.

        The tokens before `start` hold no end. A stop string counts from the token that completes it, also if
        text follows it in the same token.
        """
        for index in range(start, len(tokens)):
            if tokens[index] in self.eos_token_ids:
                return index + 1, FinishReason.EOS
            if tokens[index] in self.completing and self._holds_stop(
                tokens[max(0, index + 1 - self.window) : index + 1]
            ):
                return index + 1, FinishReason.STOP
        return None

    def _holds_stop(self, tokens: Sequence[int]) -> bool:
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return any(stop in text for stop in self.stop)


def token_texts(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[str]:
    """Return the text that each token decodes to on its own; ids that the tokenizer doesn't know have no
    text.
    """
    known = min(vocabulary, len(tokenizer))
    return tokenizer.batch_decode([[token] for token in range(known)], skip_special_tokens=True)


def may_complete(text: str, stops: Sequence[str]) -> bool:
    """Return whether a token with this text may hold the last character of a stop string.

    The answer may be True without need: a lone token may have lost the space before it, or be a part of a
    character.
    """
    if REPLACEMENT in text:
        return True
    ends = [stop[cut:] for stop in stops for cut in range(len(stop))]
    return any(stop in text for stop in stops) or any(
        lone.startswith(end) for end in ends for lone in (text, " " + text)
    )
