"""The steps that compare rows: duplicates, completions of one problem, rows of one source.

Each function looks at all rows and returns for each a reason to leave it out, or None.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Literal

from r1rl.data.near_duplicates import near_duplicates
from r1rl.seeds import derive_seed
from r1rl.select.grading import PassRate
from r1rl.select.rows import CompletionRow

Reasons = list[str | None]
COMPLETION_NGRAM = 5
PROBLEM_NGRAM = 3
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def outside_band(
    rows: Sequence[CompletionRow], rates: dict[str, PassRate], least: float, most: float
) -> Reasons:
    """Leave out rows of problems that are too hard or too easy; those without a pass rate stay."""
    return [_band(rates.get(row.problem_key), least, most) for row in rows]


def _band(rate: PassRate | None, least: float, most: float) -> str | None:
    if rate is None or rate.value is None:
        return None
    return "too_hard" if rate.value < least else "too_easy" if rate.value > most else None


def exact_duplicates(rows: Sequence[CompletionRow]) -> Reasons:
    """Leave out every further row of the same problem and text, but for white space."""
    seen: set[tuple[str, str]] = set()
    reasons: Reasons = []
    for row in rows:
        key = (row.problem_key, " ".join(row.text.split()))
        reasons.append("same_text" if key in seen else None)
        seen.add(key)
    return reasons


def near_duplicate_completions(rows: Sequence[CompletionRow], threshold: float) -> Reasons:
    """Leave out rows whose text hardly differs from that of an earlier one of the same problem."""
    found = near_duplicates(
        [row.text for row in rows], threshold, COMPLETION_NGRAM, [row.problem_key for row in rows]
    )
    return [None if earlier is None else f"like {rows[earlier].place}" for earlier in found]


def near_duplicate_problems(rows: Sequence[CompletionRow], threshold: float) -> Reasons:
    """Leave out all rows of a problem that hardly differs from an earlier one and has the same numbers.

    With other numbers it is another problem.
    """
    problems = list(dict.fromkeys(row.problem_key for row in rows))
    numbers: list[Hashable] = [
        tuple(sorted(Counter(_NUMBER.findall(problem)).items())) for problem in problems
    ]
    found = near_duplicates(problems, threshold, PROBLEM_NGRAM, numbers)
    same = {
        problem: problems[earlier]
        for problem, earlier in zip(problems, found, strict=True)
        if earlier is not None
    }
    return [f"like {same[row.problem_key]!r}" if row.problem_key in same else None for row in rows]


def over_quota(
    rows: Sequence[CompletionRow],
    most: int,
    prefer: Literal["shortest", "longest", "random", "first"],
    seed: int,
) -> Reasons:
    """Leave out all but `most` rows of every problem."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.problem_key].append(place)

    def rank(place: int) -> tuple[int, int]:
        row = rows[place]
        size = row.tokens if row.tokens is not None else len(row.completion)
        return {"shortest": size, "longest": -size, "random": draw(seed, row), "first": 0}[prefer], place

    kept = {place for own in places.values() for place in sorted(own, key=rank)[:most]}
    return [None if place in kept else f"not among the {prefer} {most}" for place in range(len(rows))]


def over_cap(rows: Sequence[CompletionRow], caps: dict[str, int], seed: int) -> Reasons:
    """Leave out all but a random `caps[source]` rows of each source that has a cap."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row.source in caps:
            places[row.source].append(place)
    over = {
        place
        for source, own in places.items()
        for place in sorted(own, key=lambda at: (draw(seed, rows[at]), at))[caps[source] :]
    }
    return ["over_cap" if place in over else None for place in range(len(rows))]


def draw(seed: int, row: CompletionRow) -> int:
    """Return a random number of a row, which depends on the seed and the row alone."""
    return derive_seed(seed, "select", row.source, row.problem_key, row.text)


def ordered(
    rows: Sequence[CompletionRow], order: Literal["as_read", "easy_first", "hard_first", "random"], seed: int
) -> list[CompletionRow]:
    """Return the rows in the order of the output.

    In an order by pass rate, rows without one come last, and equal ones stay as they are.
    """
    match order:
        case "as_read":
            return list(rows)
        case "random":
            return sorted(rows, key=lambda row: draw(seed, row))
        case _:
            sign = -1.0 if order == "easy_first" else 1.0
            return sorted(rows, key=lambda row: (row.pass_rate is None, sign * (row.pass_rate or 0.0)))
