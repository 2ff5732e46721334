"""An evaluation: every sampled answer with its grade, and the figures that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from r1rl.monitor.summary import Contrast
from r1rl.scoring.estimators import pass_at_k, powers_of_two
from r1rl.scoring.intervals import mean_estimate, over_samples, rate_estimate

FORMAT_REWARD = "format"
"""The reward whose full value means that a completion is well-formed."""


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """One completion and what is known of it."""

    text: str
    length: int
    """Tokens, EOS included."""
    finish_reason: str
    outcome: float | None
    """The outcome reward; None if it could not be told (a timeout, an unreadable gold answer), which is not
    "wrong".
    """
    rewards: dict[str, float | None]
    reflects: bool
    language: float | None = None
    """The share of the words that are in the completion's main language; None without words."""

    @property
    def is_correct(self) -> bool:
        """Right in full: an outcome of 1."""
        return self.outcome is not None and self.outcome >= 1.0


@dataclass(frozen=True, slots=True)
class AnsweredProblem:
    """One problem with all its sampled answers."""

    id: str
    problem: str
    answer: str | None
    prompt: str
    samples: list[SampledAnswer]
    events: dict[str, int] = field(default_factory=dict)
    """Counts of the rewards, such as "grading/timeout"."""
    has_outcome: bool = True
    """Whether answers can be right or wrong: False where the outcome reward's `where` leaves the problem out.
    """
    values: dict[str, str] = field(default_factory=dict)
    """The problem's values of the columns that the rewards' `where` names, such as {"domain": "helpfulness"}.
    """

    @property
    def num_graded(self) -> int:
        """Samples whose outcome is known."""
        return sum(1 for sample in self.samples if sample.outcome is not None)

    @property
    def num_correct(self) -> int:
        """Samples that are right."""
        return sum(1 for sample in self.samples if sample.is_correct)

    @property
    def accuracy(self) -> float:
        """Share of right ones among the graded samples; there must be one."""
        return self.num_correct / self.num_graded


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All problems of an evaluation, in the order in which they were asked."""

    problems: list[AnsweredProblem]
    num_samples: int
    seed: int
    sampling: dict[str, Any]
    """The sampling parameters."""

    def graded(self) -> list[AnsweredProblem]:
        """The problems with at least one graded sample: those that the accuracy is about."""
        return [problem for problem in self.problems if problem.num_graded]

    def figures(self) -> dict[str, Any]:
        """JSON values. A figure with an interval is {"value": ..., "ci95": [low, high] or None}; absent ones
        are None.

        accuracy, pass_at_<k>, mean_length (tokens), reflection_rate, truncated_rate, format_rate,
        language_consistency; intervals are over problems. accuracy_ci95_same_problems is over the samples of
        these problems only (see r1rl.scoring.intervals). num_not_graded counts samples that should have an
        outcome and have none; they are in no accuracy. `rewards` has the mean of each reward over the rows to
        which it applies. Where the recipe's rewards have a `where`, `by_value` has the same figures for each
        value of its columns: by_value["domain"]["helpfulness"].
        """
        by_value: dict[str, dict[str, list[AnsweredProblem]]] = {}
        for problem in self.problems:
            for column, value in problem.values.items():
                by_value.setdefault(column, {}).setdefault(value, []).append(problem)
        parts = {
            column: {value: replace(self, problems=own)._figures() for value, own in sorted(values.items())}
            for column, values in sorted(by_value.items())
        }
        return {**self._figures(), **({"by_value": parts} if parts else {})}

    def _figures(self) -> dict[str, Any]:
        graded = self.graded()
        means = [problem.accuracy for problem in graded]
        same = over_samples(means, [problem.num_graded for problem in graded])
        events: Counter[str] = Counter()
        for problem in self.problems:
            events.update(problem.events)
        return {
            "num_problems": len(self.problems),
            "num_samples": self.num_samples,
            "num_not_graded": sum(
                len(problem.samples) - problem.num_graded for problem in self.problems if problem.has_outcome
            ),
            "accuracy": rate_estimate(means),
            "accuracy_ci95_same_problems": None if same is None else list(same),
            **{f"pass_at_{k}": rate_estimate(self._pass_at(k)) for k in powers_of_two(self.num_samples)},
            "mean_length": mean_estimate(self._per_problem(lambda sample: float(sample.length))),
            "reflection_rate": rate_estimate(self._per_problem(lambda sample: float(sample.reflects))),
            "truncated_rate": rate_estimate(
                self._per_problem(lambda sample: float(sample.finish_reason == "length"))
            ),
            "format_rate": rate_estimate(self._per_problem(_well_formed)),
            "language_consistency": rate_estimate(self._per_problem(lambda sample: sample.language)),
            "rewards": {
                name: mean_estimate(self._per_problem(_reward_of(name))) for name in self._reward_names()
            },
            "events": dict(sorted(events.items())),
        }

    def as_json(self) -> dict[str, Any]:
        """The figures and every answer: what evaluations/<name>.json holds."""
        return {
            "figures": self.figures(),
            "num_samples": self.num_samples,
            "seed": self.seed,
            "sampling": self.sampling,
            "problems": [asdict(problem) for problem in self.problems],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Evaluation:
        """The inverse of `as_json`."""
        problems = []
        for problem in record["problems"]:
            samples = [SampledAnswer(**sample) for sample in problem["samples"]]
            problems.append(AnsweredProblem(**{**problem, "samples": samples}))
        return cls(problems, record["num_samples"], record["seed"], dict(record["sampling"]))

    def _per_problem(self, value: Callable[[SampledAnswer], float | None]) -> list[float]:
        """Each problem's mean of a value over its samples; samples and problems without it are left out."""
        known = (
            [v for sample in problem.samples if (v := value(sample)) is not None] for problem in self.problems
        )
        return [fmean(values) for values in known if values]

    def _reward_names(self) -> list[str]:
        return list(
            dict.fromkeys(
                name for problem in self.problems for sample in problem.samples for name in sample.rewards
            )
        )

    def _pass_at(self, k: int) -> list[float]:
        """Each problem's pass@k, over the problems with at least k graded samples."""
        return [pass_at_k(p.num_graded, p.num_correct, k) for p in self.problems if p.num_graded >= k]


def find_contrast(before: Evaluation, after: Evaluation) -> Contrast | None:
    """The same problem answered by both models, chosen to show what was learnt; None if they share no
    problem.

    A problem that was mostly wrong before and is right after, by an answer that reflects if there is one; of
    several the first.
    """
    earlier = {problem.id: problem for problem in before.problems}
    pairs = [(earlier[problem.id], problem) for problem in after.problems if problem.id in earlier]
    if not pairs:
        return None
    old, new = max(pairs, key=_learnt)  # max keeps the first of equals
    was = min(old.samples, key=lambda sample: sample.is_correct)
    # The longest right answer that reflects shows best what was learnt: an attempt that failed, was noticed
    # and was repaired.
    now = max(new.samples, key=lambda sample: (sample.is_correct, sample.reflects, sample.length))
    return Contrast(new.problem, new.answer, was.text, now.text, was.is_correct, now.is_correct)


def _learnt(pair: tuple[AnsweredProblem, AnsweredProblem]) -> tuple[bool, bool, int]:
    old, new = pair
    has_wrong = any(not sample.is_correct for sample in old.samples)
    shows_reflection = any(sample.is_correct and sample.reflects for sample in new.samples)
    return has_wrong and new.num_correct > 0, shows_reflection, new.num_correct - old.num_correct


def _reward_of(name: str) -> Callable[[SampledAnswer], float | None]:
    return lambda sample: sample.rewards.get(name)


def _well_formed(sample: SampledAnswer) -> float | None:
    value = sample.rewards.get(FORMAT_REWARD)
    return None if value is None else float(value >= 1.0)
