"""`r1rl select` from the command line: the removals of each step, and the files that are left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluate_helpers import write_jsonl

from r1rl.cli import main as cli


def row(number: int, right: bool = True, sample: int = 0, **values: Any) -> dict[str, Any]:
    """Return a completion of the problem "What is N+N?"."""
    answer = 2 * number if right else 2 * number + 1
    return {
        "id": f"p{number}", "problem": f"What is {number}+{number}?", "answer": str(2 * number),
        "prefill": "<think>",
        "completion": f"I add {number} and {number}, sample {sample}. </think> <answer>{answer}</answer>",
        "finish_reason": "eos", "tokens": 20 + sample, "sample": sample, **values,
    }  # fmt: skip


def select(tmp_path: Path, rows: list[dict[str, Any]], code: int = 0, **settings: Any) -> Any:
    """Return the report of a selection from `rows`, whose files are in runs/s."""
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe = {
        "run_name": "s",
        "output_dir": str(tmp_path / "runs"),
        "sources": [{"path": str(path)}],
        **settings,
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert cli.main(["select", str(tmp_path / "r.yaml")]) == code
    report = tmp_path / "runs/s/report.json"
    return json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None


def lines(tmp_path: Path, name: str = "selected") -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (tmp_path / f"runs/s/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def step(report: Any, name: str) -> Any:
    (found,) = [one for one in report["steps"] if one["name"] == name]
    return found


def test_each_outcome_is_counted_under_its_own_name(tmp_path: Path) -> None:
    rows = [
        row(1), row(1, right=False, sample=1),
        row(2, completion="no </think> nothing here"),
        row(3, completion="cut </think> <answer>6"),
        row(4, answer=None), row(5),
    ]  # fmt: skip
    report = select(tmp_path, rows)
    correct = step(report, "correct")
    assert correct["reasons"] == {"wrong": 1, "no_answer": 1, "malformed": 1, "unparseable_gold": 1}
    assert (correct["rows_in"], correct["rows_out"]) == (6, 2)
    assert report["outcomes"] == {
        "correct": 2,
        "wrong": 1,
        "no_answer": 1,
        "malformed": 1,
        "unparseable_gold": 1,
    }
    assert len({example["reason"] for example in correct["examples"]}) == 3  # of different reasons first
    assert [(one["id"], one["outcome"], one["pass_rate"], one["source"]) for one in lines(tmp_path)] == [
        ("p1", "correct", 0.5, "rows"), ("p5", "correct", 1.0, "rows"),
    ]  # fmt: skip


def test_countdown_reads_its_columns(tmp_path: Path) -> None:
    def countdown(answer: str, **columns: Any) -> dict[str, Any]:
        return {
            "problem": "Make 10 from 2, 5.",
            "completion": f"</think> <answer>{answer}</answer>",
            "prefill": "<think>",
            **columns,
        }

    rows = [
        countdown("2*5", numbers=[2, 5], target=10),
        countdown("5+5", numbers=[2, 5], target=10),
        countdown("2*5", numbers=[2, 5]),
    ]
    report = select(tmp_path, rows, grade={"function": "countdown"})
    assert report["outcomes"] == {"correct": 1, "wrong": 1, "unparseable_gold": 1}
    assert lines(tmp_path, "problems") == [
        {"problem": "Make 10 from 2, 5.", "numbers": [2, 5], "target": 10, "pass_rate": 0.5, "num_graded": 3}
    ]


def test_rows_of_a_source_that_is_not_graded_are_kept(tmp_path: Path) -> None:
    chat = write_jsonl(
        tmp_path / "chat.jsonl", [{"q": "Hello", "a": "Hello to you.", "problem": "an old column"}]
    )
    other = {"path": str(chat), "columns": {"problem": "q", "completion": "a"}, "skip": ["grade", "format"]}
    sources = [{"path": str(tmp_path / "rows.jsonl")}, other]
    report = select(
        tmp_path, [row(1), row(2, right=False)], sources=sources, filters={"format": "think_answer"}
    )
    assert [(one["problem"], one["outcome"], one["source"]) for one in lines(tmp_path)] == [
        ("What is 1+1?", "correct", "rows"), ("Hello", None, "chat"),
    ]  # fmt: skip
    assert report["sources"] == {
        "rows": {"read": 2, "unusable": {}, "selected": 1}, "chat": {"read": 1, "unusable": {}, "selected": 1}
    }  # fmt: skip
    # Only graded problems have a pass rate.
    assert [one["id"] for one in lines(tmp_path, "problems")] == [
        "p1",
        "p2",
    ]


@pytest.mark.parametrize(
    ("filters", "name", "values", "reason"),
    [
        ({}, "finish_reason", {"finish_reason": "length"}, "length"),
        ({"min_tokens": 10}, "length", {"tokens": 9}, "too_short"),
        ({"max_tokens": 30}, "length", {"tokens": 31}, "too_long"),
        ({"format": "think"}, "format", {"completion": "a <answer>2</answer> </think>"}, "not_think"),
        (
            {"format": "think"},
            "format",
            {"completion": "a </think> </think> <answer>2</answer>"},
            "not_think",
        ),
        (
            {"format": "think_answer"},
            "format",
            {"completion": "a </think> so <answer>2</answer>"},
            "not_think_answer",
        ),
        (
            {"code_blocks": False},
            "layout",
            {"completion": "```x``` </think> <answer>2</answer>"},
            "code_block",
        ),
        (
            {"max_paragraph_words": 9},
            "layout",
            {"completion": "a\n\n" + "b " * 10 + "</think> <answer>2</answer>"},
            "long_paragraph",
        ),
        (
            {"language": "en"},
            "language",
            {"completion": "第一步我们计算 one and one </think> <answer>2</answer>"},
            "mixed_language",
        ),
        (
            {"language": "main"},
            "language",
            {"completion": "第一步我们计算这个 the sum of one and one is"},
            "mixed_language",
        ),
        ({"max_repetition": 0.2}, "repetition", {"completion": "so one and one is two " * 10}, "repetitive"),
    ],
)
def test_each_filter_removes_what_it_is_for(
    tmp_path: Path, filters: Any, name: str, values: dict[str, Any], reason: str
) -> None:
    """One row that the filter must remove, and one that it must keep."""
    sources = [{"path": str(tmp_path / "rows.jsonl"), "skip": ["grade"]}]
    report = select(
        tmp_path, [row(1, **values), row(2)], sources=sources, filters={"finish_reasons": ["eos"], **filters}
    )
    assert [one["id"] for one in lines(tmp_path)] == ["p2"]
    assert step(report, name)["reasons"] == {reason: 1}


def test_rows_that_do_not_say_their_length_pass_and_are_told(tmp_path: Path) -> None:
    bare = {key: value for key, value in row(1).items() if key not in ("tokens", "finish_reason")}
    report = select(tmp_path, [bare, row(2)], filters={"max_tokens": 30})
    assert len(lines(tmp_path)) == 2 and report["notes"] == [
        "1 rows do not say their tokens, so their length was not looked at."
    ]


def test_duplicates(tmp_path: Path) -> None:
    long = (
        "First I look at the two numbers, then I add them one after the other, and in the end I check the "
        "sum once more. "
    )
    tail = "</think> <answer>2</answer>"
    rows = [
        # exact but for white space
        row(1, completion=long + tail), row(1, completion=long.replace("  ", " ") + "  " + tail),
        row(1, completion=long.replace("in the end", "at the end") + tail),  # near
        row(1, completion="One and one. " + tail),
        row(2, completion=long + "</think> <answer>4</answer>"),  # another problem
    ]  # fmt: skip
    report = select(tmp_path, rows, duplicates={"near_completions": 0.6})
    assert step(report, "exact_duplicates")["reasons"] == {"same_text": 1}
    near = step(report, "near_duplicate_completions")
    assert near["reasons"] == {"like an earlier one": 1}
    assert near["examples"][0]["reason"].endswith("rows.jsonl, line 1") and near["examples"][0][
        "where"
    ].endswith("line 3")
    assert [one["id"] for one in lines(tmp_path)] == ["p1", "p1", "p2"]


def test_near_duplicate_problems_need_the_same_numbers(tmp_path: Path) -> None:
    text = (
        "A farmer has {} cows and buys 12 more of them at the market in the town; how many cows does the "
        "farmer have now?"
    )
    asked = [text.format(5), text.format(5).replace("in the town", "of the town"), text.format(6)]
    rows = [
        row(8, problem=problem, answer="17", completion="</think> <answer>17</answer>") for problem in asked
    ]
    report = select(tmp_path, rows, duplicates={"near_problems": 0.7})
    assert [one["problem"] for one in lines(tmp_path)] == [asked[0], asked[2]]
    assert step(report, "near_duplicate_problems")["reasons"] == {"like an earlier one": 1}


@pytest.mark.parametrize(("prefer", "kept"), [("shortest", [0, 1]), ("longest", [2, 3]), ("first", [0, 1])])
def test_per_problem(tmp_path: Path, prefer: str, kept: list[int]) -> None:
    select(tmp_path, [row(1, sample=g) for g in range(4)] + [row(2)], per_problem=2, prefer=prefer)
    assert [(one["id"], one["sample"]) for one in lines(tmp_path)] == [*(("p1", g) for g in kept), ("p2", 0)]


def test_random_choices_depend_on_the_seed_alone(tmp_path: Path) -> None:
    rows = [row(number, sample=g) for number in range(1, 9) for g in range(4)]
    chosen = []
    for seed in (0, 0, 1):
        select(tmp_path, rows, per_problem=1, seed=seed)
        chosen.append([one["sample"] for one in lines(tmp_path)])
    assert chosen[0] == chosen[1] != chosen[2]
    assert [len(one) for one in chosen] == [8, 8, 8] and len(set(chosen[0])) > 1
    capped = select(tmp_path, rows, sources=[{"path": str(tmp_path / "rows.jsonl"), "cap": 5}])
    assert step(capped, "cap")["reasons"] == {"over_cap": 27} and len(lines(tmp_path)) == 5
    select(tmp_path, rows[::-1], sources=[{"path": str(tmp_path / "rows.jsonl"), "cap": 5}])
    assert len(lines(tmp_path)) == 5


def test_pass_rates_bands_and_curriculum(tmp_path: Path) -> None:
    """Problem n is right in n of 4 samples; one more sample of each can't be decided and does not count."""
    rows = [row(number, right=g < number, sample=g) for number in (2, 4, 1, 3) for g in range(4)] + [
        row(9, right=False)
    ]
    settings = {
        "difficulty": {"min_pass_rate": 0.25, "max_pass_rate": 0.75},
        "order": "easy_first",
        "duplicates": {"exact": False},
    }
    report = select(tmp_path, rows, **settings)
    assert [(one["id"], one["pass_rate"]) for one in lines(tmp_path)] == [("p3", 0.75)] * 3 + [
        ("p2", 0.5)
    ] * 2 + [("p1", 0.25)]
    assert [(one["id"], one["pass_rate"], one["num_graded"]) for one in lines(tmp_path, "problems")] == [
        ("p3", 0.75, 4), ("p2", 0.5, 4), ("p1", 0.25, 4),
    ]  # fmt: skip
    assert step(report, "difficulty")["reasons"] == {"too_easy": 4, "too_hard": 1}
    assert report["problems"]["by_pass_rate"] == {"never": 1, "0.2": 1, "0.5": 1, "0.7": 1, "always": 1}
    select(tmp_path, rows, order="hard_first")
    assert [one["pass_rate"] for one in lines(tmp_path)] == sorted(
        one["pass_rate"] for one in lines(tmp_path)
    )


def test_problems_can_be_trained_on(tmp_path: Path) -> None:
    """The file problems.jsonl is a data source of r1rl grpo, without the columns of completions."""
    from r1rl.config.schema import DataConfig
    from r1rl.data import read_problems

    select(
        tmp_path,
        [row(1, level=3, prompt="User: ...", model="m", source_id="x"), row(2, right=False, level=4)],
    )
    (first, second) = read_problems(DataConfig(source=str(tmp_path / "runs/s/problems.jsonl")), 0).problems
    assert (first.id, first.problem, first.answer) == ("p1", "What is 1+1?", "2")
    assert (
        first.columns == {"level": 3, "pass_rate": 1.0, "num_graded": 1}
        and second.columns["pass_rate"] == 0.0
    )


def test_a_rewritten_answer_is_graded_again(tmp_path: Path) -> None:
    """The row is as r1rl generate writes it: the old text in source_completion, the old outcome in a column
    that is replaced.
    """
    rows = [
        row(
            1,
            completion="Nicely said. </think> <answer>2</answer>",
            source_completion="ugly",
            outcome="correct",
            pass_rate=1.0,
        ),
        row(
            2,
            completion="Nicely said. </think> <answer>5</answer>",
            source_completion="ugly",
            outcome="correct",
            pass_rate=1.0,
        ),
    ]
    report = select(tmp_path, rows)
    assert [(one["id"], one["outcome"]) for one in lines(tmp_path)] == [("p1", "correct")]
    assert step(report, "correct")["reasons"] == {"wrong": 1}


def test_bad_rows_are_counted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(1), {"problem": "x"}, row(2, completion=["a"]), row(3, answer={"a": 1}), row(4, answer=8.0)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    path.write_text(path.read_text(encoding="utf-8") + "{broken\n", encoding="utf-8")
    recipe = {"run_name": "s", "output_dir": str(tmp_path / "runs"), "sources": [{"path": str(path)}]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert cli.main(["select", str(tmp_path / "r.yaml")]) == 0
    report = json.loads((tmp_path / "runs/s/report.json").read_text(encoding="utf-8"))
    assert report["sources"]["rows"]["unusable"] == {"missing_value": 1, "not_text": 2, "not_json": 1}
    assert [one["id"] for one in lines(tmp_path)] == ["p1", "p4"]
    assert "rows.jsonl, line 2: no value in column 'completion'" in capsys.readouterr().out


def test_the_same_input_gives_the_same_files_and_a_page_to_read(tmp_path: Path) -> None:
    rows = [row(number, right=number % 3 > 0, sample=g) for number in range(1, 7) for g in range(2)]
    written = []
    for _ in range(2):
        select(tmp_path, rows, per_problem=1)
        names = ("selected.jsonl", "problems.jsonl", "report.json", "report.md")
        written.append([(tmp_path / f"runs/s/{name}").read_bytes() for name in names])
    assert written[0] == written[1]
    page = written[0][3].decode()
    assert "| correct | graded as right by accuracy | 12 | 8 | wrong 4 |" in page
    assert "## Removed by correct" in page and page.count("**wrong**") == 3
    assert ">     What is 3+3?" in page


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sources": []}, "sources is empty"),
        ({"sources": [{"path": "a.jsonl"}, {"path": "b/a.jsonl"}]}, "two sources are called a"),
        (
            {"sources": [{"path": "a.jsonl", "skip": ["formats"]}]},
            "sources.0.skip names formats; it may name grade, ",
        ),
        ({"sources": [{"path": "a.jsonl", "skip": ["grade"]}], "order": "easy_first"}, "no source is graded"),
        (
            {"difficulty": {"min_pass_rate": 0.5, "max_pass_rate": 0.4}},
            "difficulty.min_pass_rate is 0.5, more than",
        ),
        (
            {"filters": {"min_tokens": 5, "max_tokens": 4}},
            "filters.min_tokens is 5, more than filters.max_tokens (4)",
        ),
        ({"filters": {"language": "klingon"}}, "filters.language is klingon"),
        ({"grade": {"function": "acuracy"}}, "Did you mean accuracy?"),
        ({"grade": {"function": "code_execution"}}, "code_execution"),
        ({"sources": [{"path": "nowhere.jsonl"}]}, "there is no file nowhere.jsonl"),
        ({"filters": {"min_tokens": 999}}, "no row is left of 1; length removed the most ({'too_short': 1})"),
    ],
)
def test_what_can_not_work_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: Any, sentence: str
) -> None:
    select(tmp_path, [row(1)], code=2, **settings)
    assert sentence in capsys.readouterr().err


def test_a_folder_of_another_command_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs/s").mkdir(parents=True)
    (tmp_path / "runs/s/config.yaml").write_text("run_name: s\nsources: 3\n", encoding="utf-8")
    select(tmp_path, [row(1)], code=2)
    assert "was not made by r1rl select" in capsys.readouterr().err
