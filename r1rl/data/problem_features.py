"""The features by which two problem texts are compared: words without names, numbers, and pieces of formulae.

A text becomes tokens (numbers, words, LaTeX commands, signs), the same for rows and benchmarks. The features
come from these:

    words       in lower case without their endings; names of people are left out, since a paraphrase may
                change them
    numbers     by value; the second 5 of a text is another feature than the first
    formulae    three tokens of a formula in a row

A feature f that df of D texts have weighs ln((D + 1) / (df + 1)): a feature of every problem weighs next to
nothing.

Legend: D texts, N tokens of all texts together, V entries of the vocabulary, F distinct features.
"""

# ruff: noqa: RUF001 (typography is the matter of this file)

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1rl.data.near_duplicates import mix, word_hash

Hashes = NDArray[np.uint64]
Ids = NDArray[np.int64]

_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|quad|qquad|limits|mathrm|mathbf|mathbb|mathcal"
    r"|operatorname|text|textbf|mbox|[,;:! ])"
)
_TOKEN = re.compile(
    r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"  # 1,000 and 2.5
    r"|\\?[A-Za-zÀ-ɏ]+(?:['’][a-z]+)?"  # words and commands
    # other scripts; Chinese and Japanese by character
    r"|[\u0370-\u03ff\u0400-\u04ff]+|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    r"|-(?![A-Za-z]{2})|[+*/^=<>_|()\[\].!?%]"  # the hyphen of 3-day is no sign
)
_SENTENCE_ENDS = frozenset(".!?")
_SIGNS = frozenset("-+*/^=<>_|()[]%")
_VALUES = {
    "zero": "0", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14",
    "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20",
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80",
    "ninety": "90", "hundred": "100", "thousand": "1000", "dozen": "12",
}  # fmt: skip
"""The values of numbers that are written as words. The word "one" is a pronoun more often than a number."""
_SPELLINGS = {
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\le": "<", "\\leq": "<", "\\ge": ">", "\\geq": ">",
    "\\times": "*", "\\cdot": "*", "\\div": "/",
}  # fmt: skip
_ENDINGS = (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("ly", ""))
WORD, NUMBER, MATHS, END = range(4)
"""The classes of tokens: MATHS are single letters, commands and signs; END closes a sentence."""
NAME_SHARE = 0.3
"""The largest share of a name's occurrences within sentences that are written small; a word above it is no
name.
"""
ONE = np.uint64(word_hash(f"{NUMBER} 1"))
"""The feature of the number 1, which says nothing: it is in every other problem, and "one" is no number
here.
"""
FORMULA_TOKENS = 3
PHRASE_TOKENS = 4
PHRASE_PROBLEMS, PHRASE_SHARE = 8, 0.005
"""The number and the share of benchmark problems from which a phrase of PHRASE_TOKENS tokens identifies none
of them.
"""


@dataclass(frozen=True, slots=True)
class Features:
    """The features of D texts, text after text.

    `values[starts[d]:starts[d + 1]]` are the features of text d, distinct and in ascending order.
    """

    values: Hashes
    kinds: NDArray[np.int8]
    """The class of each value: WORD, NUMBER or MATHS (a piece of a formula)."""
    starts: Ids


def tokenize(text: str) -> list[str]:
    """Return the tokens of a text, as they are written."""
    return _TOKEN.findall(_DROPPED.sub(" ", unicodedata.normalize("NFKC", text)))


def stem(word: str) -> str:
    """Return a word in lower case without its ending; words of up to four letters stay."""
    plain = word.lower().partition("'")[0].partition("’")[0]
    for ending, instead in _ENDINGS:
        if plain.endswith(ending) and len(plain) - len(ending) >= 3:
            plain = plain.removesuffix(ending) + instead
            break
    return plain.removesuffix("e")


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """The properties of each written token [V]."""

    hashes_V: Hashes
    """Hashes that are equal for tokens that mean the same."""
    classes_V: NDArray[np.int8]
    capitalised_V: NDArray[np.bool_]
    small_V: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of D texts, text after text."""

    ids_N: Ids
    owner_N: Ids
    """The text of each token."""
    hashes_N: Hashes
    """Hashes that are equal for tokens that mean the same."""
    classes_N: NDArray[np.int8]
    starts: Ids
    vocabulary: _Vocabulary

    def has_numbers_of(self, text: int, other: int) -> bool:
        """Return whether the text has every number of the other one, at least as often."""
        needed = Counter(self._numbers(other).tolist())
        return not needed - Counter(self._numbers(text).tolist())

    def _numbers(self, text: int) -> Hashes:
        place = slice(self.starts[text], self.starts[text + 1])
        return self.hashes_N[place][self.classes_N[place] == NUMBER]


def read_tokens(texts: Sequence[str]) -> Tokens:
    """Return the tokens of each text."""
    ids_N, starts, written = _read(texts)
    vocabulary = _describe(written)
    owner_N = np.repeat(np.arange(len(texts)), np.diff(starts))
    return Tokens(ids_N, owner_N, vocabulary.hashes_V[ids_N], vocabulary.classes_V[ids_N], starts, vocabulary)


def extract_features(tokens: Tokens, num_benchmark: int) -> Features:
    """Return the features of each text, of which the first `num_benchmark` are the benchmarks'.

    Names are recognised by how all texts together write them, and standing phrases by the benchmarks alone: a
    phrase that the corpus has often may be just the contamination that is looked for.
    """
    owner_N, classes_N, hashes_N = tokens.owner_N, tokens.classes_N, tokens.hashes_N
    is_name_V = _names(tokens.ids_N, owner_N, classes_N, tokens.vocabulary)
    words = (
        (classes_N == WORD) & ~is_name_V[tokens.ids_N] & ~_standing_phrases(owner_N, hashes_N, num_benchmark)
    )
    numbers = (classes_N == NUMBER) & (hashes_N != ONE)
    parts = {
        WORD: (owner_N[words], hashes_N[words]),
        NUMBER: (owner_N[numbers], _numbered(owner_N[numbers], hashes_N[numbers])),
        MATHS: _formulae(owner_N, classes_N, hashes_N),
    }
    owners = np.concatenate([owner for owner, _ in parts.values()])
    values = np.concatenate([found for _, found in parts.values()])
    kinds = np.concatenate([np.full(len(owner), kind, np.int8) for kind, (owner, _) in parts.items()])
    return _sorted(owners, values, kinds, len(tokens.starts) - 1)


def shared_text(text: str, other: str, most: int = 200) -> str:
    """Return the words, numbers and signs that the text shares with the other, in its order.

    Gaps are marked, and the result ends after `most` characters.
    """
    known = {_classify(token) for token in tokenize(other)}
    parts: list[str] = []
    gap = False
    for token in tokenize(text):
        if _classify(token) in known:
            parts += ["...", token] if gap and parts else [token]
            gap = False
        else:
            gap = True
    joined = " ".join(parts)
    return joined if len(joined) <= most else joined[:most].rstrip() + " ..."


def _read(texts: Sequence[str]) -> tuple[Ids, Ids, list[str]]:
    """Return the token ids of all texts [N], the start of each text [D + 1], and the token of each id [V]."""
    known: dict[str, int] = {}
    pieces, starts = [], [0]
    for text in texts:
        pieces.append(
            np.array([known.setdefault(token, len(known)) for token in tokenize(text)], dtype=np.int64)
        )
        starts.append(starts[-1] + len(pieces[-1]))
    return np.concatenate([*pieces, np.zeros(0, dtype=np.int64)]), np.array(starts), list(known)


def _describe(written: Sequence[str]) -> _Vocabulary:
    hashes, classes, capitalised, small = [], [], [], []
    for token in written:
        kind, meaning = _classify(token)
        hashes.append(word_hash(f"{kind} {meaning}"))
        classes.append(kind)
        is_word = kind == WORD and len(token) > 1
        # TEPEE in a puzzle about words is no name.
        capitalised.append(is_word and token[0].isupper() and not token.isupper())
        small.append(is_word and token[0].islower())
    return _Vocabulary(
        np.array(hashes, np.uint64),
        np.array(classes, np.int8),
        np.array(capitalised, bool),
        np.array(small, bool),
    )


def _classify(token: str) -> tuple[int, str]:
    """Return the class of a token and its meaning."""
    if token[0].isdigit():
        value = token.replace(",", "")
        return NUMBER, (value.rstrip("0").rstrip(".") if "." in value else value).lstrip("0") or "0"
    if token in _SENTENCE_ENDS:
        return END, token
    if token in _SIGNS:
        return MATHS, token
    if token[0] == "\\":
        return MATHS, _SPELLINGS.get(token, token)
    if token.lower() in _VALUES:
        return NUMBER, _VALUES[token.lower()]
    return (MATHS, token) if len(token) == 1 and token.isascii() else (WORD, stem(token))


def _names(
    ids_N: Ids, owner_N: Ids, classes_N: NDArray[np.int8], vocabulary: _Vocabulary
) -> NDArray[np.bool_]:
    """Return a mask [V] of the tokens that are names: hardly ever written small, leaving out the beginnings
    of sentences.
    """
    begins_N = np.ones(len(ids_N), bool)
    begins_N[1:] = (owner_N[1:] != owner_N[:-1]) | (classes_N[:-1] == END)
    _, meaning_V = np.unique(vocabulary.hashes_V, return_inverse=True)
    count = meaning_V.max(initial=0) + 1
    small = np.bincount(meaning_V[ids_N], weights=vocabulary.small_V[ids_N], minlength=count)
    large = np.bincount(
        meaning_V[ids_N], weights=vocabulary.capitalised_V[ids_N] & ~begins_N, minlength=count
    )
    is_name = small <= NAME_SHARE * (small + large)
    seen_large = np.bincount(meaning_V, weights=vocabulary.capitalised_V, minlength=count) > 0
    return (is_name & seen_large)[meaning_V]


def _standing_phrases(owner_N: Ids, hashes_N: Hashes, num_benchmark: int) -> NDArray[np.bool_]:
    """Return a mask [N] of the tokens in phrases that many benchmark problems have.

    An example is "Express your answer as a common fraction".
    """
    covered_N = np.zeros(len(hashes_N), bool)
    count = len(hashes_N) - PHRASE_TOKENS + 1
    if count < 1:
        return covered_N
    inside, mixed = windows(owner_N, hashes_N, PHRASE_TOKENS)
    ours = inside & (owner_N[:count] < num_benchmark)
    pairs = np.unique(np.stack([mixed[ours], owner_N[:count][ours].astype(np.uint64)]), axis=1)
    phrases, problems = np.unique(pairs[0], return_counts=True)
    found = inside & np.isin(mixed, phrases[problems >= max(PHRASE_PROBLEMS, PHRASE_SHARE * num_benchmark)])
    for place in range(PHRASE_TOKENS):
        covered_N[place : place + count] |= found
    return covered_N


def windows(owner_N: Ids, hashes_N: Hashes, size: int) -> tuple[NDArray[np.bool_], Hashes]:
    """Return for every place the hash of `size` tokens from there on, and whether they are of one text [N -
    size + 1].
    """
    count = len(hashes_N) - size + 1
    mixed = np.zeros(count, np.uint64)
    for place in range(size):
        mixed = mix(mixed * np.uint64(0x9E3779B97F4A7C15) + hashes_N[place : place + count])
    return owner_N[:count] == owner_N[size - 1 :], mixed


def _numbered(owner: Ids, hashes: Hashes) -> Hashes:
    """Return the hashes of numbers, changed for the second and later occurrences in a text."""
    order = np.lexsort((hashes, owner))
    same = np.zeros(len(order), bool)
    same[1:] = (owner[order][1:] == owner[order][:-1]) & (hashes[order][1:] == hashes[order][:-1])
    place = np.arange(len(order))
    first = np.maximum.accumulate(np.where(same, 0, place)) if len(order) else place
    result = hashes.copy()
    result[order] = hashes[order] + (place - first).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return result


def _formulae(owner_N: Ids, classes_N: NDArray[np.int8], hashes_N: Hashes) -> tuple[Ids, Hashes]:
    """Return every FORMULA_TOKENS tokens of a formula in a row, at least one of them no number."""
    count = len(hashes_N) - FORMULA_TOKENS + 1
    if count < 1:
        return owner_N[:0], hashes_N[:0]
    is_maths_N = (classes_N == MATHS) | (classes_N == NUMBER)
    inside, mixed = windows(owner_N, hashes_N, FORMULA_TOKENS)
    has_sign = np.zeros(count, bool)
    for place in range(FORMULA_TOKENS):
        window = slice(place, place + count)
        inside &= is_maths_N[window]
        has_sign |= classes_N[window] == MATHS
    kept = inside & has_sign
    return owner_N[:count][kept], mixed[kept]


def _sorted(owner: Ids, values: Hashes, kinds: NDArray[np.int8], count: int) -> Features:
    """Return each text's features in ascending order and once, text by text."""
    order = np.lexsort((values, owner))
    owner, values, kinds = owner[order], values[order], kinds[order]
    fresh = np.ones(len(values), bool)
    fresh[1:] = (owner[1:] != owner[:-1]) | (values[1:] != values[:-1])
    return Features(values[fresh], kinds[fresh], np.searchsorted(owner[fresh], np.arange(count + 1)))
