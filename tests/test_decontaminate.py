"""Decontamination: the texts that count as the same problem, those that do not, and the recall in a large
corpus.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from contamination_corpus import SHARED, make_corpus, read_paraphrases
from evaluate_helpers import write_jsonl

from r1rl.cli import main as cli
from r1rl.data.decontaminate import BenchmarkProblem, find_contaminated
from r1rl.data.problem_features import NUMBER, WORD, _classify, read_tokens, shared_text, stem, tokenize
from r1rl.select.recipe import DecontaminationConfig

THRESHOLD = DecontaminationConfig().threshold
PROBLEM = (
    "Natalia sold 48 clips to her friends in April, and then she sold half as many clips in May. How many "
    "clips did she sell in 2 months?"
)
OTHERS = [
    "A train leaves the station at 9 and travels 310 miles at a steady speed. When does it arrive if it "
    "rests for 25 minutes?",
    "The sum of three consecutive integers is 72. What is the largest of the three integers?",
    "Compute $\\frac{3}{7} + \\frac{5}{9}$ and write the result in lowest terms.",
    "A bakery packs 36 rolls into 4 bags. How many rolls are there in 11 bags of the same size?",
] * 30  # fmt: skip
"""Rows that make ordinary words common, as in any corpus."""


def found(row: str, problem: str = PROBLEM) -> str | None:
    """Return the kind of match by which the row is found to be the problem."""
    matches = find_contaminated([row, *OTHERS], [BenchmarkProblem("b", "1", problem)], THRESHOLD)
    return next((match.kind for match in matches if match.row == 0), None)


def test_word_for_word() -> None:
    assert found(PROBLEM) == "exact"
    assert found(PROBLEM.upper()) == "exact"
    assert found(f"Solve this.\n\n{PROBLEM.replace(' ', '  ')}\nPut your answer in \\boxed{{}}.") == "exact"
    assert found("What is $2 + 2$?", "What is $2+2$?") == "exact"  # too short for a window: the whole row
    assert found("Tell me what is $2 + 2$ times 3", "What is $2+2$?") is None


def test_in_other_words() -> None:
    for row in (
        "In April Kwame sold 48 clips to friends of his, and half as many in May. How many clips were sold "
        "in the 2 months?",
        "Half as many clips as in April, when 48 clips were sold to friends, Kwame sold in May. How many in "
        "the 2 months?",
    ):
        assert found(row) == "near"


def test_other_numbers_are_another_problem() -> None:
    assert found(PROBLEM.replace("48", "52")) is None
    assert found(PROBLEM.replace("48", "52").replace("2 months", "3 months")) is None


def test_other_formulae_are_another_problem() -> None:
    problem = (
        "Find all real solutions of the equation $x^4 - 13x^2 + 36 = 0$ and list them in ascending order, "
        "separated by commas."
    )
    assert (
        found(problem.replace("Find all", "Determine the").replace("ascending", "increasing"), problem)
        == "near"
    )
    assert found(problem.replace("$x^4 - 13x^2 + 36 = 0$", "$\\sin(13x) = 36 \\cos(4x)$"), problem) is None


def test_tokens_and_features() -> None:
    assert tokenize("1,000 apples; $\\dfrac{2.50}{x}$ a 3-day trip") == [
        "1,000",
        "apples",
        "\\dfrac",
        "2.50",
        "x",
        "a",
        "3",
        "day",
        "trip",
    ]
    assert [_classify(token) for token in ("1,000", "2.50", "three", "007")] == [
        (NUMBER, value) for value in ("1000", "2.5", "3", "7")
    ]
    assert (
        _classify("Candies") == (WORD, "candy")
        and stem("selling") == "sell"
        and stem("apples") == stem("apple's")
    )
    tokens = read_tokens(["5 and 5 and 7", "5 and 7", "7, 5, 5"])
    assert tokens.has_numbers_of(0, 1) and tokens.has_numbers_of(2, 0) and not tokens.has_numbers_of(1, 0)
    assert shared_text("Oskar sold 48 red clips in May", PROBLEM) == "sold 48 ... clips in May"


def test_nothing_to_compare() -> None:
    assert find_contaminated([], [BenchmarkProblem("b", "1", PROBLEM)], THRESHOLD) == []
    assert find_contaminated([PROBLEM], [], THRESHOLD) == []
    assert find_contaminated(["", "!?"], [BenchmarkProblem("b", "1", "")], THRESHOLD) == []


def recall(rows: int, planted: int, seed: int, shared: Path | None) -> tuple[int, int, int]:
    """Return the number of exact copies found, of paraphrases found, and of false alarms."""
    corpus = make_corpus(rows, planted, seed, shared)
    problems = [
        BenchmarkProblem(name, identity, text)
        for name, own in corpus.benchmarks.items()
        for identity, text in own
    ]
    rows_found = {match.row for match in find_contaminated(corpus.rows, problems, THRESHOLD)}
    return (
        len(rows_found & corpus.exact),
        len(rows_found & corpus.paraphrased),
        len(rows_found - corpus.exact - corpus.paraphrased),
    )


def test_planted_stories_are_found() -> None:
    exact, paraphrased, false_alarms = recall(rows=6_000, planted=40, seed=1, shared=None)
    assert exact == 40 and paraphrased >= 36 and false_alarms <= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3])
def test_planted_benchmark_problems_are_found_in_100_000_rows(seed: int) -> None:
    if not SHARED.is_dir():
        pytest.skip("needs the benchmark files")
    exact, paraphrased, false_alarms = recall(100_000, 100, seed, SHARED)
    assert exact == 100 and paraphrased >= 90 and false_alarms <= 20


@pytest.mark.slow
def test_paraphrases_written_by_hand() -> None:
    """Freer than those by rule: some tell their numbers as words or leave them out. docs/select.md says how
    many are found.
    """
    if not SHARED.is_dir():
        pytest.skip("needs the benchmark files")
    corpus = make_corpus(20_000, 1, 0)
    problems = [
        BenchmarkProblem(name, identity, text)
        for name, own in corpus.benchmarks.items()
        for identity, text in own
    ]
    written = read_paraphrases()
    matches = find_contaminated([*corpus.rows, *written.values()], problems, THRESHOLD)
    found_ids = {(match.row - len(corpus.rows), match.problem.id) for match in matches}
    assert len(found_ids & set(enumerate(written))) >= 15


def test_select_removes_and_lists_them(tmp_path: Path) -> None:
    """The whole problem goes, with all its completions, before anything is graded."""

    def completion(number: int, problem: str) -> dict[str, Any]:
        return {"id": str(number), "problem": problem, "answer": "72", "completion": "So <answer>72</answer>"}

    rows = [
        completion(0, PROBLEM),
        completion(0, PROBLEM),
        *(completion(number + 1, text) for number, text in enumerate(OTHERS[:4])),
    ]
    write_jsonl(tmp_path / "bench.jsonl", [{"id": "x7", "problem": PROBLEM, "answer": "72"}])
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe = {
        "run_name": "s", "output_dir": str(tmp_path / "runs"), "sources": [{"path": str(path)}],
        "decontamination": {"benchmarks": [str(tmp_path / "bench.jsonl"), "word_problems"]},
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert cli.main(["select", str(tmp_path / "r.yaml")]) == 0
    report = json.loads((tmp_path / "runs/s/report.json").read_text(encoding="utf-8"))
    first = report["steps"][0]
    assert (first["name"], first["rows_in"], first["rows_out"], first["reasons"]) == (
        "contaminated",
        6,
        4,
        {"bench, exact": 2},
    )
    (pair,) = report["contaminated"]
    assert (pair["benchmark"], pair["id"], pair["kind"], pair["score"]) == ("bench", "x7", "exact", 1.0)
    assert pair["row"].endswith("rows.jsonl, line 1") and pair["shared"].startswith("Natalia sold 48 clips")
    page = (tmp_path / "runs/s/report.md").read_text(encoding="utf-8")
    assert "## Contaminated: 1 problems" in page and "| bench | x7 | 1.00 |" in page
    problems = (tmp_path / "runs/s/problems.jsonl").read_text(encoding="utf-8")
    assert "Natalia" not in problems and report["problems"]["with_a_pass_rate"] == 4


def test_an_unknown_benchmark_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"problem": "x", "completion": "y"}])
    (tmp_path / "r.yaml").write_text(
        f"run_name: s\noutput_dir: {tmp_path}\nsources: [{{path: {path}}}]\n", encoding="utf-8"
    )
    assert cli.main(["select", str(tmp_path / "r.yaml"), "decontamination.benchmarks=[math50]"]) == 2
    assert "there is no benchmark math50; did you mean math500?" in capsys.readouterr().err
