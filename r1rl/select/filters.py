"""The filters of single completions.

Each filter is a function of one row that returns a reason to leave it out, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from r1rl.grading import Outcome
from r1rl.rewards.contract import RewardFunction
from r1rl.rewards.loader import load_reward
from r1rl.select.recipe import FilterConfig
from r1rl.select.rows import CompletionRow
from r1rl.text.language import consistency, language_share
from r1rl.text.tags import THINK_CLOSE, THINK_OPEN

RowFilter = Callable[[CompletionRow], str | None]

MAIN_LANGUAGE = "main"
_WORD = re.compile(r"\w+|[^\w\s]")
_PARAGRAPHS = re.compile(r"\n\s*\n")


def not_correct(row: CompletionRow) -> str | None:
    """Return the outcome of a graded row that is not right, under its own name."""
    return None if row.outcome in (None, Outcome.CORRECT) else row.outcome


def finished(config: FilterConfig) -> RowFilter | None:
    """Make the filter of completions that ended in a way that the recipe does not allow."""
    if not config.finish_reasons:
        return None
    allowed = set(config.finish_reasons)

    def check(row: CompletionRow) -> str | None:
        reason = row.values.get("finish_reason")
        return None if reason is None or reason in allowed else str(reason)

    return check


def length(config: FilterConfig) -> RowFilter | None:
    """Make the filter of completions outside the bounds of length."""
    if not config.min_tokens and config.max_tokens is None:
        return None

    def check(row: CompletionRow) -> str | None:
        if row.tokens is None:
            return None
        if row.tokens < config.min_tokens:
            return "too_short"
        return "too_long" if config.max_tokens is not None and row.tokens > config.max_tokens else None

    return check


def well_formed(config: FilterConfig) -> RowFilter | None:
    """Make the filter of completions without the structure that the recipe asks for."""
    if config.format == "any":
        return None
    is_whole = _ends_its_thoughts if config.format == "think" else _has_both_blocks
    return lambda row: None if is_whole(row) else "not_" + config.format


def _ends_its_thoughts(row: CompletionRow) -> bool:
    text = row.text
    if (
        text.count(THINK_CLOSE) != 1
        or text.count(THINK_OPEN) > 1
        or text.partition(THINK_OPEN)[0].strip() not in ("", text.strip())
    ):
        return False
    head, _, after = text.partition(THINK_CLOSE)
    return bool(head.replace(THINK_OPEN, "").strip()) and bool(after.strip())


def _has_both_blocks(row: CompletionRow) -> bool:
    return _format_reward()([row.completion], prefill=row.prefill) == [1.0]


@lru_cache(maxsize=1)
def _format_reward() -> RewardFunction:
    return load_reward("format", Path()).function


def layout(config: FilterConfig) -> RowFilter | None:
    """Make the filter of thoughts with code blocks or endless paragraphs.

    DeepSeek-R1 (arXiv 2501.12948, section 2.3.3) drops both.
    """
    if config.code_blocks and config.max_paragraph_words is None:
        return None

    def check(row: CompletionRow) -> str | None:
        if not config.code_blocks and "```" in row.thoughts:
            return "code_block"
        if config.max_paragraph_words is not None:
            longest = max(len(paragraph.split()) for paragraph in _PARAGRAPHS.split(row.thoughts))
            if longest > config.max_paragraph_words:
                return "long_paragraph"
        return None

    return check


def one_language(config: FilterConfig) -> RowFilter | None:
    """Make the filter of thoughts that are not in one language. Thoughts without words pass, as nothing can
    mix.
    """
    wanted = config.language
    if wanted is None:
        return None

    def check(row: CompletionRow) -> str | None:
        share = consistency(row.thoughts) if wanted == MAIN_LANGUAGE else language_share(row.thoughts, wanted)
        return None if share is None or share >= config.min_language else "mixed_language"

    return check


def not_repetitive(config: FilterConfig) -> RowFilter | None:
    """Make the filter of thoughts with many n-grams of words that have occurred before."""
    most = config.max_repetition
    if most is None:
        return None
    return lambda row: (
        "repetitive" if repeated_share(row.completion, config.repetition_ngram) > most else None
    )


def repeated_share(text: str, ngram: int) -> float:
    """Return 1 - distinct word n-grams / word n-grams; numbers and signs are words.

    The share is 0 for a text of fewer than `ngram` words.
    """
    words = _WORD.findall(text)
    total = len(words) - ngram + 1
    if total < 1:
        return 0.0
    return 1 - len(set(zip(*(words[start:] for start in range(ngram)), strict=False))) / total
