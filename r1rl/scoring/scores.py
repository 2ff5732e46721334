"""The figures of one model on one benchmark, from its graded completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from r1rl.grading import Outcome
from r1rl.scoring.estimators import cons_at_k, pass_at_k, powers_of_two
from r1rl.scoring.grades import NO_ANSWER, UNDECIDED, GradedProblem, GradedSample
from r1rl.scoring.intervals import mean_estimate, over_samples, rate_estimate
from r1rl.scoring.limits import lower_limits


def score(problems: Sequence[GradedProblem], num_samples: int, max_completion_length: int) -> dict[str, Any]:
    """JSON values; a figure with an interval is {"value", "ci95"}, one that can't be told is None. Intervals
    are over problems.

    accuracy (avg@n): the mean over problems of the share of right completions among those that the grader
    could decide. accuracy_undecided_as_wrong: the same with every undecided completion counted as not right,
    a lower bound. pass_at_<k>, cons_at_<k>: expectations over k of the n completions
    (r1rl.scoring.estimators). outcomes: completions by outcome; rates: shares of all completions.
    extraction_failure_rate is no_answer + malformed. readability: well_formed, the share of completions in
    exact think/answer tags, and language_consistency, the share of the words of the thoughts that are in the
    problem's language (thoughts without words have none); means over problems of means over completions. by:
    the accuracy within each value of the benchmark's group_by columns. by_limit: what a token limit of
    "limit" would have given, the same completions cut off there and graded again: "accuracy", and
    "truncated", the share that is cut. "is_lower_bound": some were cut at a place that is not known, and
    count as not right. correct, wrong: tokens, reflection and language of the right completions and of all
    that were decided otherwise.
    """
    decided = [problem for problem in problems if problem.num_decided]
    means = [problem.num_correct / problem.num_decided for problem in decided]
    same_problems = over_samples(means, [problem.num_decided for problem in decided])
    samples = [sample for problem in problems for sample in problem.samples]
    outcomes = Counter(sample.outcome for sample in samples)
    return {
        "num_problems": len(problems),
        "num_samples": num_samples,
        "accuracy": rate_estimate(means),
        "accuracy_ci95_same_problems": None if same_problems is None else list(same_problems),
        "accuracy_undecided_as_wrong": rate_estimate(
            [problem.num_correct / len(problem.samples) for problem in problems]
        ),
        **{f"pass_at_{k}": _pass_at(problems, k) for k in powers_of_two(num_samples) if k > 1},
        **{f"cons_at_{k}": _cons_at(problems, k) for k in powers_of_two(num_samples) if k > 1},
        "outcomes": {outcome.value: outcomes[outcome.value] for outcome in Outcome},
        "rates": {
            "truncated": _share(samples, lambda sample: sample.is_truncated),
            "truncated_without_answer": _share(
                samples, lambda sample: sample.is_truncated and sample.outcome in NO_ANSWER
            ),
            "extraction_failure": _share(samples, lambda sample: sample.outcome in NO_ANSWER),
            "no_answer": _share(samples, lambda sample: sample.outcome == Outcome.NO_ANSWER),
            "malformed": _share(samples, lambda sample: sample.outcome == Outcome.MALFORMED),
            "wrong": _share(samples, lambda sample: sample.outcome == Outcome.WRONG),
            "undecided": _share(samples, lambda sample: not sample.is_decided),
        },
        "mean_tokens": mean_estimate(
            [fmean(sample.tokens for sample in problem.samples) for problem in problems]
        ),
        "readability": {
            "well_formed": rate_estimate(
                [fmean(float(sample.well_formed) for sample in problem.samples) for problem in problems]
            ),
            "language_consistency": _language_consistency(problems),
        },
        "correct": _portrait([sample for sample in samples if sample.is_correct]),
        "wrong": _portrait([sample for sample in samples if sample.is_decided and not sample.is_correct]),
        "by": _by_group(decided),
        "by_limit": [
            _at_limit(problems, limit)
            for limit in (*lower_limits(max_completion_length), max_completion_length)
        ],
    }


def problem_rows(problems: Sequence[GradedProblem]) -> list[dict[str, Any]]:
    """What result.json keeps of each problem: enough for a paired comparison and to find what went wrong."""
    return [
        {
            "id": problem.id,
            "answer": problem.answer,
            "accuracy": problem.accuracy,
            "outcomes": dict(Counter(sample.outcome for sample in problem.samples)),
            "truncated": sum(sample.is_truncated for sample in problem.samples),
            "mean_tokens": fmean(sample.tokens for sample in problem.samples),
            **({"groups": problem.groups} if problem.groups else {}),
        }
        for problem in problems
    ]


def _pass_at(problems: Sequence[GradedProblem], k: int) -> dict[str, Any] | None:
    """Over the problems with at least k decided completions."""
    return rate_estimate([pass_at_k(p.num_decided, p.num_correct, k) for p in problems if p.num_decided >= k])


def _cons_at(problems: Sequence[GradedProblem], k: int) -> dict[str, Any] | None:
    """Over all problems whose gold answer can be voted for."""
    gradable = [
        p for p in problems if any(sample.outcome != Outcome.UNPARSEABLE_GOLD for sample in p.samples)
    ]
    return rate_estimate(
        [
            cons_at_k(sizes, right, k, none)
            for p in gradable
            if p.votes is not None
            for sizes, right, none in [p.votes]
        ]
    )


def _share(samples: Sequence[GradedSample], condition: Callable[[GradedSample], bool]) -> float:
    return fmean(float(condition(sample)) for sample in samples)


def _language_consistency(problems: Sequence[GradedProblem]) -> dict[str, Any] | None:
    known = (
        [one.asked_language for one in problem.samples if one.asked_language is not None]
        for problem in problems
    )
    return rate_estimate([fmean(shares) for shares in known if shares])


def _portrait(samples: Sequence[GradedSample]) -> dict[str, Any]:
    """Plain means over completions: no interval, since right and wrong ones come from different problems."""
    words = [sample.language for sample in samples if sample.language is not None]
    return {
        "count": len(samples),
        "tokens": fmean(sample.tokens for sample in samples) if samples else None,
        "reflection_rate": _share(samples, lambda sample: sample.reflects) if samples else None,
        "language_consistency": fmean(words) if words else None,
    }


def _by_group(decided: Sequence[GradedProblem]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for column in dict.fromkeys(column for problem in decided for column in problem.groups):
        values = sorted({problem.groups[column] for problem in decided if column in problem.groups})
        result[column] = {}
        for value in values:
            means = [p.num_correct / p.num_decided for p in decided if p.groups.get(column) == value]
            result[column][value] = {"num_problems": len(means), "accuracy": rate_estimate(means)}
    return result


def _at_limit(problems: Sequence[GradedProblem], limit: int) -> dict[str, Any]:
    samples = [sample for problem in problems for sample in problem.samples]
    cut = [sample for sample in samples if sample.tokens > limit]
    means = []
    for problem in problems:
        outcomes = [_outcome_at(sample, limit) for sample in problem.samples]
        decided = [outcome == Outcome.CORRECT for outcome in outcomes if outcome not in UNDECIDED]
        means += [fmean(decided)] if decided else []
    return {
        "limit": limit,
        "accuracy": rate_estimate(means),
        "truncated": len(cut) / len(samples),
        "is_lower_bound": any(limit not in sample.outcome_at for sample in cut),
    }


def _outcome_at(sample: GradedSample, limit: int) -> str | None:
    """None, which is not right, where the limit would have cut the completion at a place that is not known."""
    if sample.tokens <= limit or (limit not in sample.outcome_at and not sample.is_decided):
        return sample.outcome
    return sample.outcome_at.get(limit)
