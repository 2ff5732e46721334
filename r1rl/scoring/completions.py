"""The record of a scored completion and of a problem with all its completions.

Evaluations within training runs, which score with the recipe's rewards, and `r1rl evaluate`, which grades by
the rule of a benchmark, make the same records, so that one function (`r1rl.scoring.figures`) computes the
same figures from both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1rl.grading import Outcome
from r1rl.text.language import LANGUAGES, consistency, language_share, main_language
from r1rl.text.reflection import reflects
from r1rl.text.tags import thoughts
from r1rl.types import Prompt

NO_ANSWER = (Outcome.NO_ANSWER, Outcome.MALFORMED)
"""The outcomes of completions from which no answer could be extracted: not right, and never counted as wrong.
"""
UNDECIDED = (Outcome.TIMEOUT, Outcome.CRASHED, Outcome.UNPARSEABLE_GOLD)
"""The outcomes with which the grader could not tell; such completions are in no accuracy."""
GRADING_EVENT = "grading/"
"""The beginning of the names under which rewards count grading outcomes."""

Votes = tuple[tuple[int, ...], int | None, int]
"""A majority vote: the sizes of the classes of equivalent answers, the index of the right class (None if
nobody voted for it), and the number of completions without an answer.
"""


@dataclass(frozen=True, slots=True)
class Traits:
    """The properties of a completion's text that need no grader."""

    reflects: bool
    """A flag, true if the text questions, checks or redoes its own work (r1rl.text.reflection)."""
    language_consistency: float | None
    """The share of the words that are in the completion's main language; None without words."""
    asked_language: float | None
    """The share of the words of the thoughts that are in the problem's language (the language consistency
    reward of DeepSeek-R1, 2501.12948, section 2.3.2); None without words in either.
    """

    @classmethod
    def of(cls, prompt: Prompt, text: str) -> Traits:
        """Return the traits of a completion of a prompt."""
        asked = main_language(prompt.problem.problem)
        known = asked in LANGUAGES
        return cls(
            reflects=reflects(text),
            language_consistency=consistency(text),
            asked_language=language_share(thoughts(prompt.prefill + text), str(asked)) if known else None,
        )


@dataclass(frozen=True, slots=True)
class ScoredCompletion:
    """One completion of a problem and everything that is known of it."""

    sample: int
    """The place among the problem's completions, from 0."""
    text: str
    num_tokens: int
    """Length in tokens, EOS included."""
    finish_reason: str
    """The reason for the end: "eos", "stop" or "length"."""
    correct: bool | None
    """The verdict; None where it is not known (a timeout, an unreadable gold answer, no outcome reward),
    which is not "wrong".
    """
    traits: Traits
    well_formed: bool | None = None
    """A flag, true for full marks of the format reward: the recipe's own within a run, the built-in one in
    `r1rl evaluate`. It is None in a run without a format reward.
    """
    outcome: str | None = None
    """The grader's typed verdict, a value of `r1rl.grading.Outcome`; None where a reward tells no more than a
    number.
    """
    extracted: str | None = None
    """The answer that was compared with the gold answer; None where there is none or a reward keeps it."""
    rewards: dict[str, float | None] = field(default_factory=dict)
    """The values of the recipe's rewards, before their weights; empty in `r1rl evaluate`."""
    outcome_at: dict[int, str] = field(default_factory=dict)
    """The outcome at each lower token limit that would have cut the completion; empty where that is not
    known.
    """

    @property
    def is_truncated(self) -> bool:
        """A flag, true if the token limit cut the completion off."""
        return self.finish_reason == "length"

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ScoredCompletion:
        """Return the completion of a record that `dataclasses.asdict` and JSON made."""
        limits = {int(limit): outcome for limit, outcome in record["outcome_at"].items()}
        return cls(**{**record, "traits": Traits(**record["traits"]), "outcome_at": limits})


@dataclass(frozen=True, slots=True)
class ScoredProblem:
    """One problem with all its scored completions."""

    id: str
    problem: str
    answer: str | None
    prompt: str
    """The rendered prompt."""
    samples: list[ScoredCompletion]
    groups: dict[str, str] = field(default_factory=dict)
    """The problem's values of the columns by which figures are told apart, such as {"domain": "helpfulness"}:
    those of the rewards' `where` within a run, those of the benchmark's `group_by` in `r1rl evaluate`.
    """
    has_outcome: bool = True
    """A flag, false if completions can be neither right nor wrong, since the outcome reward leaves the
    problem out.
    """
    events: dict[str, int] = field(default_factory=dict)
    """The counts of the rewards, such as "grading/timeout"; the unit is completions."""
    votes: Votes | None = None
    """The majority vote; None where a vote makes no sense or nobody extracted answers."""

    @property
    def num_decided(self) -> int:
        """The number of completions whose verdict is known."""
        return sum(sample.correct is not None for sample in self.samples)

    @property
    def num_correct(self) -> int:
        """The number of completions that are right."""
        return sum(bool(sample.correct) for sample in self.samples)

    @property
    def accuracy(self) -> float | None:
        """The share of right completions among those whose verdict is known; None if there are none."""
        return self.num_correct / self.num_decided if self.num_decided else None

    def outcomes(self) -> Counter[str]:
        """Count the completions by typed outcome: from the completions, else from the rewards' events where
        these tell exactly one outcome for each. Empty where neither does.
        """
        told = Counter(sample.outcome for sample in self.samples if sample.outcome is not None)
        if told:
            return told
        counted = Counter(
            {
                name.removeprefix(GRADING_EVENT): count
                for name, count in self.events.items()
                if name.startswith(GRADING_EVENT)
            }
        )
        return counted if counted.total() == len(self.samples) else Counter()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ScoredProblem:
        """Return the problem of a record that `dataclasses.asdict` and JSON made."""
        samples = [ScoredCompletion.from_json(sample) for sample in record["samples"]]
        votes = record["votes"]
        restored = None if votes is None else (tuple(votes[0]), votes[1], votes[2])
        return cls(**{**record, "samples": samples, "votes": restored})


def is_former_problem(record: Mapping[str, Any]) -> bool:
    """Return True for a problem that an evaluation wrote before these records were made."""
    return "groups" not in record


def former_problem(record: Mapping[str, Any]) -> ScoredProblem:
    """Return the problem of a record from before: a run that it belongs to goes on under this version."""
    samples = []
    for place, old in enumerate(record["samples"]):
        outcome, format_value = old["outcome"], old["rewards"].get("format")
        samples.append(
            ScoredCompletion(
                sample=place,
                text=old["text"],
                num_tokens=old["length"],
                finish_reason=old["finish_reason"],
                correct=None if outcome is None else outcome >= 1.0,
                traits=Traits(old["reflects"], old.get("language"), None),
                well_formed=None if format_value is None else format_value >= 1.0,
                rewards=dict(old["rewards"]),
            )
        )
    return ScoredProblem(
        id=record["id"],
        problem=record["problem"],
        answer=record["answer"],
        prompt=record["prompt"],
        samples=samples,
        groups=dict(record.get("values", {})),
        has_outcome=record.get("has_outcome", True),
        events=dict(record.get("events", {})),
    )
