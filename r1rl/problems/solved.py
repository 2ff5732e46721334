"""Countdown problems with a right solution that checks itself: chains of thought by rule, for a cold start.

The solution tries until an attempt is right, in the words of `r1rl.problems.habits`; its remarks may mix
languages.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from r1rl.errors import DataError
from r1rl.problems import countdown
from r1rl.problems.countdown import CountdownArguments, CountdownProblem
from r1rl.problems.habits import LANGUAGES, Manner, solve
from r1rl.problems.small_talk import completion


@dataclass(frozen=True, kw_only=True)
class SolvedArguments(CountdownArguments):
    """The generator's arguments: those of countdown, and those of the written solutions."""

    hit_rate: float = 0.4
    """The probability that an attempt is right."""
    max_attempts: int = 6
    """The most attempts of a solution; a solution that needs more is not written."""
    languages: dict[str, float] = field(default_factory=lambda: {"en": 1.0})
    """The share of each language (en, zh) among the remarks; each attempt draws its own."""

    def __post_init__(self) -> None:
        unknown = [language for language in self.languages if language not in LANGUAGES]
        if unknown or not self.languages:
            found = unknown[0] if unknown else "empty"
            raise DataError(
                f"generator solved_countdown: languages has {found}; it may give shares to "
                f"{', '.join(LANGUAGES)}"
            )
        if not 0 < self.hit_rate <= 1 or self.max_attempts < 1:
            raise DataError(
                "generator solved_countdown: hit_rate must be above 0 and at most 1, and max_attempts at "
                "least 1"
            )


@dataclass(frozen=True)
class SolvedProblem:
    """A problem with its solution. Its identity and its split are those of the problem."""

    problem: CountdownProblem
    completion: str
    """The solution in think/answer tags, the opening tag included."""

    @property
    def key(self) -> str:
        """The problem's key."""
        return self.problem.key

    @property
    def text(self) -> str:
        """The problem's text."""
        return self.problem.text

    @property
    def answer(self) -> str:
        """The problem's answer."""
        return self.problem.answer

    @property
    def columns(self) -> dict[str, object]:
        """The problem's columns, and the solution."""
        return {**self.problem.columns, "completion": self.completion}


def draw(rng: random.Random, arguments: SolvedArguments) -> SolvedProblem:
    """Draw a problem and a solution that ends with the right attempt."""
    manner = Manner(
        hit_rate=arguments.hit_rate,
        persistence=1.0,
        max_attempts=arguments.max_attempts,
        stubborn=0.0,
        nearness=8.0,
        languages=arguments.languages,
    )
    problem = countdown.draw(rng, arguments)
    while True:
        solution = solve(problem, "checked", manner, rng)
        if solution.is_right:
            return SolvedProblem(problem, completion(solution.thought, solution.answer))
