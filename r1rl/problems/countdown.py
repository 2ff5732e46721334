"""Countdown: make a target from a few numbers, each used exactly once, with + - *."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from r1rl.errors import DataError
from r1rl.problems.expressions import Expression, reachable


@dataclass(frozen=True, kw_only=True)
class CountdownArguments:
    """The generator's arguments."""

    numbers: list[int] = field(default_factory=lambda: [3])
    """The possible counts of numbers in a problem; each problem draws one of them."""
    low: int = 2
    high: int = 20
    """The upper bound of the numbers, which lie in low..high."""
    min_target: int = 1
    max_target: int = 100
    max_value: int = 400
    """The largest intermediate value."""
    operators: str = "+-*"


@dataclass(frozen=True)
class CountdownProblem:
    """One problem with every value that its numbers can make."""

    numbers: list[int]
    target: int
    reachable: dict[int, Expression]

    @property
    def key(self) -> str:
        """The key of the problem, equal for problems that differ in the order of the numbers only."""
        return f"countdown {sorted(self.numbers)} {self.target}"

    @property
    def text(self) -> str:
        """The problem as the model reads it."""
        return f"Make {self.target} from {', '.join(map(str, self.numbers))}."

    @property
    def answer(self) -> str:
        """The target. A reward evaluates the expression that a completion answers with."""
        return str(self.target)

    @property
    def columns(self) -> dict[str, object]:
        """The columns that the countdown reward reads."""
        return {"numbers": list(self.numbers), "target": self.target}


def draw(rng: random.Random, arguments: CountdownArguments) -> CountdownProblem:
    """Draw a problem that has a solution: the target is one of the values that its numbers make."""
    for _ in range(1000):
        numbers = [rng.randint(arguments.low, arguments.high) for _ in range(rng.choice(arguments.numbers))]
        values = reachable(numbers, arguments.operators, arguments.max_value)
        targets = [value for value in values if arguments.min_target <= value <= arguments.max_target]
        if targets:
            return CountdownProblem(numbers, rng.choice(targets), values)
    wanted = f"{arguments.min_target}..{arguments.max_target}"
    raise DataError(f"countdown: no expression has a value in {wanted}; change the generator's arguments")
