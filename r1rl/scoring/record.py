"""An evaluation within a training run: every scored completion, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from r1rl.monitor.summary import Contrast
from r1rl.scoring.completions import ScoredProblem, former_problem, is_former_problem
from r1rl.scoring.figures import figures


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All problems of an evaluation, in the order in which they were asked."""

    problems: list[ScoredProblem]
    num_samples: int
    seed: int
    sampling: dict[str, Any]
    """The sampling parameters."""

    def figures(self) -> dict[str, Any]:
        """Return the figures of all problems; see `r1rl.scoring.figures.figures`."""
        return figures(self.problems, self.num_samples)

    def as_json(self) -> dict[str, Any]:
        """Return the figures and every completion, which is what evaluations/<name>.json holds."""
        return {
            "figures": self.figures(),
            "num_samples": self.num_samples,
            "seed": self.seed,
            "sampling": self.sampling,
            "problems": [asdict(problem) for problem in self.problems],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation of such a record, also of one that was written before `ScoredProblem` was
        made.
        """
        problems = [
            former_problem(problem) if is_former_problem(problem) else ScoredProblem.from_json(problem)
            for problem in record["problems"]
        ]
        return cls(problems, record["num_samples"], record["seed"], dict(record["sampling"]))


def find_contrast(before: Evaluation, after: Evaluation) -> Contrast | None:
    """Return the same problem answered by both models, chosen to show what was learnt; None if they share no
    problem.

    It is one that had wrong answers before and has right ones after, by an answer that reflects if there is
    one, and that gained most; of several the first.
    """
    earlier = {problem.id: problem for problem in before.problems}
    pairs = [(earlier[problem.id], problem) for problem in after.problems if problem.id in earlier]
    if not pairs:
        return None
    old, new = max(pairs, key=_learnt)  # max keeps the first of equals
    was = min(old.samples, key=lambda sample: bool(sample.correct))
    # The longest right answer that reflects shows best what was learnt: an attempt that failed, was noticed
    # and was repaired.
    now = max(
        new.samples, key=lambda sample: (bool(sample.correct), sample.traits.reflects, sample.num_tokens)
    )
    return Contrast(new.problem, new.answer, was.text, now.text, bool(was.correct), bool(now.correct))


def _learnt(pair: tuple[ScoredProblem, ScoredProblem]) -> tuple[bool, bool, int]:
    old, new = pair
    has_wrong = any(not sample.correct for sample in old.samples)
    shows_reflection = any(sample.correct and sample.traits.reflects for sample in new.samples)
    return has_wrong and new.num_correct > 0, shows_reflection, new.num_correct - old.num_correct
