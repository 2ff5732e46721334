"""Chains of operations: a start and one operation after the other.

Arithmetic and word problems tell the same chain in two ways.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from r1rl.errors import DataError
from r1rl.problems.expressions import Expression, apply_operator

Step = tuple[str, int]
"""An operator and its right operand."""


@dataclass(frozen=True, kw_only=True)
class ChainArguments:
    """The arguments of arithmetic and word_problems."""

    min_steps: int = 2
    max_steps: int = 3
    high: int = 50
    """The upper bound of the start and of the numbers that are added or subtracted; all lie in 2..high."""
    max_factor: int = 9
    """The upper bound of factors, which lie in 2..max_factor."""
    max_value: int = 400
    """The largest intermediate value; values never fall below 1."""


@dataclass(frozen=True)
class Chain:
    """A start and operations on it, such as 12, (+ 5), (* 3)."""

    start: int
    steps: tuple[Step, ...]

    def values(self) -> list[int]:
        """Return the value after each step."""
        values, value = [], self.start
        for operator, operand in self.steps:
            value = apply_operator(operator, value, operand)
            values.append(value)
        return values

    def expression(self) -> Expression:
        """Return the chain as one expression."""
        expression: Expression = self.start
        for operator, operand in self.steps:
            expression = (operator, expression, operand)
        return expression


@dataclass(frozen=True)
class ChainProblem:
    """A chain and the text that asks for its last value."""

    name: str
    text: str
    chain: Chain

    @property
    def key(self) -> str:
        """The key of the problem, equal for two tellings of one text."""
        return f"{self.name} {self.text}"

    @property
    def answer(self) -> str:
        """The last value."""
        return str(self.chain.values()[-1])

    @property
    def columns(self) -> dict[str, object]:
        """The empty columns: a chain has none besides problem and answer."""
        return {}


def draw_chain(rng: random.Random, arguments: ChainArguments) -> Chain:
    """Draw a chain whose values all lie in 1..max_value."""
    for _ in range(1000):
        start = rng.randint(2, arguments.high)
        chain = Chain(
            start,
            tuple(
                _draw_step(rng, arguments)
                for _ in range(rng.randint(arguments.min_steps, arguments.max_steps))
            ),
        )
        if all(1 <= value <= arguments.max_value for value in chain.values()):
            return chain
    raise DataError(
        f"no chain of operations stays within 1..{arguments.max_value}; raise max_value or lower high, "
        f"max_factor or min_steps"
    )


def _draw_step(rng: random.Random, arguments: ChainArguments) -> Step:
    operator = rng.choice("+-*")
    return operator, rng.randint(2, arguments.max_factor if operator == "*" else arguments.high)
