"""Rows to imitate: the forms that a data set may have, what is left out and why, what is refused at once."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from r1rl.config.rows import DemonstrationsConfig
from r1rl.data.demonstrations import Demonstration, read_demonstrations
from r1rl.errors import DataError

GENERATED = {
    "id": "7",
    "answer": "4",
    "prompt": "Q: 2+2 A:",
    "finish_reason": "eos",
    "tokens": 3,
    "sample": 0,
    "seed": 1,
    "model": "m",
}
"""The columns that `r1rl generate` writes beside problem, prefill and completion."""


def written(folder: Path, rows: list[Any], **settings: Any) -> DemonstrationsConfig:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DemonstrationsConfig(source=str(path), **settings)


def texts(found: list[Demonstration]) -> list[tuple[str | None, str | None, str]]:
    return [(one.problem, one.prompt, one.text) for one in found]


def test_generated_rows_give_problem_and_prefill_with_completion(tmp_path: Path) -> None:
    row = {**GENERATED, "problem": " 2+2 ", "prefill": "<think>", "completion": " 4 </think> "}
    loaded = read_demonstrations(written(tmp_path, [row, {**row, "prefill": ""}, {**row, "prefill": None}]))
    # The problem is stripped, as it is for RL; the text keeps its white space. The prompt of the file is not
    # used: the template is ours.
    assert texts(loaded.demonstrations) == [
        ("2+2", None, "<think> 4 </think> "),
        *[("2+2", None, " 4 </think> ")] * 2,
    ]
    assert loaded.notes == [] and loaded.bad == []
    assert loaded.demonstrations[1].place == "line 2"


def test_rendered_prompts_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [{"prompt": " Q: 2+2 A:", "completion": "4", "prefill": "ignored: a part of the prompt"}]
    loaded = read_demonstrations(written(tmp_path, rows))
    assert texts(loaded.demonstrations) == [(None, " Q: 2+2 A:", "4")]
    assert "column 'prompt' is taken as the whole prompt" in loaded.notes[0]
    mapped = read_demonstrations(written(tmp_path, rows, columns={"problem": "prompt"}))
    assert texts(mapped.demonstrations) == [("Q: 2+2 A:", None, "ignored: a part of the prompt4")]
    both = [{"problem": "2+2", "prompt": "Q: 2+2 A:", "completion": "4"}]
    chosen = read_demonstrations(written(tmp_path, both, columns={"prompt": "prompt"}))
    assert texts(chosen.demonstrations) == [(None, "Q: 2+2 A:", "4")]


def test_conversations_of_one_turn(tmp_path: Path) -> None:
    user, assistant = (
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": "<think>x</think> 4"},
    )
    rows = [
        {"problem": "other", "messages": [user, assistant]},
        {"problem": "other", "messages": [{"role": "system", "content": "s"}, user, assistant]},
        {"problem": "other", "messages": [user, assistant, user]},
        {"problem": "other", "messages": "text"},
        {"problem": "other", "messages": [user, {"role": "assistant", "content": " "}]},
    ]
    loaded = read_demonstrations(written(tmp_path, rows))
    assert texts(loaded.demonstrations) == [("2+2", None, "<think>x</think> 4")] * 2
    assert Counter(row.fault for row in loaded.bad) == {"not_one_turn": 2, "missing_value": 1}
    assert "the turns are user, assistant, user" in loaded.bad[0].detail


def test_bad_rows_are_counted_by_fault_and_the_others_stay(tmp_path: Path) -> None:
    good = {"problem": "2+2", "completion": "4"}
    rows = [
        good,
        {**good, "completion": "  "},
        {**good, "completion": 4},
        {**good, "problem": None},
        {**good, "finish_reason": "length"},
        {**good, "prefill": 3},
        ["no object"],
    ]
    loaded = read_demonstrations(written(tmp_path, rows))
    assert len(loaded.demonstrations) == 1
    assert Counter(row.fault for row in loaded.bad) == {
        "missing_value": 2,
        "not_text": 2,
        "truncated": 1,
        "not_an_object": 1,
    }


def test_where_limit_and_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [["1+1", "2", "1"], ["2+2", "4", "3"], ["3+3", "6", "3"], ["4+4", "8", "3"]]
        csv.writer(file).writerows([["question", "text", "level"], *rows])
    data = DemonstrationsConfig(source=str(path), columns={"completion": "text"}, where={"level": 3}, limit=2)
    loaded = read_demonstrations(data)
    assert texts(loaded.demonstrations) == [("2+2", None, "4"), ("3+3", None, "6")]
    assert loaded.notes == [f"{path}: column 'question' is the problem."]


@pytest.mark.parametrize(
    ("row", "settings", "sentence"),
    [
        (
            {"problem": "a"},
            {},
            r"has no column named completion \(or messages\)\. It has: problem\. Say which",
        ),
        ({"completion": "a"}, {}, r"has no column named problem \(or prompt\)\. It has: completion\."),
        (
            {"problem": "a", "completion": "b"},
            {"columns": {"completion": "text"}},
            r"data\.columns\.completion: .* has no column 'text'",
        ),
        (
            {"problem": "a", "completion": "b"},
            {"columns": {"answer": "problem"}},
            r"data\.columns\.answer: a demonstration has no such",
        ),
        (
            {"problem": "a", "completion": "b"},
            {"where": {"level": 3}},
            r"data\.where: .* has no column 'level'",
        ),
        (
            {"problem": "a", "completion": "b"},
            {"where": {"problem": "c"}},
            r"has no rows with \{'problem': 'c'\}\.",
        ),
        (
            {"problem": "a", "completion": ""},
            {},
            r"no demonstration is left\. .*1 row skipped \(missing_value\): line 1: no value",
        ),
        ([], {}, r"no demonstration is left\. .*1 row skipped \(not_an_object\)"),
    ],
)
def test_what_can_not_work_is_said_at_once(
    tmp_path: Path, row: Any, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        read_demonstrations(written(tmp_path, [row], **settings))
