"""The step that removes benchmark problems: their list, and every pair that was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from r1rl.data.benchmarks import load_benchmark, select_benchmarks
from r1rl.data.decontaminate import BenchmarkProblem, Match, find_contaminated
from r1rl.select.recipe import DecontaminationConfig
from r1rl.select.rows import CompletionRow


def read_benchmarks(config: DecontaminationConfig) -> list[BenchmarkProblem]:
    """Return the problems of all benchmarks of the recipe, without the question text around them.

    Raise `RecipeError` or `DataError` if one can't be read.
    """
    found = []
    for benchmark in select_benchmarks(config.benchmarks):
        loaded = load_benchmark(replace(benchmark, question="{problem}"), config.local_dir, None, 0)
        found += [
            BenchmarkProblem(benchmark.name, problem.id, problem.problem) for problem in loaded.problems
        ]
    return found


class Contamination:
    """The contaminated problems among rows; `pairs` has one pair for each problem."""

    def __init__(
        self, rows: Sequence[CompletionRow], benchmarks: Sequence[BenchmarkProblem], threshold: float
    ) -> None:
        keys = list(dict.fromkeys(row.problem_key for row in rows))
        first = {row.problem_key: row for row in reversed(rows)}
        self._by_key: dict[str, Match] = {
            keys[match.row]: match
            for match in find_contaminated([first[key].problem for key in keys], benchmarks, threshold)
        }
        self.pairs = [_pair(first[key], match) for key, match in self._by_key.items()]

    def reasons(self, rows: Sequence[CompletionRow]) -> list[str | None]:
        """Return the benchmark of each contaminated row."""
        found = (self._by_key.get(row.problem_key) for row in rows)
        return [None if match is None else f"{match.problem.benchmark}, {match.kind}" for match in found]


def _pair(row: CompletionRow, match: Match) -> dict[str, Any]:
    return {
        "row": row.place,
        "problem": row.problem,
        "benchmark": match.problem.benchmark,
        "id": match.problem.id,
        "kind": match.kind,
        "score": match.score,
        "shared": match.shared,
        "benchmark_problem": match.problem.text,
    }
