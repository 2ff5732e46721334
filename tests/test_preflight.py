"""The findings about a recipe before its model is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1rl.cli import main as cli
from r1rl.config.load import load_recipe
from r1rl.errors import DataError, RecipeError, RewardError, UserError
from r1rl.grading import Grader
from r1rl.grpo.preflight import Preflight, preflight

RECIPE = """\
run_name: test
model: {path: some/hub-model}
data: {source: train.jsonl}
rewards:
  - {function: accuracy}
rollout: {num_prompts: 2}
"""


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(
        tmp_path / "train.jsonl",
        [{"problem": f"{n}+{n}?", "answer": str(2 * n), "level": n} for n in range(4)],
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").touch()
    return tmp_path


def check(*overrides: str) -> Preflight:
    path = Path("recipe.yaml")
    found = preflight(load_recipe("grpo", path, overrides), path)
    found.rewards.close()
    return found


def test_problems_and_rewards_are_ready(folder: Path) -> None:
    found = check()
    assert [(problem.problem, problem.answer) for problem in found.problems] == [
        (f"{n}+{n}?", str(2 * n)) for n in range(4)
    ]
    assert found.evaluation_problems == []
    assert found.rewards.outcome_name == "accuracy"
    assert (found.notes, found.warnings) == ([], [])
    assert (folder / "runs").is_dir()


def test_torch_is_not_imported(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from r1rl.config.load import load_recipe; from "
        "r1rl.grpo.preflight import preflight; "
        "path = Path('recipe.yaml'); preflight(load_recipe('grpo', path), path); sys.exit('torch' in "
        "sys.modules)"
    )
    root = str(Path(__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, env={"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["data.source=missing.jsonl"], DataError, "there is no file missing.jsonl"),
        (
            ["data.columns={problem: question}"],
            DataError,
            "has no column 'question'. It has: problem, answer, level",
        ),
        (
            ["evaluation.data={source: missing.jsonl}"],
            DataError,
            "evaluation.data.source: there is no file missing.jsonl",
        ),
        (["data.source=empty.csv"], DataError, "data: empty.csv has no rows."),
        (["evaluation.data={source: empty.csv}"], DataError, "evaluation.data: empty.csv has no rows."),
        (
            ["data={source: countdown, split: valid}"],
            DataError,
            'data: generator countdown: there is no split "valid"',
        ),
        (["rewards.0.function=countdown"], RewardError, "needs 'numbers', which is not a column of the data"),
        (["rewards.0.function=accurcy", "outcome=accurcy"], RewardError, "Did you mean accuracy?"),
        (["rewards.0.arguments={strict: true}"], RewardError, "arguments.strict"),
        (["prompt.template=nowhere.txt"], RecipeError, "'nowhere.txt' is neither a template"),
        (["prompt.template=train.jsonl"], RecipeError, "does not contain {problem}"),
        (["model.path=./nowhere"], RecipeError, "model.path: there is no folder nowhere"),
        (["model.path=a/b/c"], RecipeError, "no hub name (OWNER/NAME) looks like this"),
        (
            ["model.path=train.jsonl"],
            RecipeError,
            "model.path: train.jsonl is a file; write a folder with a model, a hub name",
        ),
        (
            ["model.path=embeded"],
            RecipeError,
            "model.path: there is no model embeded; did you mean embedded?",
        ),
        (["model.path=empty"], RecipeError, "the folder empty has no config.json"),
        (["output_dir=train.jsonl/runs"], UserError, "train.jsonl"),
    ],
)
def test_what_cannot_work_is_a_sentence(
    folder: Path, overrides: list[str], error: type[UserError], words: str
) -> None:
    with pytest.raises(error) as caught:
        check(*overrides)
    assert words in str(caught.value)


def test_rewards_must_fit_the_held_out_columns_too(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "def by_level(completions, level):\n    return [float(one) for one in level]\n", encoding="utf-8"
    )
    write_rows(folder / "test.jsonl", [{"problem": "9+9?", "answer": "18"}])
    overrides = ("rewards.1.function=mine.py:by_level", "evaluation.data={source: test.jsonl}")
    assert check(overrides[0]).rewards.names == ["accuracy", "by_level"]
    with pytest.raises(
        RewardError, match=r"^evaluation\.data lacks a column that data has: .*by_level.*'level'"
    ):
        check(*overrides)


def test_held_out_problems_are_the_same_for_every_seed(folder: Path) -> None:
    write_rows(
        folder / "test.jsonl", [{"problem": f"{n}-1?", "answer": str(n - 1), "level": 0} for n in range(50)]
    )
    settings = ("evaluation.data={source: test.jsonl}", "evaluation.num_problems=5")
    first, second = check(*settings, "seed=1"), check(*settings, "seed=2")
    assert [problem.id for problem in first.evaluation_problems] == [
        problem.id for problem in second.evaluation_problems
    ]
    assert len(first.evaluation_problems) == 5
    assert [problem.problem for problem in first.evaluation_problems] != [f"{n}-1?" for n in range(5)]


def test_generated_problems_differ_by_seed_and_never_reach_the_held_out_ones(folder: Path) -> None:
    settings = (
        "rewards.0.function=countdown", "data={source: countdown, arguments: {count: 50}}",
        "evaluation.num_problems=20",
        "evaluation.data={source: countdown, split: test, arguments: {count: 20}}",
    )  # fmt: skip
    first, second = check(*settings, "seed=1"), check(*settings, "seed=2")
    assert first.problems != second.problems
    assert first.evaluation_problems == second.evaluation_problems
    assert not {problem.problem for problem in first.problems} & {
        problem.problem for problem in first.evaluation_problems
    }


def test_suspicions(folder: Path) -> None:
    rows = [(" 0+0? ", "0"), ("3+3?", "6"), ("7?", "7")]
    write_rows(
        folder / "test.jsonl",
        [{"problem": problem, "answer": answer, "level": 0} for problem, answer in rows],
    )
    found = check("evaluation.data={source: test.jsonl}", "rollout.num_prompts=8")
    assert found.warnings == [
        "data has 4 problems, fewer than a step's 8 prompts: it repeats some.",
        "evaluation.data has 3 problems; evaluation.num_problems asks for 256.",
        "2 of the 3 held-out problems are also in the training data: their accuracy proves nothing.",
    ]


def test_warnings_of_the_data_are_passed_on(folder: Path) -> None:
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    (warning,) = check().warnings
    assert "1 row skipped (not_json)" in warning


def test_rows_without_a_reward_and_rewards_without_a_row_are_told(folder: Path) -> None:
    found = check("rewards.0.where={level: [1, 2]}", "rewards.1={function: format, where: {level: 9}}")
    assert len(found.warnings) == 2
    assert "rewards: format: where fits no problem of data" in found.warnings[0]
    assert "2 of the 4 problems get no reward with a weight" in found.warnings[1]
    assert "train.jsonl, line 1" in found.warnings[1]


def test_reward_for_a_column_that_only_the_training_data_has(folder: Path) -> None:
    write_rows(folder / "test.jsonl", [{"problem": "9+9?", "answer": "18"}])
    with pytest.raises(
        RewardError, match=r"evaluation.data lacks a column that data has: rewards: accuracy: where.level"
    ):
        check("rewards.0.where={level: 1}", "evaluation.data={source: test.jsonl}")


# gold answers


BAD = [{"problem": f"bad {n}?", "answer": "\\frac{1}{"} for n in range(2)]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("command", ["check", "grpo"])
def test_a_run_without_a_gradable_answer_ends_before_its_model_is_loaded(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """The run would learn from the format reward alone."""
    write_rows(
        folder / "train.jsonl", [{"problem": row["problem"], "solution": row["answer"]} for row in BAD]
    )
    words = [
        command,
        "recipe.yaml",
        "data.columns={answer: solution}",
        "rewards.1={function: format}",
        "rollout.num_prompts=2",
    ]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert "data: no gold answer can be graded" in error
    assert "the first is '\\\\frac{1}{' (train.jsonl, line 1): its braces don't match" in error
    assert "(answers are read from the column solution) and data.answer_format" in error


def test_some_answers_that_cannot_be_graded_are_a_warning(folder: Path) -> None:
    good = rows_of(folder / "train.jsonl")
    long = {"problem": "text?", "answer": "9" * 5000, "level": 0}
    write_rows(folder / "train.jsonl", [*good, long, *({**row, "level": 1} for row in BAD)])
    found = check()
    assert [defect.found.fatal for defect in found.gold_defects] == [False, True, True]
    (warning,) = found.warnings
    assert warning.startswith(
        "2 gold answers can't be graded and 1 only by their text; the first is '\\\\frac{1}{' "
        "(train.jsonl, line 6): its braces don't match"
    )
    assert warning.endswith(" Remove or mend them.")


def test_held_out_answers_that_cannot_be_graded_are_a_warning(folder: Path) -> None:
    write_rows(folder / "test.jsonl", [{**row, "level": 1} for row in BAD])
    found = check("evaluation.data={source: test.jsonl}", "evaluation.num_problems=2")
    (warning,) = found.warnings
    assert warning.startswith("2 gold answers can't be graded and 0 only by their text; the first is ")
    assert "test.jsonl, line 1" in warning


def test_other_outcomes_than_accuracy_are_not_audited(folder: Path) -> None:
    write_rows(folder / "train.jsonl", [{**row, "level": 1} for row in BAD])
    with pytest.raises(DataError, match="no gold answer can be graded"):
        check()
    found = check("rewards=[{function: format}]")
    assert (found.rewards.outcome_name, found.gold_defects) == (None, [])


def test_each_distinct_answer_is_graded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of grade-school problems has thousands of rows and a few hundred answers."""
    write_rows(
        folder / "train.jsonl", [{"problem": f"{n}?", "answer": str(n % 3), "level": 0} for n in range(600)]
    )
    graded: list[str] = []
    grade = Grader.grade

    def count(self: Grader, completion: str, gold: Any, *rest: Any, **settings: Any) -> Any:
        graded.append(str(gold))
        return grade(self, completion, gold, *rest, **settings)

    monkeypatch.setattr(Grader, "grade", count)
    check()
    assert sorted(graded) == ["0", "1", "2"]
