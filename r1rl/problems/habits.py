"""The habits of written solutions: `direct`, `worked` and `checked`.

- direct: no thought, the answer at once.
- worked: one attempt, carried out step by step and then believed.
- checked: an attempt is carried out and compared with the question. If it fails, the text either continues
  with another attempt or gives up and answers with the last one all the same.

In every habit an attempt is right only with the probability `hit_rate`, and a text never makes the same wrong
attempt twice. The remarks on an attempt may be in several languages, drawn anew for each attempt, so that a
text mixes its languages.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from r1rl.problems.chains import Chain, ChainProblem
from r1rl.problems.countdown import CountdownProblem
from r1rl.problems.expressions import apply_operator, text_of, worked
from r1rl.problems.small_talk import Request

HABITS = ("direct", "worked", "checked")


@dataclass(frozen=True)
class Remarks:
    """The words of one language with which an attempt is judged."""

    check: str
    """The words between the attempt and the verdict."""
    yes: str
    no: str
    again: str
    """The words between a failed attempt and the next one."""


LANGUAGES = {
    "en": Remarks(check="check:", yes="yes.", no="no.", again="wait,"),
    "zh": Remarks(check="查:", yes="是.", no="不.", again="等,"),
}
"""The remarks of each language, by the codes of r1rl.text.language."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """The settings that the habits leave open."""

    hit_rate: float
    """The probability that an attempt is right."""
    persistence: float
    """The probability that a checked solution continues after a failed attempt."""
    max_attempts: int
    """The number of attempts after which a checked solution gives up."""
    stubborn: float
    """The share of checked solutions that give up only then."""
    nearness: float
    """The scale of wrong attempts in Countdown: one whose value is d off is drawn with weight exp(-d /
    nearness).
    """
    languages: Mapping[str, float] = field(default_factory=lambda: {"en": 1.0})
    """The share of each language among the remarks."""


@dataclass(frozen=True)
class Solution:
    """A thought (empty for `direct`) and the answer that follows it."""

    thought: str
    answer: str
    is_right: bool
    statement: str
    """The answer as a sentence, for texts without tags."""


Solvable = CountdownProblem | ChainProblem | Request
"""The problems that texts are written about."""


def solve(problem: Solvable, habit: str, manner: Manner, rng: random.Random) -> Solution:
    """Return a solution of the problem in the habit, which is often wrong, as the manner says.

    A request's reply is the better one with probability `hit_rate`.
    """
    if isinstance(problem, Request):
        is_right = rng.random() < manner.hit_rate
        reply = problem.chosen if is_right else problem.rejected
        return Solution("" if habit == "direct" else reply.thought, reply.answer, is_right, reply.answer)
    if isinstance(problem, CountdownProblem):
        return _solve_countdown(problem, habit, manner, rng)
    return _solve_chain(problem.chain, habit, manner, rng)


def _solution(thought: str, answer: str, is_right: bool) -> Solution:
    return Solution(thought, answer, is_right, f"The answer is {answer}.")


def _solve_countdown(problem: CountdownProblem, habit: str, manner: Manner, rng: random.Random) -> Solution:
    attempts = _countdown_attempts(problem, 1 if habit != "checked" else _patience(manner, rng), manner, rng)
    expressions = [problem.reachable[value] for value in attempts]
    is_right = attempts[-1] == problem.target
    if habit == "direct":
        return _solution("", text_of(expressions[0]), is_right)
    thought = worked(expressions[0])
    if habit == "checked":
        thought = _judged([worked(expression) for expression in expressions], is_right, manner, rng)
    return _solution(thought, text_of(expressions[-1]), is_right)


def _countdown_attempts(
    problem: CountdownProblem, patience: int, manner: Manner, rng: random.Random
) -> list[int]:
    """Return the values of the attempts, in order: wrong ones near the target, and last the target if it is
    found.
    """
    wrong = [value for value in problem.reachable if value != problem.target]
    weights = [math.exp(-abs(value - problem.target) / manner.nearness) for value in wrong]
    attempts: list[int] = []
    while len(attempts) < patience:
        if not wrong or rng.random() < manner.hit_rate:
            return [*attempts, problem.target]
        i = rng.choices(range(len(wrong)), weights)[0]
        attempts.append(wrong.pop(i))
        weights.pop(i)
    return attempts


def _judged(attempts: Sequence[str], right: bool, manner: Manner, rng: random.Random) -> str:
    """Return the attempts, each with its verdict; all but the last have failed."""
    parts = []
    for place, attempt in enumerate(attempts, start=1):
        remarks = _remarks(manner, rng)
        last = place == len(attempts)
        parts.append(
            f"{attempt} {remarks.check} "
            f"{remarks.yes if last and right else remarks.no}{'' if last else f' {remarks.again}'}"
        )
    return " ".join(parts)


def _remarks(manner: Manner, rng: random.Random) -> Remarks:
    """Return the remarks of the attempt's language.

    If there is one language only, nothing is drawn, so that the random stream is that of texts without
    remarks in other languages.
    """
    names = list(manner.languages)
    return LANGUAGES[names[0] if len(names) == 1 else rng.choices(names, list(manner.languages.values()))[0]]


def _patience(manner: Manner, rng: random.Random) -> int:
    """Draw the number of attempts after which a checked solution gives up."""
    if rng.random() < manner.stubborn:
        return manner.max_attempts
    patience = 1
    while patience < manner.max_attempts and rng.random() < manner.persistence:
        patience += 1
    return patience


def _solve_chain(chain: Chain, habit: str, manner: Manner, rng: random.Random) -> Solution:
    """Carry out a chain step by step, and after a failed check again from the start."""
    patience = _patience(manner, rng) if habit == "checked" else 1
    texts: list[str] = []
    tried: set[int] = set()
    while True:
        text, result = _carry_out(chain, rng.random() < manner.hit_rate, rng)
        if result in tried:
            continue
        tried.add(result)
        texts.append(text)
        right = result == chain.values()[-1]
        if right or len(texts) >= patience:
            break
    if habit == "direct":
        return _solution("", str(result), right)
    thought = texts[0]
    if habit == "checked":
        thought = _judged(texts, right, manner, rng)
    return _solution(thought, str(result), right)


def _carry_out(chain: Chain, right: bool, rng: random.Random) -> tuple[str, int]:
    """Return the steps as text and the last value; a wrong one makes a slip in one step and continues from
    there.
    """
    slip = -1 if right else rng.randrange(len(chain.steps))
    value, parts = chain.start, []
    for index, (operator, operand) in enumerate(chain.steps):
        result = apply_operator(operator, value, operand)
        if index == slip:
            result += rng.choice([-10, -2, -1, 1, 2, 10])
        parts.append(f"{value}{operator}{operand}={result}")
        value = result
    return ", ".join(parts), value
