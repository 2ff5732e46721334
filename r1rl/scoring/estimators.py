"""Estimators of benchmark scores from n samples per problem: exact rational arithmetic, rounded once.

pass@k: at least one of k samples is right. pass^k: all of them are. cons@k (majority vote): the commonest
answer of k samples is right. Each is the expectation over all ways to choose k of the n samples, not the
value of one draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import comb, factorial
from statistics import fmean


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased pass@k of one problem with c right among n samples: 1 - C(n-c, k)/C(n, k) (Chen et
    al., arXiv 2107.03374, eq. 1).

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    _check(n, c, k)
    return float(1 - Fraction(comb(n - c, k), comb(n, k)))


def pass_at_k_simple(n: int, c: int, k: int) -> float:
    """Return the plug-in form 1 - (1 - c/n)^k, which is biased: too low in expectation whenever k > 1 and 0 <
    p < 1.

    Only to compare with scores that were published with it. k may exceed n.
    """
    if not (0 <= c <= n and n >= 1 and k >= 1):
        raise ValueError(f"pass@k needs 0 <= c <= n, n >= 1 and k >= 1: n={n}, c={c}, k={k}")
    return float(1 - (1 - Fraction(c, n)) ** k)


def pass_hat_k(n: int, c: int, k: int) -> float:
    """Return pass^k of one problem, all of k samples right: C(c, k)/C(n, k). Raises ValueError as `pass_at_k`
    does.
    """
    _check(n, c, k)
    return float(Fraction(comb(c, k), comb(n, k)))


def mean_pass_at_k(problems: Sequence[tuple[int, int]], k: int) -> float:
    """Return pass@k of a benchmark: the mean over its problems, each given as (n, c)."""
    return fmean(pass_at_k(n, c, k) for n, c in problems)


def mean_at_k(problem_outcomes: Sequence[Sequence[float]]) -> float:
    """Return avg@k: the mean over problems of the mean over a problem's samples, so that every problem weighs
    the same.
    """
    return fmean(fmean(outcomes) for outcomes in problem_outcomes)


def cons_at_k(class_sizes: Sequence[int], correct: int | None, k: int, abstained: int = 0) -> float:
    """Return cons@k of one problem: the probability that a majority vote of k of its n samples is right.

    `class_sizes`: how many samples gave each answer, equivalent answers counted together; `correct`: the
    index of the right one, None if no sample gave it; `abstained`: samples without an answer, which don't
    vote. The commonest answer wins; a tie is broken evenly, which is the expectation of "the first to appear"
    over random orders. A draw in which nobody votes is not right. Drawn without replacement, n =
    sum(class_sizes) + abstained.

    Raises ValueError unless 1 <= k <= n and `correct` is an index.
    """
    n = sum(class_sizes) + abstained
    if min([*class_sizes, abstained]) < 0 or not 1 <= k <= n:
        raise ValueError(
            f"cons@k needs counts that are not negative and 1 <= k <= n: {list(class_sizes)}, {abstained} "
            f"abstained, k={k}"
        )
    if correct is None:
        return 0.0
    votes = class_sizes[correct]
    rivals = [size for index, size in enumerate(class_sizes) if index != correct]
    won = Fraction(0)
    for m in range(1, min(votes, k) + 1):
        # Ways to draw the other k - m samples so that no rival has more than m, by how many rivals have
        # exactly m.
        weights: list[list[int | Fraction]] = [
            [comb(size, drawn) for drawn in range(min(size, m) + 1)] for size in rivals
        ]
        free = [comb(abstained, drawn) for drawn in range(abstained + 1)]
        won += comb(votes, m) * _shared_wins(weights, free, m, k - m)
    return float(won / comb(n, k))


def cons_at_k_of_distribution(probabilities: Sequence[Fraction | float], correct: int, k: int) -> float:
    """Return cons@k when the k answers are drawn independently from a known distribution: what `cons_at_k`
    estimates without bias.

    The probability of a vote is k! times the product of p^j / j! over the answers.
    """
    if k < 1 or not 0 <= correct < len(probabilities):
        raise ValueError(f"cons@k needs k >= 1 and the index of an answer: k={k}, correct={correct}")
    rivals = [Fraction(p) for index, p in enumerate(probabilities) if index != correct]
    won = Fraction(0)
    for m in range(1, k + 1):
        weights: list[list[int | Fraction]] = [
            [p**drawn / factorial(drawn) for drawn in range(m + 1)] for p in rivals
        ]
        won += Fraction(probabilities[correct]) ** m / factorial(m) * _shared_wins(weights, [1], m, k - m)
    return float(factorial(k) * won)


def _shared_wins(
    rivals: Sequence[Sequence[int | Fraction]], free: Sequence[int], m: int, rest: int
) -> Fraction:
    """Sum over the draws of `rest` samples from rivals (at most m each) and non-voters, of weight / (1 +
    rivals with m).

    `rivals[r][j]` is the weight of drawing j from rival r, `free[j]` that of drawing j non-voters. A
    polynomial in the number drawn and the number of ties, multiplied up rival by rival.
    """
    ways: dict[tuple[int, int], int | Fraction] = {
        (drawn, 0): weight for drawn, weight in enumerate(free[: rest + 1])
    }
    for weights in rivals:
        grown: dict[tuple[int, int], int | Fraction] = {}
        for (drawn, ties), count in ways.items():
            for more, weight in enumerate(weights[: rest - drawn + 1]):
                key = (drawn + more, ties + (more == m))
                grown[key] = grown.get(key, 0) + count * weight
        ways = grown
    return sum(
        (Fraction(count, 1 + ties) for (drawn, ties), count in ways.items() if drawn == rest), Fraction(0)
    )


def powers_of_two(limit: int) -> list[int]:
    """Return the k for which pass@k and cons@k are reported: 1, 2, 4, ... up to the limit, and the limit
    itself.
    """
    powers = [1 << exponent for exponent in range(limit.bit_length())]
    return powers if limit in powers else [*powers, limit]


def _check(n: int, c: int, k: int) -> None:
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n: n={n}, c={c}, k={k}")
