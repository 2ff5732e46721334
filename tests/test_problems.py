"""Problem generators: seeds, splits, arguments, and that every problem's answer is right."""

from __future__ import annotations

import ast
import operator
import re

import pytest

from r1rl.errors import DataError
from r1rl.problems import GENERATORS, generate
from r1rl.problems.expressions import reachable

NAMES = list(GENERATORS)


def calculate(text: str) -> int:
    """Return the value of an arithmetic text, by Python's own grammar."""
    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}

    def visit(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            return int(operators[type(node.op)](visit(node.left), visit(node.right)))
        assert isinstance(node, ast.Constant)
        return int(node.value)

    return visit(ast.parse(text, mode="eval").body)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_problems(name: str) -> None:
    first = generate(name, "train", 3, count=50)
    assert first == generate(name, "train", 3, count=50)
    assert [p.problem for p in first] != [p.problem for p in generate(name, "train", 4, count=50)]
    assert first[:20] == generate(name, "train", 3, count=20)
    assert len({p.problem for p in first}) == len({p.id for p in first}) == 50


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_problem_whatever_the_seeds(name: str) -> None:
    def keys(split: str, seed: int) -> set[object]:
        found = generate(name, split, seed, count=100 if name == "small_talk" else 300)
        if name in ("countdown", "solved_countdown"):
            return {(tuple(sorted(p.columns["numbers"])), p.columns["target"]) for p in found}
        return {p.problem for p in found}

    train = keys("train", 0) | keys("train", 1)
    test = keys("test", 0) | keys("test", 7)
    assert not train & test


def test_order_of_the_numbers_does_not_move_a_problem_to_the_other_split() -> None:
    def asked(split: str, count: int) -> set[tuple[tuple[int, ...], int]]:
        # Numbers up to 4 make so few problems that most of both splits are met, in many orders.
        found = generate("countdown", split, 0, count=count, low=2, high=4)
        return {(tuple(sorted(problem.columns["numbers"])), problem.columns["target"]) for problem in found}

    train = asked("train", 60)
    assert len(train) == 60
    assert not train & asked("test", 5)


def test_countdown_problems_can_be_solved() -> None:
    for problem in generate("countdown", "test", 0, count=40, numbers=[3, 4], high=12, max_target=60):
        numbers, target = problem.columns["numbers"], problem.columns["target"]
        assert problem.answer == str(target)
        assert problem.problem == f"Make {target} from {', '.join(map(str, numbers))}."
        assert len(numbers) in (3, 4) and all(2 <= number <= 12 for number in numbers) and 1 <= target <= 60
        assert target in reachable(numbers, "+-*", 400)


def test_arithmetic_answers_are_right() -> None:
    for problem in generate("arithmetic", "train", 0, count=100, min_steps=3, max_steps=4):
        expression = problem.problem.removeprefix("What is ").removesuffix("?")
        assert len(re.findall(r"[-+*]", expression)) in (3, 4)
        assert problem.answer == str(calculate(expression))


def test_word_problem_answers_are_right() -> None:
    signs = (("finds", "+"), ("gives", "?"), ("buys", "+"), ("loses", "-"), ("sells", "-"), ("times", "*"))
    for problem in generate("word_problems", "train", 0, count=100):
        start, *events, question = re.split(r"(?<=[.?]) ", problem.problem)
        assert question.startswith("How many")
        value = int(re.findall(r"\d+", start)[0])
        for event in events:
            amount = int(re.findall(r"\d+", event)[0])
            sign = next(
                sign for word, sign in signs if word in event or (word == "times" and "times" in event)
            )
            if sign == "?":
                sign = "+" if event.startswith("A friend") else "-"
            value = calculate(f"{value}{sign}{amount}")
        assert problem.answer == str(value)


@pytest.mark.parametrize(
    ("name", "split", "arguments", "message"),
    [
        ("countdwn", "train", {}, 'there is no generator "countdwn"; did you mean countdown?'),
        (
            "chess",
            "train",
            {},
            'there is no generator "chess"; there are arithmetic, word_problems, countdown, small_talk, '
            "solved_c",
        ),
        ("countdown", "validation", {}, 'there is no split "validation"; use train or test'),
        (
            "countdown",
            "train",
            {"max_targe": 9},
            'generator countdown has no argument "max_targe"; did you mean max_target?',
        ),
        (
            "arithmetic",
            "train",
            {"numbers": 3},
            'generator arithmetic has no argument "numbers"; it has count, high',
        ),
        ("arithmetic", "train", {"count": 0}, "count is 0; it must be at least 1"),
        (
            "countdown",
            "train",
            {"low": 2, "high": 2, "count": 50},
            "distinct problems of split train were found, 50 are asked for",
        ),
        (
            "countdown",
            "train",
            {"low": 50, "high": 60, "max_target": 3, "operators": "+"},
            "no expression has a value in 1..3",
        ),
        (
            "arithmetic",
            "train",
            {"high": 2, "max_factor": 2, "max_value": 1},
            "no chain of operations stays within 1..1",
        ),
    ],
)
def test_errors_say_what_to_write(name: str, split: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as error:
        generate(name, split, 0, **arguments)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_small_talk_pairs() -> None:
    """The chosen completion is about the request; the rejected one differs; only harm is refused; only harm
    is planned.
    """
    found = generate("small_talk", "train", 0, count=900)
    assert {p.columns["domain"] for p in found} == {"helpfulness", "harmlessness"}
    assert all(p.answer is None for p in found)
    for problem in found:
        chosen, rejected = (str(problem.columns[name]) for name in ("chosen", "rejected"))
        answer = re.fullmatch(r" <think> .+ </think> <answer>(.+)</answer>", chosen)[1]  # type: ignore[index]
        assert rejected != chosen and re.fullmatch(r" <think> .+ </think> <answer>.+</answer>", rejected)
        named = re.findall(r"\b[A-Z][a-z]+\b", problem.problem.split(" ", 1)[1])
        assert named[-1] in answer
        harmful = problem.columns["domain"] == "harmlessness"
        assert ("do not help" in answer) == harmful
        assert "go away" not in chosen and ("go away" in rejected) <= harmful
    planned = [
        str(p.columns["rejected"])
        for p in found
        if "go away" in str(p.columns["rejected"]).split("</think>")[0]
    ]
    # A refusal in the answer alone is rejected too.
    assert {"do not help" in text for text in planned} == {
        True,
        False,
    }


def test_small_talk_of_one_domain() -> None:
    only = generate("small_talk", "test", 0, count=20, domains=["harmlessness"])
    assert all(p.problem.startswith("How do I ") for p in only)
    with pytest.raises(
        DataError,
        match=r"generator small_talk: domains is kindness; it may list helpfulness and harmlessness",
    ):
        generate("small_talk", "test", 0, count=1, domains=["kindness"])


def test_solved_countdown() -> None:
    """Countdown's problems and splits, each with a solution that checks its attempts and ends with the right
    one.
    """
    found = generate(
        "solved_countdown", "test", 0, count=200, languages={"en": 0.5, "zh": 0.5}, max_attempts=4
    )
    attempts = []
    for problem in found:
        completion = str(problem.columns["completion"])
        thought, answer = re.fullmatch(
            r" <think> (.+) </think> "
            r"<answer>(.+)</answer>",
            completion,
        ).groups()  # type: ignore[union-attr]
        assert calculate(answer) == problem.columns["target"] == int(str(problem.answer))
        assert sorted(map(int, re.findall(r"\d+", answer))) == sorted(problem.columns["numbers"])
        assert thought.endswith((f"={problem.answer} check: yes.", f"={problem.answer} 查: 是."))
        attempts.append(thought.count("check:") + thought.count("查:"))
    assert set(attempts) == {1, 2, 3, 4}
    train = {
        (tuple(sorted(p.columns["numbers"])), p.columns["target"])
        for p in generate("countdown", "train", 1, count=3000)
    }
    assert not train & {(tuple(sorted(p.columns["numbers"])), p.columns["target"]) for p in found}
    assert all(
        "查" not in str(p.columns["completion"]) for p in generate("solved_countdown", "train", 0, count=50)
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"languages": {"fr": 1}}, "languages has fr"), ({"hit_rate": 0}, "hit_rate must be above 0")],
)
def test_solved_countdown_refuses(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        generate("solved_countdown", "train", 0, count=1, **arguments)
