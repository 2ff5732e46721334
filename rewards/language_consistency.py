"""The reward for reasoning in one language: the share of its words that are in the target language."""

from __future__ import annotations

from r1rl.errors import RewardError
from r1rl.text.language import LANGUAGES, language_share
from r1rl.text.tags import thoughts


def language_consistency(
    completions: list[str], language: str | list[str] = "en", prefill: str = "", *, thoughts_only: bool = True
) -> list[float | None]:
    """Return the proportion of target-language words in the thoughts, 0 to 1 (DeepSeek-R1, arXiv 2501.12948,
    section 2.3.2).

    `language` is a code such as en, zh, de, fr, es, it, pt (r1rl.text.language), the same for all rows (from
    the recipe) or a column of the data. Formulae, code, numbers and names don't count. `thoughts_only: false`
    looks at the answer too. The value is None if there are no words at all.
    """
    languages = [language] * len(completions) if isinstance(language, str) else language
    for code in {language} if isinstance(language, str) else set(languages):
        if code not in LANGUAGES:
            raise RewardError(
                f"rewards: language_consistency: language {code!r} is not one of {', '.join(LANGUAGES)}."
            )
    texts = [thoughts(prefill + text) if thoughts_only else prefill + text for text in completions]
    return [language_share(text, code) for text, code in zip(texts, languages, strict=True)]
