"""The rewards that look at form, not at truth: golden values with their arithmetic, and what must not
score.
"""

# ruff: noqa: RUF001 (other scripts and typography are the matter of this file)

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from r1rl.config.schema import RewardConfig
from r1rl.errors import RewardError
from tests.reward_helpers import load_built_in, make_completion, make_prompt, reward_set

CLOSED_FORM = Path(__file__).parents[2] / "shared" / "grading" / "cases" / "rewards_closed_form.json"
closed_form = pytest.mark.skipif(not CLOSED_FORM.exists(), reason="the closed-form values are not here")

GOOD = "<think>2 + 2 = 4</think> <answer>4</answer>"


def closed_form_cases(name):
    return json.loads(CLOSED_FORM.read_text("utf-8"))[name]["cases"]


def test_format_full():
    reward = load_built_in("format")
    assert reward([GOOD, f"\n{GOOD}\n", "<think>\nr\n</think>\n\n<answer>\na\n</answer>\n"]) == [
        1.0,
        1.0,
        1.0,
    ]
    assert reward([GOOD], full=2.0) == [2.0]


def test_format_full_with_a_prefilled_tag():
    reward = load_built_in("format")
    rest = "2 + 2 = 4</think> <answer>4</answer>"
    assert reward([rest], prefill="<think>") == [1.0]
    assert reward([rest]) == [0.5]  # the same text without the prefill has no <think>
    assert reward([GOOD], prefill="<think>") == [0.0]  # a second <think>


def test_format_partial():
    reward = load_built_in("format")
    texts = ["So: " + GOOD, GOOD.replace("</think>", "</think> The answer is"), GOOD.removeprefix("<think>")]
    assert reward(texts) == [0.5, 0.5, 0.5]
    assert reward(texts, partial=0.2) == [0.2, 0.2, 0.2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "<answer>4</answer>",
        "<think>2 + 2</think> 4",
        GOOD + " That is all.",
        GOOD + GOOD,
        "<think>" + GOOD,
        GOOD.replace("</think>", "</think></think>"),
        "<think>" * 50 + GOOD,
        "<answer>4</answer> <think>2 + 2 = 4</think>",
        "<think>a <answer>4</answer> b</think>",
        "<think>2 + 2 = 4</think> <answer>4",
        "<think>2 + 2 = 4 <answer>4</answer>",
        "<think>  </think> <answer>4</answer>",
        "<think>2 + 2</think> <answer> \n </answer>",
        "<think>a</think> <answer>4</answer> <answer>5</answer>",
        "<THINK>a</THINK> <ANSWER>4</ANSWER>",
        "< think >a< /think > <answer>4</answer>",
    ],
)
def test_format_zero(text):
    assert load_built_in("format")([text]) == [0.0]


def test_format_on_own_lines():
    reward = load_built_in("format")
    lines = "<think>\nr\n</think>\n<answer>\na\n</answer>"
    assert reward([lines, GOOD], own_lines=True) == [1.0, 0.5]


@closed_form
def test_format_and_tag_count_match_the_closed_form_cases():
    strict, tags = load_built_in("format"), load_built_in("tag_count")
    for case in closed_form_cases("format"):
        value = strict([case["text"]], own_lines=True, partial=0.0)[0]
        if case["open_r1_or_strict"] is not None:
            assert value == case["open_r1_or_strict"], case["note"]
        elif "trailing newline" not in case["note"]:  # null: open-r1 accepts what a strict checker must not
            assert value == 0.0, case["note"]
        assert tags([case["text"]], own_lines=True) == [case["tag_count_open_r1"]], case["note"]


def test_tag_count():
    reward = load_built_in("tag_count")
    assert reward([GOOD, "4", "<answer>4</answer>", GOOD + GOOD, "<think><think></think>"]) == [
        1.0,
        0.0,
        0.5,
        0.0,
        0.25,
    ]
    assert reward(["a</think><answer>4</answer>"], prefill="<think>") == [1.0]


def test_cosine_length_golden_values():
    reward = load_built_in("cosine_length")
    ids = [[0] * length for length in (0, 25, 100, 250)]
    # M = 100, correct: 0.5 + 0.25 * (1 + cos(pi L / M)): L = 0: 1; L = 25: 0.5 + 0.25 * (1 + sqrt(1/2)) =
    # 0.926777; from L = M on: 0.5
    assert reward(ids, [1.0] * 4, 100) == pytest.approx([1.0, 0.5 + 0.25 * (1 + math.sqrt(0.5)), 0.5, 0.5])
    # wrong: -0.5 - 0.25 * (1 + cos): -1 at 0, -0.5 from M on
    assert reward(ids, [0.0] * 4, 100) == pytest.approx(
        [-1.0, -0.5 - 0.25 * (1 + math.sqrt(0.5)), -0.5, -0.5]
    )
    assert reward(ids, [None] * 4, 100) == [None] * 4
    # Half right is not right.
    assert reward([[0] * 50], [0.5], 1000, max_length=100, wrong=(-10.0, 0.0)) == pytest.approx([-5.0])
    with pytest.raises(RewardError, match="two numbers"):
        reward(ids, [1.0] * 4, 100, correct=[1.0])


@closed_form
def test_cosine_length_matches_the_closed_form():
    reward = load_built_in("cosine_length")
    for case in closed_form_cases("cosine"):
        value = reward([[0] * case["length"]], [float(case["correct"])], case["max_len"])[0]
        assert value == pytest.approx(case["value"], abs=1e-9)


def test_cosine_length_takes_the_outcome_from_the_recipe():
    rewards = reward_set(
        RewardConfig(function="countdown"),
        RewardConfig(function="cosine_length"),
        columns={"numbers", "target"},
    )
    texts = ["<think>a</think><answer>2 + 2</answer>", "<think>a</think><answer>2 - 2</answer>"]
    prompts = [make_prompt(numbers=[2, 2], target=4)] * 2
    result = rewards.score(
        prompts,
        [make_completion(text, num_tokens=10) for text in texts],
        max_completion_length=10,
        prefill="",
    )
    assert result.outcome == [1.0, 0.0] and result.by_name["cosine_length"] == pytest.approx([0.5, -0.5])


def test_soft_overlong_golden_values():
    reward = load_built_in("soft_overlong")
    ids = [[0] * length for length in (0, 80, 81, 90, 100, 101, 500)]
    # M = 100, C = 20: (80 - L) / 20 between 80 and 100
    assert reward(ids, 100, cache=20) == pytest.approx([0.0, 0.0, -0.05, -0.5, -1.0, -1.0, -1.0])
    assert reward([[0] * 90], 100) == pytest.approx([-0.5])  # C = M / 5 by itself
    with pytest.raises(RewardError, match="cache must lie between 1 and the limit of 100"):
        reward(ids, 100, cache=200)


@closed_form
def test_soft_overlong_matches_the_closed_form():
    reward = load_built_in("soft_overlong")
    for case in closed_form_cases("soft_overlong"):
        assert reward([[0] * case["length"]], case["max_len"], cache=case["cache"])[0] == pytest.approx(
            case["value"], abs=1e-9
        )


def test_repetition_golden_values():
    reward = load_built_in("repetition")
    # 1 1 1 1: bigrams (1,1) x 3, 1 distinct: 1 - 1/3; 1 2 3 4: all distinct; one token: no bigram
    assert reward([[1, 1, 1, 1], [1, 2, 3, 4], [1], []], ngram=2) == pytest.approx([-2 / 3, 0.0, 0.0, 0.0])
    # Two trigrams, one distinct.
    assert reward([[1, 1, 1, 1]], ngram=3, max_penalty=-0.5) == pytest.approx([-0.25])
    with pytest.raises(RewardError, match="would reward repetition"):
        reward([[1]], max_penalty=1.0)


@closed_form
def test_repetition_matches_the_closed_form():
    reward = load_built_in("repetition")
    for case in closed_form_cases("repetition"):
        words = case["full_text"].lower().split()
        assert reward([words], ngram=case["ngram"], max_penalty=case["max_penalty"])[0] == pytest.approx(
            case["value"], abs=1e-9
        )


def test_language_consistency_looks_at_the_thoughts():
    reward = load_built_in("language_consistency")
    english, mixed = "We add the numbers and get 4.", "We add the numbers 然后我们得到四。"
    answer = "</think> <answer>答案是四</answer>"
    scores = reward([english + answer, mixed + answer, "2 + 2 = 4" + answer], "en", "<think>")
    assert scores[0] == 1.0 and 0.3 < scores[1] < 0.7 and scores[2] is None
    assert reward([english + answer], "en", "<think>", thoughts_only=False)[0] < 0.8
    assert reward([english, english], ["en", "zh"]) == [1.0, 0.0]
    with pytest.raises(RewardError, match="'xx' is not one of en, de"):
        reward([english], "xx")


def test_reasoning_steps():
    reward = load_built_in("reasoning_steps")
    assert reward(
        ["Step 1: add.\nStep 2: divide.\n3. Done.", "First, add. Then, stop.", "4"]
    ) == pytest.approx([1.0, 2 / 3, 0.0])
    assert reward(["首先，相加。最后，得到答案。"], steps=2) == [1.0]
    assert reward(["The first number is 3 and the next one is 4. 2.5 - 1 = 1.5"]) == [0.0]


def test_reflection_looks_at_the_thoughts():
    reward = load_built_in("reflection")
    assert reward(
        ["2 + 2 = 4. check: yes</think> <answer>4</answer>", "2 + 2 = 4</think> <answer>wait, 4</answer>"]
    ) == [1.0, 0.0]


@pytest.mark.parametrize("name", ["reasoning_steps", "reflection"])
def test_shaping_rewards_carry_their_warning(name):
    assert "**Warning**" in load_built_in(name).__doc__
