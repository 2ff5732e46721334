"""Loading problems: every kind of source, columns, answers, bad rows; the order of a run."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from r1rl.config.schema import DataConfig, SourceConfig
from r1rl.data import PromptOrder, column_names, load_problems, read_problems
from r1rl.data.columns import extract_answer
from r1rl.data.rows import TableRow, read_table
from r1rl.errors import DataError

ROWS = [
    {"question": "1 + 1?", "solution": "One and one. #### 2", "level": 1},
    {"question": "2 + 2?", "solution": "Two and two. #### 4", "level": 3},
    {"question": "1000 + 500?", "solution": "#### 1,500", "level": 5},
]
MAPPING = {"problem": "question", "answer": "solution"}


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def config(source: Path | str, **settings: Any) -> DataConfig:
    return DataConfig(source=str(source), **settings)


def message(data: DataConfig) -> str:
    with pytest.raises(DataError) as error:
        load_problems(data, seed=0)
    return str(error.value)


def test_jsonl_with_mapping(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    problems = load_problems(config(path, columns=MAPPING, answer_format="after_hashes"), seed=0)
    assert [(p.problem, p.answer) for p in problems] == [
        ("1 + 1?", "2"),
        ("2 + 2?", "4"),
        ("1000 + 500?", "1500"),
    ]
    # the row's own columns stay, for the rewards: also the one that the answer was taken from
    assert problems[1].columns == {"question": "2 + 2?", "solution": "Two and two. #### 4", "level": 3}
    assert column_names(problems) == {"problem", "answer", "question", "solution", "level"}


def test_all_local_formats_give_the_same_problems(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"problem": 'a, "b"\nc', "answer": "4"}, {"problem": "d é", "answer": "5"}]
    paths = [tmp_path / f"data.{suffix}" for suffix in ("jsonl", "json", "csv", "parquet")]
    write_jsonl(paths[0], rows)
    paths[1].write_text(json.dumps(rows))
    with paths[2].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["problem", "answer"])
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths[3])
    loaded = [load_problems(config(path), seed=0) for path in paths]
    assert [(p.problem, p.answer) for p in loaded[0]] == [('a, "b"\nc', "4"), ("d é", "5")]
    assert [p.place for p in loaded[0]] == [f"{paths[0]}, line 1", f"{paths[0]}, line 2"]
    without_place = [[dataclasses.replace(p, place="") for p in problems] for problems in loaded]
    assert all(problems == without_place[0] for problems in without_place)


def test_usual_names_are_guessed_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "1 + 1", "target": 2}])
    with caplog.at_level(logging.INFO):
        (problem,) = load_problems(config(path), seed=0)
    assert (problem.problem, problem.answer) == ("1 + 1", "2")
    assert f"{path}: column 'prompt' is taken as the problem" in caplog.text
    assert f"{path}: column 'target' is taken as the answer" in caplog.text


def test_our_own_names_come_first_and_need_no_report(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"problem": "p", "question": "q", "answer": "a", "solution": "s"}]
    )
    loaded = read_problems(config(path), seed=0)
    assert (loaded.problems[0].problem, loaded.problems[0].answer, loaded.notes) == ("p", "a", [])


def test_columns_without_an_answer_are_reported(tmp_path: Path) -> None:
    loaded = read_problems(
        config(write_jsonl(tmp_path / "a.jsonl", [{"problem": "p", "Answer": "a"}])), seed=0
    )
    assert loaded.problems[0].answer is None
    assert "no column named answer or solution or target" in loaded.notes[0]
    assert column_names(loaded.problems) == {"problem", "Answer"}


def test_further_columns_are_renamed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"problem": "p", "answer": 7.0, "nums": [1, 2], "uid": 12}])
    (problem,) = load_problems(config(path, columns={"numbers": "nums", "id": "uid"}), seed=0)
    assert (problem.id, problem.answer) == ("12", "7")
    assert problem.columns == {"nums": [1, 2], "numbers": [1, 2]}


def test_bad_rows_are_skipped_counted_and_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    good = b'{"problem": "p", "answer": "1"}\n'
    path.write_bytes(
        good + b'{"problem": "p2", "ans\n\n[1, 2]\n{"problem": null, "answer": "1"}\n{"answer": '
        b'"1"}\n{"problem": "p3", "answer": ""}\n'
        + b'{"problem": ["a", "b"], "answer": "1"}\n{"problem": "\xff", "answer": "1"}\n'
        + good
    )
    loaded = read_problems(config(path), seed=0)
    assert [p.problem for p in loaded.problems] == ["p", "p"]
    assert loaded.skipped == Counter(missing_value=3, not_json=1, not_an_object=1, not_text=1, not_utf8=1)
    shown = "\n".join(loaded.warnings)
    assert (
        f"{path}: 1 row skipped (not_json): line 2: Unterminated string starting at (character 18)" in shown
    )
    assert "(not_an_object): line 4: a list instead of an object" in shown
    # line 3 is empty, which is no fault but counts as a line
    assert (
        "3 rows skipped (missing_value): line 5: no value in column 'problem'; line 6: no value in column "
        "'problem'; line 7:" in shown
    )
    assert "(not_text): line 8: column 'problem' holds a list, not text" in shown
    assert "(not_utf8): line 9: byte 13 is not UTF-8" in shown
    load_problems(config(path), seed=0)
    assert "(not_json): line 2" in caplog.text


def test_bad_csv_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'\xef\xbb\xbfproblem,answer\n"1 + 1",2\nonly one field\n"two\nlines",3\nx,y,z\n\xff,4\n,5\n'
    )
    loaded = read_problems(config(path), seed=0)
    assert [(p.problem, p.answer) for p in loaded.problems] == [("1 + 1", "2"), ("two\nlines", "3")]
    assert loaded.skipped == Counter(not_csv=2, not_utf8=1, missing_value=1)
    assert "line 3: 1 fields, 2 in the header; line 6: 3 fields" in " ".join(loaded.warnings)


def test_one_enormous_csv_field_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"problem,answer\nx,1\n{'y' * (csv.field_size_limit() + 1)},2\nz,3\n")
    loaded = read_problems(config(path), seed=0)
    assert [p.problem for p in loaded.problems] == ["x", "z"]
    assert loaded.skipped == Counter(not_csv=1)


def test_answer_formats() -> None:
    assert extract_answer("We get \\boxed{1} and then \\boxed{\\frac{1}{2}}.", "boxed") == "\\frac{1}{2}"
    assert extract_answer("no box", "boxed") is None
    assert extract_answer("#### 1\n#### -1,234,567 ", "after_hashes") == "-1234567"
    assert extract_answer("#### (1, 2)", "after_hashes") == "(1, 2)"
    assert extract_answer("72", "after_hashes") is None
    assert extract_answer("\\boxed{3}", "plain") == "\\boxed{3}"


def test_rows_without_the_answer_format_are_counted(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [{"problem": "p", "solution": "so \\boxed{3}"}, {"problem": "q", "solution": "so 3"}],
    )
    loaded = read_problems(config(path, answer_format="boxed"), seed=0)
    assert ([p.answer for p in loaded.problems], loaded.skipped) == (["3"], Counter(no_answer_found=1))


@pytest.mark.parametrize(
    ("answer", "answer_format"), [("so \\boxed{3}", "boxed"), ("so\n#### 3", "after_hashes")]
)
def test_whole_solutions_as_answers_are_warned_about(tmp_path: Path, answer: str, answer_format: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"problem": "p", "solution": answer}])
    (warning,) = read_problems(config(path), seed=0).warnings
    assert "look like whole solutions" in warning and f"data.answer_format: {answer_format}" in warning
    assert read_problems(config(path, answer_format=answer_format), seed=0).warnings == []


def test_where_and_limit(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    chosen = load_problems(config(path, where={"level": [3, 5]}), seed=0)
    assert [p.columns["level"] for p in chosen] == [3, 5]
    assert [
        p.columns["level"] for p in load_problems(config(path, where={"level": [3, 5]}, limit=1), seed=0)
    ] == [3]
    assert len(load_problems(config(path, where={"level": "3"}), seed=0)) == 1  # as text, for csv files
    assert "level is '1', '3', '5'" in message(config(path, where={"level": 4}))


def test_ids_belong_to_the_content(tmp_path: Path) -> None:
    first = load_problems(config(write_jsonl(tmp_path / "a.jsonl", ROWS), columns=MAPPING), seed=0)
    again = load_problems(
        config(write_jsonl(tmp_path / "b.jsonl", [ROWS[2], ROWS[0], ROWS[0]]), columns=MAPPING), seed=0
    )
    assert [p.id for p in again] == [first[2].id, first[0].id, f"{first[0].id}-2"]
    assert len({p.id for p in first}) == 3


def test_missing_columns_name_what_exists(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "p", "label": "1"}])
    assert message(config(path, columns={"problem": "question"})) == (
        f"data.columns.problem: {path} has no column 'question'. It has: text, label."
    )
    assert message(config(path)) == (
        f"{path} has no column named problem or question or prompt. It has: text, label. "
        "Say which one is the problem, in data: columns: {problem: ...}."
    )
    assert "data.where" in message(config(path, columns={"problem": "text"}, where={"level": 3}))
    with pytest.raises(DataError, match=r"evaluation\.data\.columns\.problem"):
        load_problems(config(path, columns={"problem": "question"}), 0, section="evaluation.data")


def test_unreadable_files(tmp_path: Path) -> None:
    assert f"there is no file {tmp_path / 'none.jsonl'}" in message(config(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    assert message(config(tmp_path / "empty.jsonl")) == f"{tmp_path / 'empty.jsonl'} has no rows."
    (tmp_path / "header.csv").write_text("problem,answer\n")
    assert "has no rows" in message(config(tmp_path / "header.csv"))
    (tmp_path / "broken.json").write_text('{"problem": 1}\n{"problem": 2}')
    assert "name it .jsonl" in message(config(tmp_path / "broken.json"))
    (tmp_path / "object.json").write_text("{}")
    assert "holds an object, not a list" in message(config(tmp_path / "object.json"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    assert "not a parquet file" in message(config(tmp_path / "broken.parquet"))
    (tmp_path / "utf16.csv").write_text("problem,answer\n1,2\n", encoding="utf-16")
    assert message(config(tmp_path / "utf16.csv")).endswith(
        "utf16.csv: the header has bytes that are not UTF-8: save the file as UTF-8."
    )
    (tmp_path / "folder.jsonl").mkdir()
    assert "can't be read" in message(config(tmp_path / "folder.jsonl"))
    bad = write_jsonl(tmp_path / "bad.jsonl", ["{", "["])
    assert "no row is left" in message(config(bad)) and "line 1" in message(config(bad))


def test_what_is_no_hub_name_is_refused_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*arguments: Any, **settings: Any) -> None:
        pytest.fail("the hub was asked")

    monkeypatch.setattr("datasets.load_dataset", reached)
    (tmp_path / "problems.tsv").write_text("problem\tanswer\n")
    assert message(config(tmp_path / "problems.tsv")) == (
        f"data.source: {tmp_path / 'problems.tsv'} is a file of a kind that r1rl does not read; its name "
        f"must end in "
        ".jsonl, .json, .csv, .parquet."
    )
    assert message(config("./nowhere")).startswith(
        "data.source: there is no file or folder nowhere (looked in "
    )
    assert (
        message(config("arithmatic"))
        == "data.source: there is no generator arithmatic; did you mean arithmetic?"
    )


def test_settings_without_effect_are_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert "data.split is 'test'" in message(config(path, split="test"))
    assert "data.subset" in message(config(path, subset="main"))
    assert "data.arguments" in message(config(path, arguments={"count": 3}))
    assert "data.columns" in message(config("arithmetic", columns={"problem": "question"}))
    assert "data.answer_format" in message(config("arithmetic", answer_format="boxed"))


def test_generators() -> None:
    data = config("countdown", arguments={"count": 6}, limit=5)
    problems = load_problems(data, seed=3)
    assert problems == load_problems(data, seed=3)
    assert len(problems) == 5
    assert problems != load_problems(data, seed=4)
    assert {"numbers", "target"} <= column_names(problems)
    held_out = load_problems(config("countdown", arguments={"count": 6}, split="test"), seed=3)
    assert not {p.problem for p in problems} & {p.problem for p in held_out}


class FakeHub:
    """A stand-in for the `datasets` package, which records how it was called."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.calls: list[tuple[Any, ...]] = []

    def load_dataset(self, path: str, name: str | None, split: str, revision: str | None) -> Any:
        self.calls.append((path, name, split, revision))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_hub_names_go_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    hub = FakeHub(datasets.Dataset.from_list(ROWS))
    monkeypatch.setitem(sys.modules, "datasets", hub)
    data = config(
        "openai/gsm8k",
        subset="main",
        split="test",
        revision="abc",
        columns=MAPPING,
        answer_format="after_hashes",
        limit=2,
    )
    assert [p.answer for p in load_problems(data, seed=0)] == ["2", "4"]
    assert hub.calls == [("openai/gsm8k", "main", "test", "abc")]


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (ValueError("BuilderConfig 'x' not found. Available: ['main', 'socratic']"), "data.subset"),
        (ValueError('Unknown split "dev". Should be one of ["train", "test"].'), "data.split"),
        (FileNotFoundError("Couldn't find any data"), "data.source"),
    ],
)
def test_hub_errors_are_one_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception, key: str) -> None:
    monkeypatch.setitem(sys.modules, "datasets", FakeHub(error))
    sentence = message(config("someone/set", subset="x"))
    assert sentence.startswith(
        f"{key}: the data set 'someone/set' (subset x, split train) can't be loaded: {type(error).__name__}: "
    )
    assert f"{str(error).rstrip('.')}. A source is" in sentence


def test_order_visits_every_prompt_once_an_epoch() -> None:
    order = PromptOrder(10, seed=1, shuffle=True)
    first, second = order.take(10), order.take(10)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second and first != list(range(10))
    assert order.epoch == 2.0
    assert PromptOrder(10, seed=2, shuffle=True).take(10) != first
    assert PromptOrder(3, seed=2, shuffle=False).take(7) == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("stopped_at", [0, 3, 7, 14, 20])
def test_order_goes_on_where_it_stopped(stopped_at: int) -> None:
    whole = PromptOrder(7, seed=5, shuffle=True).take(40)
    order = PromptOrder(7, seed=5, shuffle=True)
    order.take(stopped_at)
    resumed = PromptOrder(7, seed=5, shuffle=True)
    resumed.load_state_dict(json.loads(json.dumps(order.state_dict())))
    taken = [index for size in (1, 4, 9) for index in resumed.take(size)]
    assert taken == whole[stopped_at : stopped_at + 14]


def test_order_is_pinned() -> None:
    # A checkpoint of today must be resumable by tomorrow's version: this order may never change.
    assert PromptOrder(8, seed=0, shuffle=True).take(8) == [7, 0, 6, 5, 1, 4, 2, 3]


def test_order_refuses_other_data() -> None:
    state = PromptOrder(7, seed=5, shuffle=True).state_dict()
    with pytest.raises(DataError, match="num_prompts was 7 and is 8 now"):
        PromptOrder(8, seed=5, shuffle=True).load_state_dict(state)
    with pytest.raises(DataError, match="seed was 5 and is 6 now"):
        PromptOrder(7, seed=6, shuffle=True).load_state_dict(state)


def test_sources_are_mixed_with_columns_of_their_own(tmp_path: Path) -> None:
    talk = write_jsonl(
        tmp_path / "talk.jsonl",
        [{"id": "a", "problem": f"Say {n}.", "kind": "talk"} for n in range(3)] + ["{"],
    )
    more = write_jsonl(tmp_path / "more.jsonl", [{"id": "a", "problem": "Say more."}])
    data = DataConfig(
        source="countdown",
        arguments={"count": 4},
        constants={"domain": "reasoning"},
        mix=[
            SourceConfig(source=str(talk), limit=2, constants={"domain": "helpfulness"}),
            SourceConfig(source="countdown", arguments={"count": 4}, constants={"domain": "more"}),
            SourceConfig(source=str(more)),
        ],
    )
    loaded = read_problems(data, seed=3)
    assert [problem.columns.get("domain") for problem in loaded.problems] == ["reasoning"] * 4 + [
        "helpfulness"
    ] * 2 + ["more"] * 4 + [None]
    assert [problem.problem for problem in loaded.problems[4:6]] == ["Say 0.", "Say 1."]
    assert loaded.problems[5].columns == {"kind": "talk", "domain": "helpfulness"}
    identities = [problem.id for problem in loaded.problems]
    assert len(set(identities)) == 11
    assert (identities[4], identities[-1]) == ("a", "a-3")
    # a generator named twice draws other problems, and the first source those that it draws alone
    first, second = ({problem.problem for problem in loaded.problems[a:b]} for a, b in ((0, 4), (6, 10)))
    assert first != second
    assert [
        p.id for p in load_problems(DataConfig(source="countdown", arguments={"count": 4}), seed=3)
    ] == identities[:4]
    assert column_names(loaded.problems) == {"problem", "answer", "numbers", "target", "domain", "kind"}


def test_rows_skipped_in_any_source_are_told(tmp_path: Path) -> None:
    paths = [write_jsonl(tmp_path / f"{name}.jsonl", [{"problem": "1", "answer": "1"}, "{"]) for name in "ab"]
    loaded = read_problems(DataConfig(source=str(paths[0]), mix=[SourceConfig(source=str(paths[1]))]), seed=0)
    assert loaded.skipped == {"not_json": 2}
    assert len(loaded.warnings) == 2


def test_mistakes_in_a_mixed_source_name_its_key(tmp_path: Path) -> None:
    rows = str(write_jsonl(tmp_path / "rows.jsonl", [{"problem": "1", "domain": "x"}]))
    cases = {
        "data.mix.0.constants.domain": SourceConfig(source=rows, constants={"domain": "y"}),
        "data.mix.0.constants.target": SourceConfig(source="countdown", constants={"target": 1}),
        "data.mix.0.where": SourceConfig(source=rows, where={"nothing": 1}),
        "data.mix.0.arguments": SourceConfig(source=rows, arguments={"count": 1}),
    }
    for key, source in cases.items():
        assert message(DataConfig(source="countdown", arguments={"count": 2}, mix=[source])).startswith(
            key
        ), key


def test_generator_as_a_table() -> None:
    """Commands that take rows as they are, such as r1rl select, read a generator's table."""
    source = SourceConfig(
        source="small_talk", split="test", arguments={"count": 5, "domains": ["helpfulness"]}
    )
    table = read_table(source)
    assert table.columns == ["problem", "domain", "chosen", "rejected"]
    rows = list(table.rows)
    assert len(rows) == 5
    assert all(isinstance(row, TableRow) and row.values["domain"] == "helpfulness" for row in rows)
    assert rows == list(read_table(source).rows)
    assert read_table(SourceConfig(source="countdown")).columns == ["problem", "answer", "numbers", "target"]
