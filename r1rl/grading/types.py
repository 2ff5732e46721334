"""What a grade is: the typed outcome of one completion, the modes of reading it, and a defect of a gold
answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How grading one completion ended. Only `CORRECT` earns a reward; every other outcome is counted under
    its own name.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"  # nothing in the answer region is an answer, or the thinking never ended
    MALFORMED = "malformed"  # the last box or tag is empty or never closed
    UNPARSEABLE_GOLD = "unparseable_gold"  # the data are at fault, not the completion
    # could not be decided within the limit: refused beforehand (stage "gate") or killed (stage "symbolic")
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
    """Which parts of a completion may hold the answer."""

    STRICT = "strict"  # the last box or the answer tag
    LENIENT = "lenient"  # also "The answer is", "####", the last formula, the last number


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on one completion."""

    outcome: Outcome
    extracted: str | None
    """The answer text that was compared with the gold answer; None when there was none."""
    stage: Stage
    seconds: float
    """Wall-clock time that this grade took, in seconds; next to nothing when it came from the cache."""

    @property
    def correct(self) -> bool:
        """True only for `Outcome.CORRECT`."""
        return self.outcome is Outcome.CORRECT


@dataclass(frozen=True, slots=True)
class AnswerProblem:
    """A gold answer that the grader can't use, or can only compare as text."""

    index: int
    """Its place in the list that was audited, from 0."""
    answer: str
    outcome: Outcome
    """What the answer got when it was graded against itself."""
    reason: str
    fatal: bool
    """True: no completion can be graded against it. False: only the same text will count as correct."""
