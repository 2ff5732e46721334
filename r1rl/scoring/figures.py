"""The figures of one model on one set of problems, from its scored completions: the same names everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from r1rl.grading import Outcome
from r1rl.scoring.completions import NO_ANSWER, UNDECIDED, ScoredCompletion, ScoredProblem
from r1rl.scoring.estimators import cons_at_k, pass_at_k, powers_of_two
from r1rl.scoring.intervals import mean_estimate, over_samples, rate_estimate
from r1rl.scoring.limits import lower_limits

Figure = dict[str, Any] | None
"""A figure with its interval, {"value": 0.4, "ci95": [0.3, 0.5] or None}; None where it can't be told."""


def figures(
    problems: Sequence[ScoredProblem], num_samples: int, max_completion_length: int | None = None
) -> dict[str, Any]:
    """Return everything that is known of the completions, as JSON values.

    A figure with a 95 % interval is {"value", "ci95"}, and None where it can't be told; intervals are over
    problems (r1rl.scoring.intervals). Unless said otherwise a figure is the mean over problems of the mean
    over a problem's completions.

    - num_problems, num_samples (completions per problem), num_undecided (completions that should have a
      verdict and have none).
    - accuracy (avg@n): right completions among those with a verdict. accuracy_ci95_same_problems: its
      interval over the samples of these very problems. accuracy_undecided_as_wrong: the same with every
      undecided completion counted as not right, a lower bound.
    - pass_at_<k>, cons_at_<k>: expectations over k of the n completions (r1rl.scoring.estimators).
    - mean_length: tokens. truncated_rate: cut off by the token limit. reflection_rate, well_formed_rate: see
      `Traits` and `ScoredCompletion`. language_consistency: the share of words in the completion's main
      language. asked_language: the share of the thoughts' words in the problem's language.
    - outcomes: completions by typed grading outcome. rates: shares of all of these (extraction_failure is
      no_answer + malformed; undecided is in no accuracy); None where no grader told outcomes.
    - correct, wrong: count, length, reflection and language of the right completions and of those that are
      not.
    - rewards: the mean of each reward over the completions to which it applies. events: the rewards' counts.
    - by_value: the same figures for the problems of each value of a column, {column: {value: figures}}.
    - by_limit, where `max_completion_length` is given: the figures that a lower token limit would have given.
    """
    result = _figures(problems, num_samples)
    by_value: dict[str, dict[str, list[ScoredProblem]]] = {}
    for problem in problems:
        for column, value in problem.groups.items():
            by_value.setdefault(column, {}).setdefault(value, []).append(problem)
    if by_value:
        result["by_value"] = {
            column: {value: _figures(own, num_samples) for value, own in sorted(values.items())}
            for column, values in by_value.items()
        }
    if max_completion_length is not None:
        limits = (*lower_limits(max_completion_length), max_completion_length)
        result["by_limit"] = [_at_limit(problems, limit) for limit in limits]
    return result


def problem_rows(problems: Sequence[ScoredProblem]) -> list[dict[str, Any]]:
    """Return what result.json keeps of each problem: enough for a paired comparison and to find what went
    wrong.
    """
    return [
        {
            "id": problem.id,
            "answer": problem.answer,
            "accuracy": problem.accuracy,
            "outcomes": dict(problem.outcomes()),
            "truncated": sum(sample.is_truncated for sample in problem.samples),
            "mean_length": fmean(sample.num_tokens for sample in problem.samples),
            **({"groups": problem.groups} if problem.groups else {}),
        }
        for problem in problems
    ]


def _figures(problems: Sequence[ScoredProblem], num_samples: int) -> dict[str, Any]:
    decided = [problem for problem in problems if problem.num_decided]
    means = [problem.num_correct / problem.num_decided for problem in decided]
    same_problems = over_samples(means, [problem.num_decided for problem in decided])
    graded = [problem for problem in problems if problem.has_outcome]
    samples = [sample for problem in problems for sample in problem.samples]
    events: Counter[str] = Counter()
    for problem in problems:
        events.update(problem.events)
    return {
        "num_problems": len(problems),
        "num_samples": num_samples,
        "num_undecided": sum(len(problem.samples) - problem.num_decided for problem in graded),
        "accuracy": rate_estimate(means),
        "accuracy_ci95_same_problems": None if same_problems is None else list(same_problems),
        "accuracy_undecided_as_wrong": rate_estimate(
            [problem.num_correct / len(problem.samples) for problem in graded]
        ),
        **{f"pass_at_{k}": _pass_at(problems, k) for k in powers_of_two(num_samples)},
        **{f"cons_at_{k}": _cons_at(problems, k) for k in powers_of_two(num_samples) if k > 1},
        "mean_length": mean_estimate(_per_problem(problems, lambda sample: sample.num_tokens)),
        "truncated_rate": _rate(problems, lambda sample: sample.is_truncated),
        "reflection_rate": _rate(problems, lambda sample: sample.traits.reflects),
        "well_formed_rate": _rate(problems, lambda sample: sample.well_formed),
        "language_consistency": _rate(problems, lambda sample: sample.traits.language_consistency),
        "asked_language": _rate(problems, lambda sample: sample.traits.asked_language),
        **_outcomes(problems),
        "correct": _portrait([sample for sample in samples if sample.correct]),
        "wrong": _portrait([sample for sample in samples if sample.correct is False]),
        "rewards": {
            name: mean_estimate(_per_problem(problems, lambda sample, name=name: sample.rewards.get(name)))  # type: ignore[misc]
            for name in dict.fromkeys(name for sample in samples for name in sample.rewards)
        },
        "events": dict(sorted(events.items())),
    }


def _per_problem(
    problems: Sequence[ScoredProblem], value: Callable[[ScoredCompletion], float | None]
) -> list[float]:
    """Return each problem's mean of a value over its completions; those without it are left out."""
    known = ([v for sample in problem.samples if (v := value(sample)) is not None] for problem in problems)
    return [fmean(values) for values in known if values]


def _rate(problems: Sequence[ScoredProblem], value: Callable[[ScoredCompletion], float | None]) -> Figure:
    return rate_estimate(_per_problem(problems, value))


def _pass_at(problems: Sequence[ScoredProblem], k: int) -> Figure:
    """Return pass@k over the problems with at least k decided completions."""
    return rate_estimate([pass_at_k(p.num_decided, p.num_correct, k) for p in problems if p.num_decided >= k])


def _cons_at(problems: Sequence[ScoredProblem], k: int) -> Figure:
    """Return cons@k over the problems whose gold answer can be voted for."""
    return rate_estimate(
        [
            cons_at_k(*problem.votes[:2], k, problem.votes[2])
            for problem in problems
            if problem.votes is not None
            and any(sample.outcome != Outcome.UNPARSEABLE_GOLD for sample in problem.samples)
        ]
    )


def _outcomes(problems: Sequence[ScoredProblem]) -> dict[str, Any]:
    """Return the counts of the typed outcomes, and their shares of the completions that have one."""
    outcomes: Counter[str] = Counter()
    for problem in problems:
        outcomes.update(problem.outcomes())
    total = outcomes.total()
    typed = [sample for problem in problems for sample in problem.samples if sample.outcome is not None]

    def share(*names: Outcome) -> float | None:
        return sum(outcomes[name.value] for name in names) / total if total else None

    return {
        "outcomes": {outcome.value: outcomes[outcome.value] for outcome in Outcome},
        "rates": {
            "wrong": share(Outcome.WRONG),
            "no_answer": share(Outcome.NO_ANSWER),
            "malformed": share(Outcome.MALFORMED),
            "extraction_failure": share(*NO_ANSWER),
            "undecided": share(*UNDECIDED),
            "truncated_without_answer": fmean(
                sample.is_truncated and sample.outcome in NO_ANSWER for sample in typed
            )
            if typed
            else None,
        },
    }


def _portrait(samples: Sequence[ScoredCompletion]) -> dict[str, Any]:
    """Return plain means over completions: no interval, since right and other ones come from different
    problems.
    """
    spoken = [s.traits.language_consistency for s in samples if s.traits.language_consistency is not None]
    return {
        "count": len(samples),
        "mean_length": fmean(sample.num_tokens for sample in samples) if samples else None,
        "reflection_rate": fmean(sample.traits.reflects for sample in samples) if samples else None,
        "language_consistency": fmean(spoken) if spoken else None,
    }


def _at_limit(problems: Sequence[ScoredProblem], limit: int) -> dict[str, Any]:
    """Return what a token limit would have given: the same completions, cut off there and graded again.

    "truncated_rate" is the plain share of completions that are cut; "is_lower_bound": some were cut at a
    place that is not known, and count as not right.
    """
    samples = [sample for problem in problems for sample in problem.samples]
    cut = [sample for sample in samples if sample.num_tokens > limit]
    means = []
    for problem in problems:
        verdicts = [_correct_at(sample, limit) for sample in problem.samples]
        decided = [verdict for verdict in verdicts if verdict is not None]
        means += [fmean(decided)] if decided else []
    return {
        "limit": limit,
        "accuracy": rate_estimate(means),
        "truncated_rate": len(cut) / len(samples),
        "is_lower_bound": any(limit not in sample.outcome_at for sample in cut),
    }


def _correct_at(sample: ScoredCompletion, limit: int) -> bool | None:
    """Return the verdict at a limit: not right where the limit would have cut the completion at a place that
    is not known.
    """
    if sample.num_tokens <= limit or (limit not in sample.outcome_at and sample.correct is None):
        return sample.correct
    outcome = sample.outcome_at.get(limit)
    return None if outcome in UNDECIDED else outcome == Outcome.CORRECT
