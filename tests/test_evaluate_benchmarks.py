"""The table of benchmarks: what is in it, local files, multiple choice, own benchmarks, the contamination
probe.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_helpers import load

from r1rl.config.benchmarks import BenchmarkConfig
from r1rl.config.schema import DataConfig
from r1rl.data.benchmarks import BENCHMARKS, contamination_probe, load_benchmark
from r1rl.data.rows import read_table
from r1rl.errors import DataError, RecipeError
from r1rl.evaluation.benchmarks import benchmarks_of

CHECKOUT = Path(__file__).resolve().parent.parent
SHARED = CHECKOUT.parent / "shared" / "data"
RECIPE = "run_name: e\nmodels: [{path: embedded}]\nbenchmarks: [gsm8k]\n"


def rows(path: Path, *values: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def test_every_benchmark_is_listed_in_the_docs() -> None:
    text = (CHECKOUT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for benchmark in BENCHMARKS.values():
        line = next(line for line in text.splitlines() if line.startswith(f"| `{benchmark.name}`"))
        assert (
            f"| {benchmark.num_samples} | {benchmark.max_completion_length} | {benchmark.version} |" in line
        )
        if benchmark.data.source not in ("countdown", "arithmetic", "word_problems"):
            assert benchmark.data.source in line
            assert (benchmark.data.revision or "not pinned")[:10] in line


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the benchmark files")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gsm8k", 1319),
        ("math500", 500),
        ("math", 5000),
        ("aime24", 30),
        ("aime25", 30),
        ("amc23", 40),
        ("minerva", 272),
        ("olympiadbench", 675),
        ("svamp", 1000),
    ],
)
def test_local_files_are_read_whole(name: str, count: int) -> None:
    loaded = load_benchmark(BENCHMARKS[name], str(SHARED), None, 0)
    assert len(loaded.problems) == count
    assert all(problem.answer for problem in loaded.problems)
    assert loaded.problems[0].problem.endswith("\\boxed{}.")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the benchmark files")
def test_math_has_levels_and_subjects() -> None:
    loaded = load_benchmark(BENCHMARKS["math"], str(SHARED), None, 0)
    assert {problem.columns["level"] for problem in loaded.problems} >= {
        f"Level {level}" for level in range(1, 6)
    }
    assert len({problem.columns["type"] for problem in loaded.problems}) == 7


def test_a_local_file_may_have_the_hubs_columns_or_ours(tmp_path: Path) -> None:
    rows(tmp_path / "gsm8k_test.jsonl", {"question": "1+1?", "answer": "It is 2.\n#### 2"})
    hub = load_benchmark(BENCHMARKS["gsm8k"], str(tmp_path), None, 0).problems[0]
    rows(tmp_path / "gsm8k_test.jsonl", {"problem": "1+1?", "answer": "2"})
    ours = load_benchmark(BENCHMARKS["gsm8k"], str(tmp_path), None, 0).problems[0]
    assert (
        (hub.problem, hub.answer)
        == (ours.problem, ours.answer)
        == (BENCHMARKS["gsm8k"].question.replace("{problem}", "1+1?"), "2")
    )


def test_a_local_file_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"local_dir: there is no folder .*nowhere \(looked in"):
        load_benchmark(BENCHMARKS["gsm8k"], str(tmp_path / "nowhere"), None, 0)
    offline = (
        "data set 'openai/gsm8k'.* can't be loaded.*Without the hub: put the file gsm8k_test.jsonl into a "
        "folder and name that"
    )
    with monkeypatch.context() as patch:
        patch.setattr("r1rl.data.rows._read_hub", lambda data, section: refuse(data))
        with pytest.raises(DataError, match=offline):
            load_benchmark(BENCHMARKS["gsm8k"], str(tmp_path), None, 0)
    rows(tmp_path / "hub.jsonl", {"question": "1+1?", "answer": "#### 2"})
    monkeypatch.setattr(
        "r1rl.data.rows._read_hub",
        lambda data, section: read_table(DataConfig(source=str(tmp_path / "hub.jsonl"))),
    )
    found = load_benchmark(BENCHMARKS["gsm8k"], str(tmp_path), None, 0)
    assert (
        found.notes[0]
        == f"benchmark gsm8k: {tmp_path / 'gsm8k_test.jsonl'} is not there, so openai/gsm8k is read from "
        f"the hub."
    )
    assert found.problems[0].answer == "2"


def refuse(data: DataConfig) -> Any:
    raise DataError(f"data set {data.source!r} can't be loaded.")


def test_multiple_choice_is_lettered_by_the_problems_id(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "gpqa_diamond.jsonl",
        *(
            {"id": f"q{i}", "Question": "Which?", "Correct Answer": "right"}
            | {f"Incorrect Answer {j}": f"bad{j}" for j in (1, 2, 3)}
            for i in range(40)
        ),
    )
    config = BENCHMARKS["gpqa_diamond"]
    config = BenchmarkConfig(
        name="q",
        data=DataConfig(source=str(path), columns=config.data.columns),
        choices=config.choices,
        question="{problem}",
    )
    problems = load_benchmark(config, None, None, 0).problems
    for problem in problems:
        lines = problem.problem.splitlines()
        assert lines[0] == "Which?" and [line[:2] for line in lines[1:]] == ["A)", "B)", "C)", "D)"]
        assert sorted(line[3:] for line in lines[1:]) == ["bad1", "bad2", "bad3", "right"]
        assert f"{problem.answer}) right" in lines
    assert {problem.answer for problem in problems} == set("ABCD")
    assert load_benchmark(config, None, None, 0).problems == problems
    config = BenchmarkConfig(name="q", data=config.data, choices=["nothing"])
    with pytest.raises(DataError, match="problem q0 has no text in nothing"):
        load_benchmark(config, None, None, 0)


def test_num_problems_is_a_fixed_choice_in_order() -> None:
    whole = load_benchmark(BENCHMARKS["arithmetic"], None, None, 0).problems
    some = load_benchmark(BENCHMARKS["arithmetic"], None, 20, 0).problems
    assert len(some) == 20 and some == load_benchmark(BENCHMARKS["arithmetic"], None, 20, 0).problems
    places = [whole.index(problem) for problem in some]
    assert places == sorted(places) and places != list(range(20))


def test_fresh_problems_follow_their_seed() -> None:
    first, again, other = (
        load_benchmark(BENCHMARKS["fresh"], None, 8, seed).problems for seed in (20260101, 20260101, 20260102)
    )
    assert first == again != other


def test_five_lines_add_a_benchmark(tmp_path: Path) -> None:
    rows(tmp_path / "mine.jsonl", {"q": "What is 2+2?", "a": "4"})
    recipe = load(
        tmp_path / "r.yaml",
        RECIPE
        + "define:\n  - name: mine\n    data: {source: mine.jsonl, columns: {problem: q, answer: a}}\n    "
        "grading: lenient\n",
        "benchmarks=[mine]",
        command="evaluate",
    )
    (config,) = benchmarks_of(recipe)
    assert (config.name, config.grading, config.num_samples) == ("mine", "lenient", 4)
    assert load_benchmark(config, None, None, 0).problems[0].answer == "4"


def test_a_path_on_the_command_line_is_a_benchmark(tmp_path: Path) -> None:
    path = rows(tmp_path / "own.jsonl", {"problem": "What is 2+2?", "answer": "4"})
    names = f"benchmarks=[gsm8k, {path}, some/dataset]"
    recipe = load(
        tmp_path / "r.yaml", RECIPE, names, "num_samples=7", 'question="{problem}!"', command="evaluate"
    )
    gsm8k, own, hub = benchmarks_of(recipe)
    assert [gsm8k.num_samples, own.num_samples, hub.num_samples] == [7, 7, 7]
    assert (own.name, hub.name, hub.data.source, hub.data.split) == ("own", "dataset", "some/dataset", "test")
    assert load_benchmark(own, None, None, 0).problems[0].problem == "What is 2+2?!"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("benchmarks=[gsm9k]", "there is no benchmark gsm9k; did you mean gsm8k?"),
        ("benchmarks=[a/data, b/data]", "two of them are named data"),
    ],
)
def test_names_that_can_not_be(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        benchmarks_of(load(tmp_path / "r.yaml", RECIPE, override, command="evaluate"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: []", "models is empty"),
        ("sampling: {temperature: 0}", "all completions of a problem would be the same"),
        ("question: nothing", "question has no {problem}"),
        ("benchmarks: [gsm8k, gsm8k]", "benchmarks names gsm8k twice"),
        (
            "prompt: {template: chat, prefill: <think>}\nmodels: [{path: a, endpoint: {url: http://x}}]",
            "a server's chat interface",
        ),
        ("contamination_probe: 1", "below 1"),
        ("define: [{name: a/b, data: {source: x.jsonl}}]", "it names a folder"),
        (
            "define: [{name: a, data: {source: x.jsonl, max_prompt_tokens: 5}}]",
            "no problem of a benchmark or an evaluation is left out",
        ),
    ],
)
def test_contradictions(tmp_path: Path, text: str, sentence: str) -> None:
    keys = {line.partition(":")[0] for line in text.splitlines()}
    base = "".join(line + "\n" for line in RECIPE.splitlines() if line.partition(":")[0] not in keys)
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / "r.yaml", base + text + "\n", command="evaluate")
    assert sentence in str(caught.value)


def test_contamination_probe_cuts_the_problem(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "p.jsonl",
        {"id": "long", "problem": "a b c d e f g  h i j", "answer": "1"},
        {"problem": "a b c", "answer": "1"},
    )
    config = BenchmarkConfig(name="p", data=DataConfig(source=str(path)), question="Solve: {problem} Now.")
    (probe,) = contamination_probe(load_benchmark(config, None, None, 0), 0.6)
    (problem,) = probe.problems  # three words are too few
    assert (
        probe.notes == ["p: 1 of 2 problems have fewer than 10 words and are not probed."] and probe.is_probe
    )
    assert (problem.id, problem.problem, problem.answer) == ("long", "a b c d e f", "g h i j")
    assert (probe.config.grading, probe.config.num_samples, probe.config.max_completion_length) == (
        "continuation",
        1,
        32,
    )
    arithmetic = load_benchmark(BENCHMARKS["arithmetic"], None, 8, 0)
    assert contamination_probe(arithmetic, 0.6) == []
    assert arithmetic.notes == ["arithmetic: 8 of 8 problems have fewer than 10 words and are not probed."]
