"""The share of a text that is written in one language, whatever formulae, code, numbers and names stand in
it.

The reward `language_consistency` and the metric `language/consistency` use it. DeepSeek-R1 (arXiv 2501.12948,
section 2.3.2) defines the reward as the proportion of target-language words in the chain of thought.

The method: formulae, code, tags and links are cut out. Letters of other scripts (Chinese, Cyrillic, ...)
decide for themselves. Words in Latin letters are labelled by the best path through the text. A frequent word,
a letter or an ending is evidence for the languages that have it. A change of the language costs as much as
two clear words, so that a loan word or a name does not count as one. LANGUAGES lists the languages.
"""

# ruff: noqa: RUF001 (other scripts and typography are the matter of this file)

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from r1rl.text.language_words import ENDINGS, LETTERS, WORDS

_SCRIPTS = {
    "ja": "\u3040-\u30ff\u31f0-\u31ff",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "ko": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "ru": "\u0400-\u04ff",
    "ar": "\u0600-\u06ff",
    "hi": "\u0900-\u097f",
    "th": "\u0e00-\u0e7f",
    "he": "\u0590-\u05ff",
    "el": "\u0370-\u03ff",
}
"""The languages that are recognised by their script alone (so Ukrainian counts as Russian and Persian as
Arabic).
"""
LANGUAGES = (*WORDS, *_SCRIPTS)
OTHER = "other"
"""The label of Latin script in none of the languages that are known here."""

_CHARACTERS_PER_WORD = {"zh": 1.6, "ja": 2.0, "th": 4.0}
"""The characters per word of scripts without spaces; the others are counted in words."""
_NOT_LANGUAGE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]{0,400}`"  # code
    r"|\$\$.{0,600}?\$\$|\$[^$\n]{1,400}\$|\\\[.{0,600}?\\\]|\\\(.{0,400}?\\\)"  # formulae
    r"|\\begin\{(\w{1,20}\*?)\}.{0,600}?\\end\{\1\}"
    # LaTeX commands, links, tags
    r"|\\[A-Za-z]+(?:\s{0,4}\{[^{}]*\})*|https?://\S+|\b[\w.]{1,64}@\S+|</?[A-Za-z][^<>\n]{0,40}>"
    # identifiers joined by operators: distance = speed * time
    r"|(?<!\w)[^\W\d]+(?:\s{0,4}[=+*/^<>≤≥×÷·≈≠]\s{0,4}\w+)+"
    r"|(?<!\w)\w*[\d_]\w*|\b\w\(",  # 3x, a_1, f(
    re.DOTALL,
)
"""Text that is cut out before words are counted.

Every repetition has a bound or a fixed start, so the time stays linear.
"""
_WORD = re.compile(r"[A-Za-zÀ-ɏ]+(?:['’][A-Za-zÀ-ɏ]+)*")
_SCRIPT_RUN = re.compile("|".join(f"(?P<{language}>[{letters}]+)" for language, letters in _SCRIPTS.items()))
_SYMBOL_WORDS = """
    sin cos tan cot sec csc arcsin arccos arctan log ln lg exp lim max min mod gcd lcm det rank dim deg sqrt
    frac cdot cm mm km kg mg ml kwh rad abs floor ceil sgn sup inf var cov pi phi psi theta alpha beta gamma
    delta epsilon lambda mu sigma omega xy xyz abc abcd pqr dx dy dt iff qed lhs rhs vs am pm usd eur true
    false null def print return int str
"""
_SYMBOLS = frozenset(_SYMBOL_WORDS.split())
"""Words of formulae, units and code, which belong to no language."""
_ONE_LETTER_WORDS = frozenset("aIàáéèyo")
_SWITCH = 2.5
_KNOWN, _FOREIGN, _LETTER, _ENDING = 2.0, -1.0, 1.0, 0.5
_MIN_KNOWN = 0.12
"""The least share of frequent words in a Latin-script text of at least _MIN_WORDS words.

A text with a smaller share of its language's frequent words is in another language.
"""
_MIN_WORDS = 8


def language_share(text: str, language: str) -> float | None:
    """Return the share (0 to 1) of the words of `text` that are in `language`, a code of LANGUAGES, or None
    if it has no words.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r} is not known here; known: {', '.join(LANGUAGES)}")
    counts = word_counts(text, expected=language)
    total = sum(counts.values())
    return counts[language] / total if total else None


def consistency(text: str) -> float | None:
    """Return the share of the language that most of the text is in, or None if it has no words."""
    counts = word_counts(text)
    total = sum(counts.values())
    return max(counts.values()) / total if total else None


def main_language(text: str) -> str | None:
    """Return the language that most of the text's words are in, or None if it has no words."""
    counts = word_counts(text)
    return counts.most_common(1)[0][0] if counts else None


def word_counts(text: str, expected: str = "en") -> Counter[str]:
    """Return the number of words per language. `expected` wins where nothing is evidence for any language."""
    cleaned = _NOT_LANGUAGE.sub(" ", text.replace("’", "'"))
    counts = _script_counts(cleaned)
    words = [word for word in _WORD.findall(cleaned) if not _is_symbol(word)]
    if counts and expected not in WORDS:
        # Names in a text of another script ("Python", "Vieta") are of no language.
        words = [word for word in words if not word[0].isupper() or _languages_of(word.lower())]
    counts.update(_latin_counts([word.lower() for word in words], expected))
    return +counts


def _script_counts(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    if text.isascii():
        return counts
    for run in _SCRIPT_RUN.finditer(text):
        language = str(run.lastgroup)
        if language == "el" and len(run[0]) < 3:
            continue  # Greek letters of a formula
        counts[language] += len(run[0]) / _CHARACTERS_PER_WORD.get(language, len(run[0]))  # type: ignore[assignment]
    if counts["ja"] * 4 > counts["zh"]:  # Japanese is written with Chinese characters too
        counts["ja"] += counts.pop("zh", 0)
    return counts


@lru_cache(maxsize=65536)
def _is_symbol(word: str) -> bool:
    if len(word) == 1:
        return word not in _ONE_LETTER_WORDS
    inner_capital = any(letter.isupper() for letter in word[1:]) and not word.isupper()
    return word.lower() in _SYMBOLS or inner_capital or (word.isupper() and len(word) <= 4)


@lru_cache(maxsize=65536)
def _languages_of(word: str) -> tuple[str, ...]:
    """Return the languages that have the word among their frequent words."""
    return tuple(language for language, words in WORDS.items() if word in words)


@lru_cache(maxsize=65536)
def _evidence(word: str) -> dict[str, float]:
    """Return the evidence of a word for (or, if negative, against) each Latin-script language."""
    having = _languages_of(word)
    if not having and "'" in word:
        having = _languages_of(word.partition("'")[0] + "'") or _languages_of(word.rpartition("'")[2])
    if having:
        return {language: _KNOWN if language in having else _FOREIGN for language in WORDS}
    scores = {}
    accents = {letter for letter in word if letter > "z"}
    for language in WORDS:
        letters = (_LETTER if accents <= set(LETTERS[language]) else -_LETTER) if accents else 0.0
        scores[language] = letters + _ENDING * word.endswith(ENDINGS[language])
    return scores


def _latin_counts(words: list[str], expected: str) -> Counter[str]:
    """Count the words per language by the likeliest path (Viterbi).

    The path goes through the languages that have words of their own in the text.
    """
    if not words:
        return Counter()
    fallback = expected if expected in WORDS else "en"
    known = Counter(
        language for word in words if word not in WORDS[fallback] for language in _languages_of(word)
    )
    candidates = [language for language in WORDS if language == fallback or known[language] >= 2]
    return _without_strangers(words, _best_path(words, candidates, fallback))


def _best_path(words: list[str], candidates: list[str], fallback: str) -> list[str]:
    """Return the language of each word."""
    if len(candidates) == 1:
        return candidates * len(words)
    best = dict.fromkeys(candidates, 0.0)
    came_from: list[dict[str, str]] = []
    for word in words:
        evidence = _evidence(word)
        leader = max(candidates, key=best.__getitem__)
        switched = best[leader] - _SWITCH
        arrivals, scores = {}, {}
        for language in candidates:
            stay = best[language] >= switched
            arrivals[language] = language if stay else leader
            scores[language] = (best[language] if stay else switched) + evidence[language]
        came_from.append(arrivals)
        best = scores
    language = max(candidates, key=lambda name: (best[name], name == fallback))
    path = []
    for arrivals in reversed(came_from):
        path.append(language)
        language = arrivals[language]
    return path[::-1]


def _without_strangers(words: list[str], path: list[str]) -> Counter[str]:
    """Count the words per language, where a language that hardly any of its words belong to counts as some
    other one.
    """
    labels = Counter(path)
    familiar = Counter(
        language for word, language in zip(words, path, strict=True) if word in WORDS[language]
    )
    for language in list(labels):
        if labels[language] >= _MIN_WORDS and familiar[language] < _MIN_KNOWN * labels[language]:
            labels[OTHER] += labels.pop(language)
    return labels
