"""The places that the answer is read from: regions, tags, boxes, and the lenient conventions."""

from __future__ import annotations

import pytest

from r1rl.grading import Mode, Outcome, extract_answer, grade, is_correct, is_correct_lenient
from r1rl.grading.extract import MAX_JOINED_BOXES, answer_region, braces_match, closing_brace

FOUND = [
    ("The answer is \\boxed{42}.", "42"),
    ("\\boxed{\\frac{a}{\\sqrt{b}}}", "\\frac{a}{\\sqrt{b}}"),
    ("\\fbox{7}", "7"),
    ("\\boxed {7}", "7"),
    ("\\boxed 7.", "7"),
    ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
    ("\\boxed{42}}}}.", "42"),
    ("{{{\\boxed{42}.", "42"),
    ("\\boxed{x = \\boxed{5}}", "5"),
    ("First \\boxed{5}. But that fails; the value is \\boxed{7}.", "7"),
    ("\\boxed{1} and \\boxed{2}", "1, 2"),
    ("$$\\boxed{(1,2)}, \\quad \\boxed{(2,1)}$$", "(1,2), (2,1)"),
    ("\\boxed{840} \\boxed{840}", "840"),
    ("\\boxed{5} or \\boxed{6}", "5, 6"),
    ("\\boxed{10}. Note that \\boxed is a command.", "10"),
    ("<think>2+6</think><answer>The answer is \\boxed{8}</answer>", "8"),
    ("work</think> The answer is \\boxed{8}.", "8"),
    ("<think>a</think><answer>\\boxed{7}</answer><think>b</think><answer>\\boxed{8}</answer>", "8"),
    ("</think></think>\\boxed{8}", "8"),
    ("<think>\\boxed{7}</think> So \\boxed{8}", "8"),
    ("<answer> 84 </answer>", "84"),
    ("<answer>7</answer> <answer>8</answer>", "8"),
    ("\\boxed{7} <answer>8</answer>", "8"),
    ("<think>x</think><answer>\\boxed{8}", "8"),
]

NOT_FOUND = [
    ("", Outcome.NO_ANSWER),
    ("I think it is 8.", Outcome.NO_ANSWER),
    ("The answer is 8", Outcome.NO_ANSWER),
    ("<think>so \\boxed{8}", Outcome.NO_ANSWER),
    ("<think>so \\boxed{8}</think> I am done.", Outcome.NO_ANSWER),
    ("\\boxed{8} <think> or not", Outcome.NO_ANSWER),
    ("<answer>8</answer> <think>hm</think> done", Outcome.NO_ANSWER),
    ("\\boxed{42", Outcome.MALFORMED),
    ("\\boxed{5} then \\boxed{6", Outcome.MALFORMED),
    ("\\boxed{42}. The answer is in \\boxed{}.", Outcome.MALFORMED),
    ("so \\boxed", Outcome.MALFORMED),
    ("<think>x</think><answer>8", Outcome.MALFORMED),
    ("<think>x</think><answer> </answer>", Outcome.MALFORMED),
]

LENIENT = [
    ("So she pays 5 dollars.\n#### 18", "18", True),
    ("The answer is 7.", "7", True),
    ("The final answer is $\\frac{5}{6}$. I hope it is correct.", "5/6", True),
    ("Final Answer: The final answer is 12,000,023. I hope it is correct.", "12000023", True),
    ("Step 1\nStep 2\nFinal answer: 42", "42", True),
    ("Answer: 3.14", "3.14", True),
    ("**Answer: 12**", "12", True),
    ("The answer is -3", "-3", True),
    ("The answer is 3", "-3", False),
    ("2 + 2 = 4, so there are 4 apples left.", "4", True),
    ("We get 92, hence it is **92**.", "92", True),
    ("Therefore $x \\geq 5$.", "x >= 5", True),
    (
        "The identity is $ \\begin{pmatrix}1 & 0 \\\\ 0 & 1\\end{pmatrix} $.",
        "\\begin{pmatrix}1 & 0 \\\\ 0 & 1\\end{pmatrix}",
        True,
    ),
    ("I think it's (D).", "D", True),
    ("The correct answer is C", "C", True),
    ("The answer is D, it can't be A or B", "D", True),
    ("C", "A", False),
    ("答案是 15", "15", True),
    ("réponse est C non A", "C", True),
    ("<think>the answer is 5", "5", False),
    ("<think>the answer is 5</think>", "5", False),
    ("First \\boxed{6}, and the answer is 5", "5", False),  # a box always comes first
    ("", "5", False),
]


@pytest.mark.parametrize(("completion", "answer"), FOUND)
def test_strict_extraction_finds(completion, answer):
    assert extract_answer(completion).text == answer


@pytest.mark.parametrize(("completion", "outcome"), NOT_FOUND)
def test_strict_extraction_refuses(completion, outcome):
    extraction = extract_answer(completion)
    assert (extraction.text, extraction.problem) == (None, outcome)
    assert grade(completion, "8").outcome is outcome
    assert is_correct(completion, "8") is False


def test_prefilled_thinking_block_counts_as_open():
    assert extract_answer("so \\boxed{8}", prefill="<think>\n").problem is Outcome.NO_ANSWER
    assert extract_answer("so</think>\\boxed{8}", prefill="<think>\n").text == "8"
    assert extract_answer("so \\boxed{8}", prefill="<think></think>").text == "8"


def test_prefilled_answer_tag_counts_as_open():
    assert extract_answer("8</answer>", prefill="<think></think><answer>").text == "8"
    assert extract_answer("8</answer>").text is None


def test_a_long_row_of_boxes_is_no_right_answer():
    row = " ".join(f"\\boxed{{{k}}}" for k in range(MAX_JOINED_BOXES + 5))
    assert grade(row, str(MAX_JOINED_BOXES + 4)).outcome is Outcome.WRONG


@pytest.mark.parametrize(("completion", "gold", "expected"), LENIENT)
def test_lenient_mode(completion, gold, expected):
    assert is_correct_lenient(completion, gold) is expected


@pytest.mark.parametrize(("completion", "gold", "expected"), [case for case in LENIENT if case[2]])
def test_strict_mode_takes_none_of_the_lenient_conventions(completion, gold, expected):
    assert grade(completion, gold, mode="strict").outcome is Outcome.NO_ANSWER


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="relaxed"):
        grade("\\boxed{5}", "5", mode="relaxed")
    assert grade("\\boxed{5}", "5", mode=Mode.LENIENT).correct


def test_regions_and_braces():
    assert answer_region("a</think>b") == "b"
    assert answer_region("<think>a") is None
    assert closing_brace("{a{b}\\}c}d", 0) == 8
    assert closing_brace("{a{b}", 0) == -1
    assert braces_match("\\frac{1}{2}") and not braces_match("\\frac{1}{2") and not braces_match("1}")
