"""The language of mixed and single-language texts, against a labelled set whose second half was never used
for tuning.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from r1rl.text.language import LANGUAGES, OTHER, consistency, language_share, word_counts

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "language_cases.jsonl").read_text("utf-8").splitlines()
]
THRESHOLD = 0.8


def balanced_accuracy(cases):
    """Return the mean of the shares of consistent and of mixed texts that land on their side of the
    threshold.
    """
    right = {True: [], False: []}
    for case in cases:
        share = language_share(case["text"], case["language"])
        right[case["consistent"]].append(
            ((1.0 if share is None else share) >= THRESHOLD) == case["consistent"]
        )
    return sum(sum(verdicts) / len(verdicts) for verdicts in right.values()) / 2


def test_labelled_set_is_large_and_balanced():
    assert len(CASES) >= 200 and len({case["text"] for case in CASES}) == len(CASES)
    assert 0.4 < sum(case["consistent"] for case in CASES) / len(CASES) < 0.6


@pytest.mark.parametrize("half", ["tuning", "held_out"])
def test_mixed_texts_are_told_from_single_language_texts(half):
    assert balanced_accuracy([case for case in CASES if case["half"] == half]) >= 0.95


def test_every_language_is_known():
    assert {case["language"] for case in CASES} <= set(LANGUAGES)
    with pytest.raises(ValueError, match="language 'xx' is not known"):
        language_share("hello", "xx")


def test_share_counts_words():
    # "we have the number" (4 English words) against 8 Chinese characters = 8 / 1.6 = 5 words: 4 / 9
    assert language_share("we have the number 我们有一个数字吗", "en") == pytest.approx(4 / 9)


@pytest.mark.parametrize(
    "text",
    ["", "12 + 3 = 15", "$x^2 + y^2 = z^2$", "```python\nfor i in range(3): print(i)\n```", "\\frac{1}{2}"],
)
def test_formulae_code_and_numbers_are_no_language(text):
    assert language_share(text, "en") is None and consistency(text) is None


def test_consistency_finds_the_main_language_by_itself():
    assert consistency("Wir berechnen zuerst die Summe und teilen sie dann durch drei.") == 1.0
    # 4 German and 10 English words
    assert consistency(
        "Wir berechnen die Summe. Then we divide it by three to get the mean."
    ) == pytest.approx(10 / 14)


def test_an_unknown_latin_script_language_is_not_taken_for_the_expected_one():
    polish = (
        "Najpierw obliczamy sumę wszystkich liczb, a potem dzielimy ją przez trzy, więc wynik jest równy "
        "dziewięć."
    )
    assert word_counts(polish, expected="en")[OTHER] > 0
    assert language_share(polish, "en") < 0.5


@pytest.mark.parametrize(
    "unit", ["a", "$", "\\[", "\\begin{a}", "x=", "```", "x@", "x_", "é", "{", "<a", "等"]
)
def test_time_is_linear_in_degenerate_text(unit):
    start = time.process_time()
    consistency(unit * (60_000 // len(unit)))
    assert time.process_time() - start < 2.0


def test_main_language() -> None:
    from r1rl.text.language import main_language

    assert [main_language(text) for text in ("Make 3 from 1, 2.", "用 1 和 2 得到 3。", "12 + 3")] == [
        "en",
        "zh",
        None,
    ]
