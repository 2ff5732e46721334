"""Multi-step arithmetic: "What is (12+5)*3?"."""

from __future__ import annotations

import random

from r1rl.problems.chains import ChainArguments, ChainProblem, draw_chain
from r1rl.problems.expressions import text_of


def draw(rng: random.Random, arguments: ChainArguments) -> ChainProblem:
    """Draw a chain of operations as one expression."""
    chain = draw_chain(rng, arguments)
    return ChainProblem("arithmetic", f"What is {text_of(chain.expression())}?", chain)
