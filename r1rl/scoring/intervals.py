"""The 95 % intervals for means over problems, and the difference of two models on the same problems.

An evaluation has two sources of variance: which problems the benchmark happens to contain, and which samples
the model happened to draw. The question decides which of them belong in the interval:

- `over_problems`: how good is the model at problems *like these*? Both sources count. The problem is the
  unit: the samples of one problem are not independent draws, so the variance is that of the per-problem
  means, var(m_i)/N, which contains both sources whatever their shares (Miller, "Adding error bars to evals",
  arXiv 2411.00640). This is the interval that is reported.
- `over_samples`: what would another run on *these very* problems give? Only the samples count: the variance
  is sum_i m_i (1 - m_i) / (K_i - 1) / N^2. Narrower; right for asking whether a score can be reproduced,
  wrong for asking which model is better.

For rates, m +- t s/sqrt(N) covers too little near 0 and 1 and can leave [0, 1]; the percentile bootstrap over
problems shares the first fault. So the interval is Wilson's score interval with two replacements: the
*effective* number of draws m (1 - m) / variance stands for n, and Student's t with N - 1 degrees of freedom
for the normal quantile. (Franco, Little, Louis and Slud, "Comparative study of confidence intervals for
proportions in complex sample surveys", 2019, recommend the Wilson form with an effective sample size.) It is
never empty and stays in [0, 1].

Coverage of E[p] in 4,000 simulated evaluations each, success rates p drawn from Beta(a, b) anew for each
evaluation (columns: this interval, Student's, the percentile bootstrap with 1,000 evaluations):

    a, b       mean p   30 problems x 16          500 problems x 4
    1, 1         0.50   0.956  0.951  0.943       0.951  0.950
    0.3, 0.5     0.37   0.955  0.945  0.929       0.954  0.954
    2, 5         0.29   0.951  0.950  0.943       0.951  0.950
    0.1, 0.9     0.10   0.935  0.909  0.912       0.954  0.946
    0.3, 3       0.09   0.938  0.912  0.905       0.946  0.945
    5, 0.5       0.91   0.945  0.922  0.930       0.956  0.954
    0.2, 0.02    0.91   0.924  0.896  0.904       0.956  0.950
    .05, .05     0.50   0.964  0.951  0.956       0.956  0.955
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, variance
from typing import Any

LEVEL = 0.95
EQUAL = 1e-12
"""Differences of rates that are no further apart than this are equal; the rest is rounding."""
Z_95 = NormalDist().inv_cdf(0.5 + LEVEL / 2)

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; None where a single problem says nothing about others."""

    value: float
    ci95: Interval | None

    def as_json(self) -> dict[str, Any]:
        """Return {"value": ..., "ci95": [low, high]}."""
        return {"value": self.value, "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Model B minus model A on the same problems."""

    difference: float
    standard_error: float
    ci95: Interval | None
    num_problems: int

    @property
    def is_significant(self) -> bool:
        """A flag, true if the 95 % interval leaves out zero: the two-sided paired t test at 5 %."""
        return self.ci95 is not None and not self.ci95[0] <= 0.0 <= self.ci95[1]


def wilson(rate: float, draws: float, quantile: float = Z_95) -> Interval:
    """Return Wilson's score interval for a rate seen in `draws` independent draws (1927); `draws` may be an
    effective number.
    """
    q2 = quantile * quantile
    centre = (rate + q2 / (2 * draws)) / (1 + q2 / draws)
    half = quantile / (1 + q2 / draws) * math.sqrt(rate * (1 - rate) / draws + q2 / (4 * draws * draws))
    return (0.0 if rate <= 0.0 else max(0.0, centre - half), 1.0 if rate >= 1.0 else min(1.0, centre + half))


def over_problems(problem_means: Sequence[float]) -> Interval | None:
    """Return the interval of a mean rate for problems like these, or None for fewer than two problems;
    `problem_means` are in [0, 1], one per problem.
    """
    count = len(problem_means)
    if count < 2:
        return None
    rate = min(1.0, max(0.0, fmean(problem_means)))
    spread = variance(problem_means) / count
    # All problems equal: no variance was seen, which N problems can't tell from a little. N draws is the
    # cautious reading.
    draws = rate * (1 - rate) / spread if spread > 0.0 and 0.0 < rate < 1.0 else float(count)
    return wilson(rate, draws, student_t_quantile(count - 1))


def over_samples(problem_means: Sequence[float], num_samples: Sequence[int]) -> Interval | None:
    """Return the interval of the mean rate over these very problems; `problem_means[i]` is the share of right
    among K_i samples.

    It is None if a problem has fewer than two samples: then the samples' variance can't be told.
    """
    count = len(problem_means)
    if count == 0 or min(num_samples) < 2:
        return None
    rate = min(1.0, max(0.0, fmean(problem_means)))
    spread = run_to_run_variance(problem_means, num_samples)
    draws = rate * (1 - rate) / spread if spread > 0.0 and 0.0 < rate < 1.0 else float(sum(num_samples))
    return wilson(rate, draws)


def run_to_run_variance(problem_means: Sequence[float], num_samples: Sequence[int]) -> float:
    """Return the unbiased variance of the mean rate when the same problems are sampled again: sum_i m_i (1 -
    m_i) / (K_i - 1) / N^2.
    """
    terms = (
        mean * (1 - mean) / (samples - 1) for mean, samples in zip(problem_means, num_samples, strict=True)
    )
    return math.fsum(terms) / len(problem_means) ** 2


def of_mean(problem_means: Sequence[float]) -> Interval | None:
    """Return Student's interval for the mean of anything that is no rate (lengths); None for fewer than two
    problems.
    """
    count = len(problem_means)
    if count < 2:
        return None
    mean, half = (
        fmean(problem_means),
        student_t_quantile(count - 1) * math.sqrt(variance(problem_means) / count),
    )
    return (mean - half, mean + half)


def rate_estimate(problem_means: Sequence[float]) -> dict[str, Any] | None:
    """Return the mean of rates, one per problem, with its interval over problems, as JSON; None without
    problems.
    """
    return Estimate(fmean(problem_means), over_problems(problem_means)).as_json() if problem_means else None


def mean_estimate(problem_means: Sequence[float]) -> dict[str, Any] | None:
    """Return the mean of anything else, with its interval over problems, as JSON; None without problems."""
    return Estimate(fmean(problem_means), of_mean(problem_means)).as_json() if problem_means else None


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Return the mean of second - first rate over problems, with Student's interval on the per-problem
    differences.

    `first[i]` and `second[i]` are the means of the two models on problem i. Pairing takes the problems'
    difficulty out of the variance. Where all differences are equal no variance was seen, which N problems
    can't tell from a little. Then up to a share w of all problems may differ in any other way, w being the
    upper end of Wilson's interval for 0 of N. Raises ValueError if the lengths differ or there is no problem.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"the paired difference needs the same problems for both models: {len(first)} and {len(second)} "
            f"given"
        )
    differences = [b - a for a, b in zip(first, second, strict=True)]
    count, mean = len(differences), fmean(differences)
    if count < 2:
        return PairedDifference(mean, math.nan, None, count)
    if max(differences) - min(differences) < EQUAL:
        unseen = over_problems([0.0] * count)
        share = unseen[1] if unseen is not None else 1.0
        return PairedDifference(mean, 0.0, (mean - share * (1 + mean), mean + share * (1 - mean)), count)
    return PairedDifference(mean, math.sqrt(variance(differences) / count), of_mean(differences), count)


@lru_cache(maxsize=256)
def student_t_quantile(degrees: int) -> float:
    """Return the t for which |T| <= t has probability 0.95, for a whole number of degrees of freedom;
    accurate to 1e-10.
    """
    if degrees < 1:
        raise ValueError("Student's t needs at least one degree of freedom")
    low, high = 0.0, 13.0  # 12.706 with one degree of freedom
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_t_within(middle, degrees) < LEVEL else (low, middle)
    return (low + high) / 2


def _student_t_within(t: float, degrees: int) -> float:
    """Return P(|T| <= t): the finite sums 26.7.3 and 26.7.4 of Abramowitz and Stegun, with tan(theta) = t /
    sqrt(degrees).
    """
    theta = math.atan2(t, math.sqrt(degrees))
    cosine_squared = math.cos(theta) ** 2
    odd = degrees % 2
    term = math.cos(theta) if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for j in range(2 + odd, degrees - 1, 2):
        term *= cosine_squared * (j - 1) / j
        total += term
    return 2 / math.pi * (theta + math.sin(theta) * total) if odd else math.sin(theta) * total
