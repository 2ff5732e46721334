"""Templated word problems: a chain of operations told as a story about someone's things."""

from __future__ import annotations

import random

from r1rl.problems.chains import ChainArguments, ChainProblem, draw_chain

PEOPLE = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ines", "Jon")
THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pens", "shells", "stamps", "stones")

EVENTS = {
    "+": ("{person} finds {n} more.", "A friend gives {person} {n} more.", "{person} buys {n} more."),
    "-": ("{person} loses {n}.", "{person} gives away {n}.", "{person} sells {n}."),
    "*": ("Then {person} has {n} times as many.", "A gift makes them {n} times as many."),
}


def draw(rng: random.Random, arguments: ChainArguments) -> ChainProblem:
    """Draw a chain of operations as a story that asks how many are left in the end."""
    chain = draw_chain(rng, arguments)
    person, things = rng.choice(PEOPLE), rng.choice(THINGS)
    sentences = [f"{person} has {chain.start} {things}."]
    sentences += [
        rng.choice(EVENTS[operator]).format(person=person, n=operand) for operator, operand in chain.steps
    ]
    sentences.append(f"How many {things} does {person} have now?")
    return ChainProblem("word_problems", " ".join(sentences), chain)
