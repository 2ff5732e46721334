"""Problem generators: seeded, endless in practice, with train and test splits that never share a problem.

A problem's split is decided by a hash of the question, not by the seed. So problems drawn with any two seeds,
any two counts and any two sets of arguments are disjoint across the splits.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from r1rl.errors import DataError
from r1rl.problems import arithmetic, countdown, small_talk, solved, word_problems
from r1rl.problems.chains import ChainArguments, ChainProblem
from r1rl.problems.countdown import CountdownArguments, CountdownProblem
from r1rl.problems.small_talk import Request, SmallTalkArguments
from r1rl.problems.solved import SolvedArguments, SolvedProblem
from r1rl.types import Problem

GeneratedProblem = CountdownProblem | ChainProblem | Request | SolvedProblem


@dataclass(frozen=True)
class Generator:
    """A function that draws a problem, and the dataclass of its arguments."""

    draw: Callable[[random.Random, Any], GeneratedProblem]
    arguments: type
    is_corpus_task: bool = True
    """A flag, true if `r1rl.problems.habits` writes about the generator's problems."""
    has_answers: bool = True
    """A flag, true if the generator's problems have a right answer."""


GENERATORS = {
    "arithmetic": Generator(arithmetic.draw, ChainArguments),
    "word_problems": Generator(word_problems.draw, ChainArguments),
    "countdown": Generator(countdown.draw, CountdownArguments),
    "small_talk": Generator(small_talk.draw, SmallTalkArguments, has_answers=False),
    "solved_countdown": Generator(solved.draw, SolvedArguments, is_corpus_task=False),
}

SPLITS = ("train", "test")
TEST_SHARE = 10
"""The reciprocal of the test split's share: one problem in ten belongs to it."""
MAX_DRAWS = 200
"""The number of draws without a new problem of the split after which the generator counts as exhausted."""


def generate(name: str, split: str, seed: int, *, count: int = 1024, **arguments: Any) -> list[Problem]:
    """Return `count` distinct problems of one split of a generator, the same ones for the same seed.

    Raise `DataError` for an unknown generator, split or argument, and if the arguments allow fewer problems
    than `count`.
    """
    generator, parsed = _generator(name), parse_arguments(name, arguments)
    if split not in SPLITS:
        raise DataError(f'generator {name}: there is no split "{split}"; use train or test')
    if count < 1:
        raise DataError(f"generator {name}: count is {count}; it must be at least 1")
    rng = random.Random(f"{name} {split} {seed}")
    problems: dict[str, Problem] = {}
    misses = 0
    while len(problems) < count:
        drawn = generator.draw(rng, parsed)
        if drawn.key in problems or split_of(drawn.key) != split:
            misses += 1
            if misses > MAX_DRAWS * (count + 10):
                found = f"only {len(problems)} distinct problems of split {split} were found"
                raise DataError(f"generator {name}: {found}, {count} are asked for; widen its arguments")
            continue
        identity = f"{name}-{split}-{seed}-{len(problems)}"
        problems[drawn.key] = Problem(
            id=identity, problem=drawn.text, answer=drawn.answer, columns=drawn.columns
        )
    return list(problems.values())


def draw(name: str, rng: random.Random, arguments: Any, split: str = "train") -> GeneratedProblem:
    """Return one problem of a split, with all that its solution is written from.

    `arguments` come from `parse_arguments`.
    """
    generator = _generator(name)
    for _ in range(MAX_DRAWS):
        drawn = generator.draw(rng, arguments)
        if split_of(drawn.key) == split:
            return drawn
    raise DataError(f"generator {name}: no problem of split {split} was found; widen its arguments")


def split_of(key: str) -> str:
    """Return the split that a problem belongs to, whoever draws it."""
    return "test" if zlib.crc32(key.encode()) % TEST_SHARE == 0 else "train"


def parse_arguments(name: str, arguments: dict[str, Any]) -> Any:
    """Return the generator's arguments as its dataclass.

    Raise `DataError`, which names the nearest known argument, for an unknown one.
    """
    cls = _generator(name).arguments
    known = {f.name for f in fields(cls)}
    for argument in arguments:
        if argument not in known:
            near = get_close_matches(argument, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(known | {'count'}))}"
            raise DataError(f'generator {name} has no argument "{argument}"; {hint}')
    return cls(**arguments)


def _generator(name: str) -> Generator:
    if name not in GENERATORS:
        near = get_close_matches(name, GENERATORS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(GENERATORS)}"
        raise DataError(f'there is no generator "{name}"; {advice}')
    return GENERATORS[name]
