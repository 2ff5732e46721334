"""Estimators against exact rationals, intervals against simulated evaluations with known success rates."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1rl.scoring.estimators import (
    cons_at_k,
    cons_at_k_of_distribution,
    mean_at_k,
    mean_pass_at_k,
    pass_at_k,
    pass_at_k_simple,
    pass_hat_k,
)
from r1rl.scoring.intervals import (
    of_mean,
    over_problems,
    over_samples,
    paired_difference,
    run_to_run_variance,
    student_t_quantile,
    wilson,
)

REFERENCE = Path(__file__).resolve().parent.parent.parent / "shared" / "grading" / "cases" / "metrics.json"


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    if not REFERENCE.exists():
        pytest.skip("the reference values lie beside the checkout, and there are none")
    return json.loads(REFERENCE.read_text())


def test_pass_at_k_by_hand() -> None:
    # n=5, c=2, k=3: one of the C(5,3)=10 draws avoids both right samples, so 1 - 1/10.
    assert pass_at_k(5, 2, 3) == 0.9
    # k=1 is the plain share; k=n asks whether any sample is right; with n-c < k a right one is always drawn.
    assert pass_at_k(7, 3, 1) == 3 / 7
    assert pass_at_k(7, 1, 7) == 1.0
    assert pass_at_k(7, 5, 3) == 1.0
    assert pass_at_k(7, 0, 7) == 0.0
    # plug-in form: 1 - (3/5)^3 = 98/125, below the unbiased 0.9
    assert pass_at_k_simple(5, 2, 3) == 98 / 125
    # all of 2 of 5 right with c=3: C(3,2)/C(5,2) = 3/10
    assert pass_hat_k(5, 3, 2) == 0.3
    assert mean_at_k([[1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]) == (0.5 + 0.75) / 2


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)


def test_pass_at_k_is_unbiased_and_the_simple_form_is_not() -> None:
    # c ~ Binomial(6, 1/3): the expectation of the unbiased form is exactly 1 - (2/3)^4 = 65/81.
    n, k, p = 6, 4, Fraction(1, 3)
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    unbiased = sum(float(w) * pass_at_k(n, c, k) for c, w in enumerate(weights))
    simple = sum(float(w) * pass_at_k_simple(n, c, k) for c, w in enumerate(weights))
    assert unbiased == pytest.approx(65 / 81, abs=1e-12)
    assert simple < 65 / 81 - 0.05


def brute_force_cons(class_sizes: list[int], correct: int, k: int, abstained: int) -> Fraction:
    """Return cons@k from every draw of k samples, one by one."""
    votes = [index for index, size in enumerate(class_sizes) for _ in range(size)] + [None] * abstained
    draws, won = 0, Fraction(0)
    for draw in combinations(votes, k):
        counts = [draw.count(index) for index in range(len(class_sizes))]
        draws += 1
        if counts[correct] and counts[correct] == max(counts):
            won += Fraction(1, counts.count(counts[correct]))
    return won / draws


@pytest.mark.parametrize("class_sizes", [[3, 2, 1], [2, 3, 1], [4, 4], [1, 1, 1, 1], [0, 5], [5]])
@pytest.mark.parametrize("abstained", [0, 2])
def test_cons_at_k_equals_the_enumeration_of_all_draws(class_sizes: list[int], abstained: int) -> None:
    for k in range(1, sum(class_sizes) + abstained + 1):
        expected = float(brute_force_cons(class_sizes, 0, k, abstained))
        assert cons_at_k(class_sizes, 0, k, abstained) == pytest.approx(expected, abs=1e-12), (k, abstained)


def test_cons_at_k_limits() -> None:
    assert cons_at_k([3, 2], None, 3) == 0.0
    assert cons_at_k([3, 5], 0, 1) == pass_at_k(8, 3, 1)
    assert cons_at_k([], None, 2, abstained=4) == 0.0
    with pytest.raises(ValueError, match="k=6"):
        cons_at_k([3, 2], 0, 6)
    # two answers with probability 3/5 and 2/5, three draws: p^3 + 3 p^2 q = 27/125 + 54/125
    assert cons_at_k_of_distribution([Fraction(3, 5), Fraction(2, 5)], 0, 3) == 81 / 125


def test_reference_values_of_the_estimators(reference: dict[str, Any]) -> None:
    for case in reference["pass_at_k"]["cases"]:
        assert pass_at_k(case["n"], case["c"], case["k"]) == pytest.approx(case["float"], abs=1e-9)
    for case in reference["pass_hat_k"]["cases"]:
        assert pass_hat_k(case["n"], case["c"], case["k"]) == pytest.approx(case["float"], abs=1e-9)
    for case in reference["pass_at_k_dataset"]:
        assert mean_pass_at_k(case["problems"], case["k"]) == pytest.approx(case["float"], abs=1e-9)
    for case in reference["maj_at_k"]["cases"]:
        names = list(case.get("counts") or case["probs"])
        correct = names.index(case["correct"])
        if "counts" in case:
            found = cons_at_k(list(case["counts"].values()), correct, case["k"])
        else:
            found = cons_at_k_of_distribution(
                [Fraction(p) for p in case["probs"].values()], correct, case["k"]
            )
        assert found == pytest.approx(case["float"], abs=1e-9), case


def test_reference_values_of_biased_and_unbiased_expectations(reference: dict[str, Any]) -> None:
    for case in reference["pass_at_k_unbiasedness"]["cases"]:
        n, k, p = case["n"], case["k"], Fraction(case["p"])
        weights = [float(math.comb(n, c) * p**c * (1 - p) ** (n - c)) for c in range(n + 1)]
        unbiased = math.fsum(w * pass_at_k(n, c, k) for c, w in enumerate(weights))
        simple = math.fsum(w * pass_at_k_simple(n, c, k) for c, w in enumerate(weights))
        assert unbiased == pytest.approx(case["expectation_of_unbiased"]["float"], abs=1e-9)
        assert simple == pytest.approx(case["expectation_of_biased_plugin"]["float"], abs=1e-9)


def test_reference_values_of_the_errors(reference: dict[str, Any]) -> None:
    for case in reference["binomial_ci"]["cases"]:
        assert wilson(case["c"] / case["n"], case["n"]) == pytest.approx(tuple(case["wilson"]), abs=1e-9)
    for case in reference["mean_at_k_errors"]["cases"]:
        means = [sum(row) / len(row) for row in case["scores"]]
        assert mean_at_k(case["scores"]) == pytest.approx(case["mean_at_K"]["float"], abs=1e-9)
        run_to_run = math.sqrt(run_to_run_variance(means, [len(row) for row in case["scores"]]))
        assert run_to_run == pytest.approx(case["run_to_run_se_of_mean"], abs=1e-9)
        if case["N"] > 1:  # of_mean is the mean +- t x the standard error over problems
            low, high = of_mean(means)
            assert (high - low) / 2 == pytest.approx(
                student_t_quantile(case["N"] - 1) * case["se_of_mean_by_problem"], abs=1e-9
            )
    case = reference["paired_difference"]
    mean_a, mean_b = ([sum(row) / len(row) for row in case[name]] for name in "ab")
    difference = paired_difference(mean_b, mean_a)
    assert difference.difference == pytest.approx(case["mean_diff"]["float"], abs=1e-9)
    assert difference.standard_error == pytest.approx(case["se"], abs=1e-9)


def test_student_t_quantiles() -> None:
    # Two-sided 95 % points of the usual tables.
    table = {
        1: 12.7062047362,
        2: 4.3026527297,
        3: 3.1824463053,
        5: 2.5705818356,
        29: 2.0452296421,
        30: 2.0422724563,
        499: 1.9647293910,
    }
    for degrees, quantile in table.items():
        assert student_t_quantile(degrees) == pytest.approx(quantile, abs=1e-9)


def test_intervals_at_the_ends() -> None:
    # Nothing right on 30 problems: Wilson with n = 30 and t = 2.04523, high = t^2 / (30 + t^2) =
    # 4.18296/34.18296.
    assert over_problems([0.0] * 30) == (0.0, pytest.approx(0.122370, abs=1e-6))
    assert over_problems([1.0] * 30) == (pytest.approx(0.877630, abs=1e-6), 1.0)
    assert over_problems([0.5]) is None
    assert of_mean([3.0]) is None
    assert over_samples([0.5, 1.0], [4, 1]) is None


def simulated_means(rng: np.random.Generator, rates: np.ndarray, num_samples: int) -> np.ndarray:
    return rng.binomial(num_samples, rates) / num_samples


SIZES = [(30, 16), (500, 4)]
SHAPES = [(1.0, 1.0), (0.3, 0.5), (2.0, 5.0), (0.3, 3.0), (5.0, 0.5)]
"""Beta distributions of the success rates: flat, most problems always or never solved, most hard, nearly all
hard, nearly all easy. The table in r1rl/scoring/intervals.py has more, also those that 30 problems are too
few for (0.92 to 0.935).
"""


@pytest.mark.parametrize(("num_problems", "num_samples"), SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_interval_over_problems_covers_the_mean_of_such_problems(
    num_problems: int, num_samples: int, shape: tuple[float, float]
) -> None:
    rng = np.random.default_rng(17)
    means = simulated_means(rng, rng.beta(*shape, (2000, num_problems)), num_samples)
    truth = shape[0] / sum(shape)
    covered = sum(low <= truth <= high for low, high in map(over_problems, means.tolist())) / 2000
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("num_problems", "num_samples"), SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_interval_over_samples_covers_the_mean_of_these_problems(
    num_problems: int, num_samples: int, shape: tuple[float, float]
) -> None:
    rng = np.random.default_rng(18)
    rates = rng.beta(*shape, num_problems)
    means = simulated_means(rng, np.broadcast_to(rates, (2000, num_problems)), num_samples)
    counts = [num_samples] * num_problems
    covered = (
        sum(
            low <= rates.mean() <= high for low, high in (over_samples(row, counts) for row in means.tolist())
        )
        / 2000
    )
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("num_problems", "num_samples"), SIZES)
def test_interval_of_pass_at_k_covers_its_expectation(num_problems: int, num_samples: int) -> None:
    # p ~ Beta(a, b): E[(1 - p)^4] = B(a, b + 4) / B(a, b) = product over i < 4 of (b + i) / (a + b + i)
    a, b, k = 0.3, 0.5, 4
    truth = 1 - math.prod((b + i) / (a + b + i) for i in range(k))
    rng = np.random.default_rng(21)
    right = rng.binomial(num_samples, rng.beta(a, b, (2000, num_problems)))
    of_count = np.array([pass_at_k(num_samples, c, k) for c in range(num_samples + 1)])
    covered = sum(low <= truth <= high for low, high in map(over_problems, of_count[right].tolist())) / 2000
    assert 0.93 <= covered <= 0.97


def test_treating_all_samples_as_independent_covers_too_little() -> None:
    # What the interval over problems is there for: the same simulation with 30 x 16 draws taken as
    # independent.
    rng = np.random.default_rng(19)
    means = simulated_means(rng, rng.beta(0.3, 0.5, (2000, 30)), 16)
    covered = (
        sum(low <= 0.375 <= high for low, high in (wilson(mean, 30 * 16) for mean in means.mean(1))) / 2000
    )
    assert covered < 0.60


@pytest.mark.parametrize(("num_problems", "num_samples"), SIZES)
def test_paired_interval_covers_the_difference_and_is_narrower_than_an_unpaired_one(
    num_problems: int, num_samples: int
) -> None:
    rng = np.random.default_rng(20)
    base = rng.beta(0.5, 0.7, (2000, num_problems))
    gain = 0.1 * (1 - base)  # a tenth of what was wrong; its mean is 0.1 * (1 - 0.5/1.2)
    first, second = simulated_means(rng, base, num_samples), simulated_means(rng, base + gain, num_samples)
    found = [paired_difference(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    truth = 0.1 * (1 - 0.5 / 1.2)
    assert 0.93 <= sum(one.ci95[0] <= truth <= one.ci95[1] for one in found) / 2000 <= 0.97
    unpaired = math.sqrt((first.var(1, ddof=1) + second.var(1, ddof=1)).mean() / num_problems)
    assert np.mean([one.standard_error for one in found]) < 0.75 * unpaired


def test_differences_that_are_all_equal_are_not_certain() -> None:
    # Nothing solved by either on 60 problems: t(59) = 2.000995, w = t^2 / (60 + t^2) = 4.003983 / 64.003983 =
    # 0.0625583.
    none = paired_difference([0.0] * 60, [0.0] * 60)
    assert (none.difference, none.standard_error) == (0.0, 0.0) and not none.is_significant
    assert none.ci95 == pytest.approx((-0.0625583, 0.0625583), abs=1e-6)
    # All solved by the second alone: at worst a share w of all problems the other way round.
    every = paired_difference([0.0] * 60, [1.0] * 60)
    assert every.ci95 == pytest.approx((1 - 2 * 0.0625583, 1.0), abs=1e-6) and every.is_significant
    assert not paired_difference([0.0] * 2, [1.0] * 2).is_significant
    # 0.7 - 0.6 and 0.4 - 0.3 differ by rounding alone.
    rounded = paired_difference([0.6, 0.3, 0.6], [0.7, 0.4, 0.7])
    assert rounded.ci95 is not None and rounded.ci95[1] - rounded.ci95[0] > 0.1


def test_paired_difference_by_hand() -> None:
    # differences 0.5, 0.5, 0, 0.5: mean 0.375, variance 0.0625, standard error 0.125, t(3) = 3.182446
    found = paired_difference([0.0, 0.5, 0.5, 0.25], [0.5, 1.0, 0.5, 0.75])
    assert (found.difference, found.standard_error) == (0.375, 0.125)
    assert found.ci95 == pytest.approx((0.375 - 0.125 * 3.1824463, 0.375 + 0.125 * 3.1824463), abs=1e-6)
    assert not found.is_significant
    assert paired_difference([0.0, 0.1, 0.0, 0.1], [0.9, 1.0, 1.0, 1.0]).is_significant
    assert paired_difference([0.5], [1.0]).ci95 is None and math.isnan(
        paired_difference([0.5], [1.0]).standard_error
    )
    with pytest.raises(ValueError, match="the same problems"):
        paired_difference([1.0], [1.0, 0.0])
