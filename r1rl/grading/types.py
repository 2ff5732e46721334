"""The types of a grade: the outcome of one completion, the modes of reading it, and a defect of a gold
answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The way in which grading one completion ended.

    Only `CORRECT` earns a reward; every other outcome is counted under its own name.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"  # nothing in the answer region is an answer, or the thinking never ended
    MALFORMED = "malformed"  # the last box or tag is empty or never closed
    UNPARSEABLE_GOLD = "unparseable_gold"  # the data are at fault, not the completion
    # The comparison could not be decided within the limit: it was refused beforehand (stage "gate") or killed
    # (stage "symbolic").
    TIMEOUT = "timeout"
    CRASHED = (
        "crashed"  # a worker process died, most often of its memory limit, or a rule failed on the answer
    )


class Stage(StrEnum):
    """The stage that decided, cheapest first."""

    EXTRACT = "extract"  # there was no answer to compare
    TEXT = "text"
    NUMBER = "number"
    STRUCTURE = "structure"
    GATE = "gate"
    SYMBOLIC = "symbolic"


class Mode(StrEnum):
    """The policy that says which parts of a completion may hold the answer."""

    STRICT = "strict"  # the last box or the answer tag
    LENIENT = "lenient"  # also "The answer is", "####", the last formula, the last number


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on one completion."""

    outcome: Outcome
    extracted: str | None
    """The answer text that was compared with the gold answer, or None if there was none."""
    stage: Stage
    seconds: float
    """The wall-clock time that this grade took, in seconds. It is close to 0 if the grade came from the
    cache.
    """

    @property
    def correct(self) -> bool:
        """Return whether the outcome is `Outcome.CORRECT`."""
        return self.outcome is Outcome.CORRECT


@dataclass(frozen=True, slots=True)
class AnswerProblem:
    """A gold answer that the grader can't use, or can only compare as text."""

    index: int
    """The place of the answer in the list that was audited, from 0."""
    answer: str
    outcome: Outcome
    """The outcome of grading the answer against itself."""
    reason: str
    fatal: bool
    """A flag: if true, no completion can be graded against the answer; if false, only the same text counts as
    correct.
    """
