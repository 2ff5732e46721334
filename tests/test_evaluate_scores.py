"""Grading, votes, figures and comparisons, with the arithmetic in comments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1rl.config.benchmarks import BenchmarkConfig
from r1rl.config.schema import DataConfig
from r1rl.errors import UserError
from r1rl.evaluation.results import Result, compare_results, find_results
from r1rl.scoring.completions import UNDECIDED, ScoredCompletion, ScoredProblem, Traits
from r1rl.scoring.figures import figures as figures_of
from r1rl.scoring.figures import problem_rows
from r1rl.scoring.grades import count_votes, grade_problems
from r1rl.scoring.intervals import over_problems, paired_difference
from r1rl.types import Problem, Prompt, Sample


def config(grading: str = "strict", **values: Any) -> BenchmarkConfig:
    return BenchmarkConfig(name="b", data=DataConfig(source="x.jsonl"), grading=grading, **values)  # type: ignore[arg-type]


def prompt(answer: str | None, identity: str = "p", prefill: str = "", **columns: Any) -> Prompt:
    return Prompt(Problem(identity, "question", answer, columns), "question" + prefill, [], prefill)


def samples(*texts: str, tokens: int = 10, finish: str = "eos") -> list[Sample]:
    return [Sample("p", index, index, text, tokens, finish) for index, text in enumerate(texts)]


def graded(
    outcome: str,
    tokens: int = 10,
    extracted: str | None = None,
    finish: str = "eos",
    language: float | None = 1.0,
) -> ScoredCompletion:
    correct = None if outcome in UNDECIDED else outcome == "correct"
    traits = Traits(outcome == "correct", language, None)
    return ScoredCompletion(0, "text", tokens, finish, correct, traits, False, outcome, extracted)


def problem(
    *outcomes: ScoredCompletion, identity: str = "p", votes: Any = None, **groups: str
) -> ScoredProblem:
    return ScoredProblem(identity, "question", "4", "", list(outcomes), groups, votes=votes)


def test_every_outcome_has_its_own_name() -> None:
    texts = ("so \\boxed{4}", "so \\boxed{5}", "I give up", "so \\boxed{")
    (found,) = grade_problems(config(), [prompt("4")], [samples(*texts)])
    assert [sample.outcome for sample in found.samples] == ["correct", "wrong", "no_answer", "malformed"]
    assert [sample.extracted for sample in found.samples[:2]] == ["4", "5"]
    assert found.votes == ((1, 1), 1, 2)
    (lenient,) = grade_problems(config("lenient"), [prompt("4")], [samples("The answer is 4.")])
    assert lenient.samples[0].correct
    (no_gold,) = grade_problems(config(), [prompt(None)], [samples("\\boxed{4}")])
    assert no_gold.samples[0].outcome == "unparseable_gold" and no_gold.accuracy is None


def test_countdown_and_continuation() -> None:
    asked = prompt("24", prefill="<think>", numbers=[3, 8], target=24)
    texts = ("</think><answer>3*8</answer>", "</think><answer>3+8</answer>", "nothing")
    (found,) = grade_problems(config("countdown"), [asked], [samples(*texts)])
    assert [sample.outcome for sample in found.samples] == ["correct", "wrong", "no_answer"]
    assert found.votes is None
    (recited,) = grade_problems(config("continuation"), [prompt("b c")], [samples("b\n c d", "b d", " ")])
    assert [sample.outcome for sample in recited.samples] == ["correct", "wrong", "no_answer"]


def test_groups_come_from_the_columns() -> None:
    (found,) = grade_problems(
        config(group_by=["level", "absent"]), [prompt("4", level=3)], [samples("\\boxed{4}")]
    )
    assert found.groups == {"level": "3"}


def test_equivalent_answers_vote_together() -> None:
    wrong = [graded("wrong", extracted=text) for text in ("\\frac{1}{2}", "0.5", "7", "1/2")]
    others = [graded("correct", extracted="4"), graded("no_answer"), graded("timeout", extracted="x^{9999}")]
    sizes, right, abstained = count_votes([*wrong, *others])
    assert right is not None
    assert (sizes[right], sorted(sizes), abstained) == (1, [1, 1, 1, 3], 1)
    assert count_votes([graded("malformed")]) == ((), None, 1)


def test_figures() -> None:
    # a: 2 of 3 decided are right (the timeout is in no accuracy). b: 1 of 4. c: nothing is decided.
    a = problem(
        graded("correct", 10),
        graded("correct", 100),
        graded("wrong", 20),
        graded("timeout", 30),
        identity="a",
        votes=((1, 2), 1, 1),
        level="1",
    )
    b = problem(
        graded("correct", 40),
        graded("no_answer", 64, finish="length", language=0.5),
        graded("malformed", 50),
        graded("wrong", 30, language=None),
        identity="b",
        votes=((1, 1), 1, 2),
        level="2",
    )
    c = problem(*[graded("unparseable_gold", 64)] * 4, identity="c", votes=((4,), None, 0), level="2")
    figures = figures_of([a, b, c], 4, 100)
    assert figures["accuracy"] == {
        "value": pytest.approx((2 / 3 + 1 / 4) / 2),
        "ci95": list(over_problems([2 / 3, 1 / 4]) or ()),
    }
    assert figures["accuracy_undecided_as_wrong"]["value"] == pytest.approx((2 / 4 + 1 / 4 + 0) / 3)
    # pass@2: a 1 - C(1,2)/C(3,2) = 1, b 1 - C(3,2)/C(4,2) = 1/2
    assert figures["pass_at_2"]["value"] == pytest.approx(0.75)
    assert figures["pass_at_4"] == {"value": 1.0, "ci95": None}  # only b has four decided ones
    # cons@4 of all four: a 2 votes to 1, right; b 1 to 1, a tie, one half
    assert figures["cons_at_4"]["value"] == pytest.approx(0.75)
    assert figures["outcomes"] == {
        "correct": 3, "wrong": 2, "no_answer": 1, "malformed": 1, "unparseable_gold": 4, "timeout": 1,
        "crashed": 0,
    }  # fmt: skip
    rates = {name: round(12 * value) for name, value in figures["rates"].items()}
    assert rates == {
        "truncated_without_answer": 1, "extraction_failure": 2, "no_answer": 1, "malformed": 1, "wrong": 2,
        "undecided": 5,
    }  # fmt: skip
    assert figures["truncated_rate"]["value"] == pytest.approx(1 / 12) and figures["num_undecided"] == 5
    assert figures["correct"] == {
        "count": 3,
        "mean_length": 50.0,
        "reflection_rate": 1.0,
        "language_consistency": 1.0,
    }
    # decided but not right: tokens 20, 64, 50, 30; language 1, 0.5, 1
    assert figures["wrong"] == {
        "count": 4,
        "mean_length": 41.0,
        "reflection_rate": 0.0,
        "language_consistency": pytest.approx(2.5 / 3),
    }
    levels = figures["by_value"]["level"]
    assert levels["1"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert levels["2"]["accuracy"] == {"value": 0.25, "ci95": None}  # c is in no accuracy
    assert (levels["2"]["num_problems"], levels["2"]["num_undecided"]) == (2, 4)
    # every other figure is there for the problems of a value too
    assert figures_of([b, c], 4).keys() - {"by_value"} == levels["2"].keys()
    assert figures_of([b, c], 4)["by_value"]["level"]["2"] == levels["2"]
    # at 32 tokens only a's first is in time: (1/3 + 0)/2; at 64 b's too: (1/3 + 1/4)/2; at 100 all
    by_limit = [
        (entry["limit"], entry["accuracy"]["value"], round(12 * entry["truncated_rate"]))
        for entry in figures["by_limit"]
    ]
    assert by_limit == [
        (32, pytest.approx(1 / 6), 8),
        (64, pytest.approx(7 / 24), 1),
        (100, figures["accuracy"]["value"], 0),
    ]
    assert [entry["is_lower_bound"] for entry in figures["by_limit"]] == [True, True, False]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    rows = problem_rows([a, b, c])
    assert rows[0]["outcomes"] == {"correct": 2, "wrong": 1, "timeout": 1} and rows[2]["accuracy"] is None
    assert rows[1]["truncated"] == 1 and rows[1]["mean_length"] == 46.0


def test_a_lower_limit_grades_what_it_leaves() -> None:
    text = "so \\boxed{4}. Or rather \\boxed{5}. Then"
    cuts = ((32, text.index(".") + 1), (64, len(text) - 5))
    short = Sample("p", 1, 0, "\\boxed{4}", 40, "eos", ((32, 3),))
    asked = [Sample("p", 0, 0, text, 70, "eos", cuts), short, Sample("p", 2, 0, "", 1, "eos")]
    (found,) = grade_problems(config(), [prompt("4")], [asked])
    assert [sample.outcome for sample in found.samples] == ["wrong", "correct", "no_answer"]
    assert [sample.outcome_at for sample in found.samples] == [
        {32: "correct", 64: "wrong"},
        {32: "no_answer"},
        {},
    ]
    by_limit = figures_of([found], 3, 128)["by_limit"]
    assert [(entry["limit"], entry["accuracy"]["value"]) for entry in by_limit] == [
        (32, 1 / 3),
        (64, 1 / 3),
        (128, 1 / 3),
    ]
    assert [entry["truncated_rate"] for entry in by_limit] == [2 / 3, 1 / 3, 0.0]
    assert not any(entry["is_lower_bound"] for entry in by_limit)


def result(model: str, accuracies: dict[str, float | None], **measured: Any) -> Result:
    manifest = {
        "measured": {"benchmark": "b", "prompt": {"template": "chat"}, **measured},
        "model": {"label": model},
    }
    return Result(
        manifest, {}, [{"id": identity, "accuracy": value} for identity, value in accuracies.items()]
    )


def test_comparison_is_paired_over_shared_problems() -> None:
    first = result("A", {"x": 0.0, "y": 0.5, "z": None, "only": 1.0})
    second = result("B", {"y": 1.0, "x": 0.25, "z": 1.0})
    found = compare_results(first, second)
    assert found.difference == paired_difference([0.5, 0.0], [1.0, 0.25])
    assert found.sentence().startswith(
        "b: B minus A is +37.5 points, 95 % interval -121.3 to +196.3 (paired over 2 problems; zero is"
    )


def test_what_was_measured_differently_is_refused() -> None:
    first, second = result("A", {"x": 0.0}, limit=5), result("B", {"x": 1.0}, limit=6)
    with pytest.raises(UserError, match=r"(?s)A and B were measured differently.*limit: 5 and 6.*--force"):
        compare_results(first, second)
    forced = compare_results(first, second, force=True)
    assert forced.measured_differently == ["limit: 5 and 6"] and forced.difference.difference == 1.0
    with pytest.raises(UserError, match="no graded problem in common"):
        compare_results(result("A", {"x": 0.0}), result("B", {"y": 1.0}))


def test_results_are_found_by_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results"):
        find_results(str(tmp_path))
    for model in ("m1", "m2"):
        place = tmp_path / model / "b"
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(result(model, {"x": 1.0}).as_json()), encoding="utf-8")
    assert find_results(str(tmp_path / "m2"))["b"].model == "m2"
    with pytest.raises(UserError, match="several models"):
        find_results(str(tmp_path))


def test_readability_is_over_all_completions() -> None:
    texts = (
        " 3*8=24 check: yes. </think> <answer>3*8</answer>",  # 2 words of 2 in English
        # 3 words and 2 characters, which are 1.25 words
        " 3+8=11 check: no. wait, 3*8=24 查: 是. </think> <answer>3*8</answer>",
        " </think> 3*8",
        " </think> <answer>3*8</answer>",
    )
    asked = [
        Prompt(
            Problem(identity, "Make 24 from 3, 8.", "24", {"numbers": [3, 8], "target": 24}),
            "",
            [],
            " <think>",
        )
        for identity in "ab"
    ]
    found = grade_problems(config("countdown"), asked, [samples(*texts[:2]), samples(*texts[2:])])
    figures = figures_of(found, 2, 64)
    # Problem a: both in exact tags. Problem b: no answer block; blank thoughts. Words have the completions of
    # problem a only.
    assert figures["well_formed_rate"]["value"] == pytest.approx(0.5)
    assert figures["asked_language"]["value"] == pytest.approx((1 + 3 / 4.25) / 2)
    chinese = [
        Prompt(Problem(one.problem.id, "用 3 和 8 得到 24。", "24", one.problem.columns), "", [], " <think>")
        for one in asked
    ]
    found = grade_problems(config("countdown"), chinese, [samples(*texts[:2]), samples(*texts[2:])])
    assert figures_of(found, 2, 64)["asked_language"]["value"] == pytest.approx((0 + 1.25 / 4.25) / 2)
