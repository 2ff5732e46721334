"""The path from a benchmark's file to its score, proven with models whose score is known.

Small stand-ins for GSM8K, MATH-500 and AIME 2024 in the hub's columns ship with the tests; the real files and
the labelled outputs of real models lie beside the checkout, if at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluate_helpers import evaluate_scripted, serving, write_jsonl, write_recipe

from r1rl.cli import main as cli
from r1rl.evaluation.answering import sample_seed
from r1rl.grading import default_grader

STAND_INS = Path(__file__).resolve().parent / "data" / "benchmarks"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
FILES = {"math500": "math500.jsonl", "aime24": "aime24.jsonl", "gsm8k": "gsm8k_test.jsonl"}
PROOFS = [
    pytest.param(name, folder, id=f"{name}-{folder.parent.name}")
    for folder in (STAND_INS, SHARED)
    for name in FILES
]


@pytest.fixture(autouse=True)
def patient_grader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the grader more time: these tests are about verdicts, on machines that may be busy."""
    monkeypatch.setattr(default_grader(), "seconds", 30.0)


def rows_of(name: str, folder: Path) -> list[dict[str, str]]:
    """Return problem, solution and answer of a benchmark's file, read without r1rl."""
    if not folder.is_dir():
        pytest.skip("needs the benchmark files")
    rows = [json.loads(line) for line in (folder / FILES[name]).read_text(encoding="utf-8").splitlines()]
    if "question" in rows[0]:  # GSM8K as the hub has it
        halves = [(row["question"], *row["answer"].split("\n####")) for row in rows]
        rows = [
            {"problem": problem, "solution": solution, "answer": answer.strip()}
            for problem, solution, answer in halves
        ]
    return [{key: row[key].strip() for key in ("problem", "solution", "answer")} for row in rows]


def says(row: dict[str, str]) -> str:
    return f"{row['solution']}\nThe answer is \\boxed{{{row['answer']}}}."


@pytest.mark.parametrize(("name", "folder"), PROOFS)
def test_gold_solutions_score_100_percent(tmp_path: Path, name: str, folder: Path) -> None:
    rows = rows_of(name, folder)
    script = {row["problem"]: says(row) for row in rows}
    figures = evaluate_scripted(
        tmp_path, name, lambda path, body: script[body["prompt"]], "num_samples=1", f"local_dir={folder}"
    )
    assert figures["num_problems"] == len(rows)
    assert figures["outcomes"]["correct"] == len(rows)
    assert figures["accuracy"]["value"] == 1.0


@pytest.mark.parametrize(("name", "folder"), PROOFS)
def test_shuffled_solutions_score_0_percent(tmp_path: Path, name: str, folder: Path) -> None:
    rows = rows_of(name, folder)
    others = {}
    for place, row in enumerate(rows):
        turned = rows[place + 1 :] + rows[:place]
        # "x=5" is right where the gold answer is 5.
        others[row["problem"]] = next(
            other for other in turned if other["answer"] != row["answer"] and "=" not in other["answer"]
        )
    script = {problem: says(row) for problem, row in others.items()}
    figures = evaluate_scripted(
        tmp_path, name, lambda path, body: script[body["prompt"]], "num_samples=1", f"local_dir={folder}"
    )
    assert figures["outcomes"] == {**dict.fromkeys(figures["outcomes"], 0), "wrong": len(rows)}
    assert figures["accuracy"]["value"] == 0.0


@pytest.mark.parametrize("name", FILES)
def test_a_mixture_scores_its_shares(tmp_path: Path, name: str) -> None:
    """Each problem has four completions: a right one, a wrong one, one without an answer and one cut off
    inside it.
    """
    rows = rows_of(name, STAND_INS)
    endings = ["\\boxed{{{}}}.", "\\boxed{{-77}} instead of {}.", "I do not know.", "\\boxed{{{}"]
    words = {
        (
            row["problem"],
            sample_seed(0, name, identity, index) % 2**31,
        ): f"So it is {ending.format(row['answer'])}"
        for row, identity in zip(rows, identities(tmp_path, name), strict=True)
        for index, ending in enumerate(endings)
    }
    reply = lambda path, body: words[body["prompt"], body["seed"]]  # noqa: E731
    figures = evaluate_scripted(
        tmp_path, name, reply, "num_samples=4", f"local_dir={STAND_INS}", "run_name=proof"
    )
    assert {outcome: count for outcome, count in figures["outcomes"].items() if count} == dict.fromkeys(
        ("correct", "wrong", "no_answer", "malformed"), len(rows)
    )
    assert figures["accuracy"]["value"] == 0.25 and figures["pass_at_4"]["value"] == 1.0
    # One right vote, one wrong, two that do not vote: a draw, split evenly.
    assert figures["cons_at_4"]["value"] == 0.5


def identities(tmp_path: Path, name: str) -> list[str]:
    """Return the ids that r1rl gives to the problems, on which the seeds of the requests depend."""
    from r1rl.data.benchmarks import BENCHMARKS, load_benchmark

    return [problem.id for problem in load_benchmark(BENCHMARKS[name], str(STAND_INS), None, 0).problems]


def test_labelled_outputs_score_their_labels(tmp_path: Path) -> None:
    """The cases are 100 MATH problems with 8 real outputs each.

    Two problems' labels are wrong: 4:30 p.m. and 10{,}000 are the gold answers.
    """
    path = SHARED / "outputs_qwen_math100x8.jsonl"
    if not path.is_file():
        pytest.skip("needs the labelled outputs")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_problem.setdefault(row["id"].rpartition("-")[0], []).append(row)
    data = [
        {"id": identity, "problem": own[0]["problem"], "answer": own[0]["answer"]}
        for identity, own in by_problem.items()
    ]
    write_jsonl(tmp_path / "labelled.jsonl", data)
    # The seed of a request tells which of a problem's completions it asks for.
    script = {
        (own[0]["problem"].strip(), sample_seed(0, "labelled", identity, index) % 2**31): row["solution"]
        for identity, own in by_problem.items()
        for index, row in enumerate(own)
    }
    with serving(lambda path, body: script[body["prompt"], body["seed"]]) as server:
        recipe = write_recipe(tmp_path / "r.yaml", server.url, str(tmp_path / "labelled.jsonl"))
        assert cli.main(["evaluate", str(recipe), "num_samples=8"]) == 0
    result = json.loads((tmp_path / "runs/proof/scripted/labelled/result.json").read_text(encoding="utf-8"))
    graded = {row["id"]: round(8 * row["accuracy"]) for row in result["problems"]}
    labelled = {identity: sum(bool(row["qwen_score"]) for row in own) for identity, own in by_problem.items()}
    assert {identity for identity in graded if graded[identity] != labelled[identity]} == {
        "qwenmath100-3",
        "qwenmath100-72",
    }
    labelled |= {"qwenmath100-3": 8, "qwenmath100-72": labelled["qwenmath100-72"] + 1}
    assert graded == labelled
    assert result["figures"]["accuracy"]["value"] == pytest.approx(sum(labelled.values()) / 800)


def test_labelled_gsm8k_outputs_score_their_labels(tmp_path: Path) -> None:
    """Two real outputs for each of 1,319 problems, in the form "A: 34". No wrong one may pass; of the 1,028
    right ones, lenient reading takes the number elsewhere in three.
    """
    path = SHARED / "outputs_gsm8k_gpt3.jsonl"
    if not path.is_file():
        pytest.skip("needs the labelled outputs")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    write_jsonl(
        tmp_path / "labelled.jsonl",
        [{"id": row["id"], "problem": row["id"], "answer": row["answer"]} for row in rows],
    )
    script = {row["id"]: row["solution"] for row in rows}
    with serving(lambda path, body: script[body["prompt"]]) as server:
        define = "define: [{name: outputs, data: {source: labelled.jsonl}, grading: lenient}]\n"
        recipe = write_recipe(tmp_path / "r.yaml", server.url, "outputs", extra=define)
        assert cli.main(["evaluate", str(recipe), "num_samples=1"]) == 0
    result = json.loads((tmp_path / "runs/proof/scripted/outputs/result.json").read_text(encoding="utf-8"))
    right = {row["id"] for row in result["problems"] if row["accuracy"]}
    labelled = {row["id"] for row in rows if row["is_correct"]}
    assert right <= labelled and len(labelled - right) <= 3


def test_labelled_tora_outputs_score_their_labels(tmp_path: Path) -> None:
    """One real output of ToRA-70B for each of the 1,319 problems of GSM8K; its own reading of the output,
    compared with the gold answer, is the label. Eleven outputs have no box: they have no answer, whatever
    their last number is.
    """
    path = SHARED / "outputs_tora70b_gsm8k.jsonl"
    if not path.is_file():
        pytest.skip("needs the labelled outputs")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    write_jsonl(
        tmp_path / "labelled.jsonl",
        [{"id": row["id"], "problem": row["id"], "answer": row["answer"]} for row in rows],
    )
    script = {row["id"]: row["solution"] for row in rows}
    figures = evaluate_scripted(
        tmp_path, str(tmp_path / "labelled.jsonl"), lambda path, body: script[body["prompt"]], "num_samples=1"
    )
    result = json.loads((tmp_path / "runs/proof/scripted/labelled/result.json").read_text(encoding="utf-8"))
    found = {row["id"]: next(iter(row["outcomes"])) for row in result["problems"]}
    without = {row["id"] for row in rows if "\\boxed" not in row["solution"]}
    assert {identity for identity, outcome in found.items() if outcome == "no_answer"} == without and len(
        without
    ) == 11
    labelled = {
        row["id"]: "correct" if number(row["pred"]) == number(row["answer"]) else "wrong" for row in rows
    }
    assert {identity: outcome for identity, outcome in found.items() if identity not in without} == {
        identity: label for identity, label in labelled.items() if identity not in without
    }
    assert figures["outcomes"]["correct"] == 1103


def number(text: str) -> float | None:
    try:
        return round(float(text.replace(",", "")), 6)
    except ValueError:
        return None
