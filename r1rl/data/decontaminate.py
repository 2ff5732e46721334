"""The search for rows of a corpus that are benchmark problems, word for word or in other words.

docs/select.md has the method and its results.

Word for word: at least EXACT_SHARE of the benchmark problem's 8-token windows are in the row, and all of its
numbers. A shorter problem must be the whole row.

In other words: the features of `r1rl.data.problem_features` and their weights are compared. Let b be the
features of the benchmark problem and r those of the row, w(x) the weight of a set of features, and n and f
the numbers and the pieces of formulae among them.

    score = min(1, overlap * numbers * formulae * evidence)

    overlap  = w(b & r) / (0.9 w(b) + 0.1 w(r))
    numbers  = (|n_b & n_r| / |n_b|)^2 * (|n_b & n_r| / |n_r|)^0.5
    formulae = ((2 w(f_b & f_r) + 6) / (w(f_b) + w(f_r) + 6))^2
    evidence = min(0.7 + 0.045 e, 1.4),  e = w(n_b & n_r) + w(f_b & f_r)

The overlap is large if most of the problem is in the row and the row is little else. The numbers must be the
same, since with other numbers it is another problem, and so must the formulae. Rare numbers are evidence of
their own; words alone must agree better. The score is 0 if w(b & r) is below 15: weights are -ln of how often
a feature occurs, and so little may agree by chance.

Legend: N tokens, V distinct features, B benchmark problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1rl.data.problem_features import (
    MATHS,
    NUMBER,
    Features,
    Tokens,
    extract_features,
    read_tokens,
    shared_text,
    windows,
)

EXACT_WINDOW = 8
EXACT_SHARE = 0.9
LEAST_EVIDENCE = 15.0
OF_PROBLEM = 0.9
FORMULA_PRIOR = 6.0
FIRM_LEAST, FIRM_SLOPE, FIRM_MOST = 0.7, 0.045, 1.4
CANDIDATES = 12
"""The number of benchmark problems, those that share most with a row, that are compared with it in full."""
COMMON_SHARE, COMMON_LEAST = 0.05, 50
"""The share and the number of benchmark problems beyond which a feature is too common to find candidates
by.
"""

Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BenchmarkProblem:
    """A problem that must not be trained on."""

    benchmark: str
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Match:
    """A row that is a benchmark problem."""

    row: int
    problem: BenchmarkProblem
    kind: str
    """The kind of match, "exact" or "near"."""
    score: float
    """The score, 0 to 1. For an exact match it is the share of the problem's windows."""
    shared: str
    """The text that the row shares with the problem, gaps marked."""


def find_contaminated(
    rows: Sequence[str], benchmarks: Sequence[BenchmarkProblem], threshold: float
) -> list[Match]:
    """Return the rows that are benchmark problems, in ascending order, each with the one that it resembles
    most.

    A row in other words counts from a score of `threshold` on. This takes about 100 bytes of memory for a
    token.
    """
    if not rows or not benchmarks:
        return []
    tokens = read_tokens([*(one.text for one in benchmarks), *rows])
    exact = _find_exact(tokens, len(benchmarks))
    near = _find_near(extract_features(tokens, len(benchmarks)), len(benchmarks), threshold)
    matches = []
    for row in sorted({*exact, *near}):
        kind, (score, place) = ("exact", exact[row]) if row in exact else ("near", near[row])
        problem = benchmarks[place]
        matches.append(Match(row, problem, kind, round(score, 3), shared_text(rows[row], problem.text)))
    return matches


def _find_exact(tokens: Tokens, num_benchmark: int) -> dict[int, tuple[float, int]]:
    """Return, for rows that have a benchmark problem word for word, the share of its windows and the
    problem's number.
    """
    found: dict[int, tuple[float, int]] = {}
    for row, place, share in (
        *_whole_short_rows(tokens, num_benchmark),
        *_shared_windows(tokens, num_benchmark),
    ):
        if (
            share >= EXACT_SHARE
            and share > found.get(row, (0.0, 0))[0]
            and tokens.has_numbers_of(num_benchmark + row, place)
        ):
            found[row] = (share, place)
    return found


def _whole_short_rows(tokens: Tokens, num_benchmark: int) -> Iterator[tuple[int, int, float]]:
    """Yield the rows of fewer than EXACT_WINDOW tokens that are a benchmark problem."""
    short: dict[bytes, int] = {}
    for text, size in enumerate(np.diff(tokens.starts)):
        if 0 < size < EXACT_WINDOW:
            key = tokens.hashes_N[tokens.starts[text] : tokens.starts[text + 1]].tobytes()
            if text < num_benchmark:
                short.setdefault(key, text)
            elif key in short:
                yield text - num_benchmark, short[key], 1.0


def _shared_windows(tokens: Tokens, num_benchmark: int) -> Iterator[tuple[int, int, float]]:
    """Yield (row, benchmark problem, share of its windows that the row has) for each share above 0."""
    if len(tokens.hashes_N) < EXACT_WINDOW:
        return
    inside, hashes = windows(tokens.owner_N, tokens.hashes_N, EXACT_WINDOW)
    owner = tokens.owner_N[: len(hashes)][inside]
    hashes = hashes[inside]
    ours = owner < num_benchmark
    # By hash, then by problem.
    pairs = np.unique(np.stack([hashes[ours], owner[ours].astype(np.uint64)]), axis=1)
    hits = ~ours & np.isin(hashes, pairs[0])
    of_rows = np.unique(np.stack([hashes[hits], owner[hits].astype(np.uint64)]), axis=1)
    first, last = (np.searchsorted(pairs[0], of_rows[0], side) for side in ("left", "right"))
    row = np.repeat(of_rows[1].astype(np.int64) - num_benchmark, last - first)
    problem = pairs[1].astype(np.int64)[_ranges(first, last)]
    combined, counts = np.unique(row * num_benchmark + problem, return_counts=True)
    sizes = np.bincount(pairs[1].astype(np.int64), minlength=num_benchmark)
    for pair, count in zip(combined.tolist(), counts.tolist(), strict=True):
        yield pair // num_benchmark, pair % num_benchmark, count / int(sizes[pair % num_benchmark])


def _ranges(first: Ids, last: Ids) -> Ids:
    """Return all numbers from first[i] to last[i] - 1, range after range."""
    sizes = last - first
    offsets = np.repeat(first - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    return offsets + np.arange(len(offsets))


class _Weighed:
    """The features of all texts as numbers from 0 to V - 1, with their weights and the benchmark problems
    that have them.
    """

    def __init__(self, features: Features, num_benchmark: int) -> None:
        values, self.ids = np.unique(features.values, return_inverse=True)
        self.starts = features.starts
        occurrences_V = np.bincount(self.ids, minlength=len(values))
        self.weights_V = np.log((len(self.starts)) / (occurrences_V + 1))
        self.kinds_V = np.zeros(len(values), np.int8)
        self.kinds_V[self.ids] = features.kinds
        end = self.starts[num_benchmark]
        self.having_V = np.bincount(self.ids[:end], minlength=len(values))
        problem = np.repeat(np.arange(num_benchmark), np.diff(self.starts[: num_benchmark + 1]))
        self.postings = problem[np.argsort(self.ids[:end], kind="stable")]
        self.first_V = np.concatenate([[0], np.cumsum(self.having_V)])
        self.totals = np.add.reduceat(np.append(self.weights_V[self.ids], 0.0), self.starts[:-1]) * (
            np.diff(self.starts) > 0
        )
        """The weight of each text."""

    def of(self, text: int) -> Ids:
        """Return the features of one text, ascending."""
        return self.ids[self.starts[text] : self.starts[text + 1]]


def _find_near(features: Features, num_benchmark: int, threshold: float) -> dict[int, tuple[float, int]]:
    """Return, for rows that are a benchmark problem in other words, the best score and the problem's
    number.
    """
    weighed = _Weighed(features, num_benchmark)
    common = max(COMMON_LEAST, COMMON_SHARE * num_benchmark)
    telling_V = (weighed.having_V > 0) & (weighed.having_V <= common)
    found: dict[int, tuple[float, int]] = {}
    for row in range(len(features.starts) - 1 - num_benchmark):
        own = weighed.of(num_benchmark + row)
        best = (0.0, 0)
        for place in _candidates(weighed, own[telling_V[own]], num_benchmark):
            best = max(best, (_score(weighed, int(place), num_benchmark + row), int(place)))
        if best[0] >= threshold:
            found[row] = best
    return found


def _candidates(weighed: _Weighed, telling: Ids, num_benchmark: int) -> Ids:
    """Return the benchmark problems of which the row has the largest share, by weight."""
    if not len(telling):
        return telling
    places = weighed.postings[_ranges(weighed.first_V[telling], weighed.first_V[telling + 1])]
    weights = np.repeat(weighed.weights_V[telling], weighed.having_V[telling])
    shared_B: Numbers = np.bincount(places, weights=weights, minlength=num_benchmark).astype(np.float64)
    share_B = shared_B / np.maximum(weighed.totals[:num_benchmark], LEAST_EVIDENCE)
    return (
        np.argpartition(-share_B, CANDIDATES)[:CANDIDATES]
        if num_benchmark > CANDIDATES
        else np.arange(num_benchmark)
    )


def _score(weighed: _Weighed, place: int, text: int) -> float:
    """Return the score of the text as a rewording of the benchmark problem (see the module's docstring)."""
    problem, row = weighed.of(place), weighed.of(text)
    both = np.intersect1d(problem, row, assume_unique=True)
    weights_V, kinds_V = weighed.weights_V, weighed.kinds_V
    evidence = float(weights_V[both].sum())
    if evidence < LEAST_EVIDENCE:
        return 0.0
    score = evidence / (OF_PROBLEM * weighed.totals[place] + (1 - OF_PROBLEM) * weighed.totals[text])
    numbers = [int((kinds_V[ids] == NUMBER).sum()) for ids in (both, problem, row)]
    if numbers[1]:
        score *= (numbers[0] / numbers[1]) ** 2
    if numbers[2] and numbers[1]:
        score *= (numbers[0] / numbers[2]) ** 0.5
    formulae = [float(weights_V[ids[kinds_V[ids] == MATHS]].sum()) for ids in (both, problem, row)]
    score *= ((2 * formulae[0] + FORMULA_PRIOR) / (formulae[1] + formulae[2] + FORMULA_PRIOR)) ** 2
    firm = float(weights_V[both[kinds_V[both] == NUMBER]].sum()) + formulae[0]
    return min(1.0, float(score) * min(FIRM_LEAST + FIRM_SLOPE * firm, FIRM_MOST))
