"""Sets of real numbers: intervals, inequalities about one variable, and unions of them, brought to one
form.
"""

from __future__ import annotations

from r1rl.grading.evaluate import symbols
from r1rl.grading.read import read
from r1rl.grading.shapes import Answer, Group, Relation, Scalar, Union

_INTERVALS = frozenset(["()", "[]", "(]", "[)"])


def as_region(answer: Answer) -> tuple[Answer, ...] | None:
    """Return the intervals and sets whose union an answer is, or None if it is no set of numbers."""
    if isinstance(answer, Union):
        parts = [as_region(part) for part in answer.parts]
        if any(part is None for part in parts):
            return None
        return tuple(item for part in parts if part is not None for item in part)
    if isinstance(answer, Group) and (
        answer.brackets == "{}" or (len(answer.items) == 2 and answer.brackets in _INTERVALS)
    ):
        return (answer,)
    if isinstance(answer, Relation) and has_inequality(answer):
        return _interval(answer)
    return None


def _interval(relation: Relation) -> tuple[Answer, ...] | None:
    """Return the interval of an inequality about one variable: `x > 5`, `1 <= x < 2`, `x != 0`."""
    sides, operators = relation.sides, relation.operators
    variables = [
        k
        for k, side in enumerate(sides)
        if isinstance(side, Scalar) and side.node[0] == "s" and symbols(side.node) - {"infty"}
    ]
    if len(variables) != 1 or len(sides) > 3 or (len(sides) == 3 and variables != [1]):
        return None
    variable = sides[variables[0]]
    assert isinstance(variable, Scalar)
    bounds = [side for side in sides if side is not variable]
    for bound in bounds:
        values = bound.items if isinstance(bound, Group) else (bound,)
        if not all(
            isinstance(value, Scalar) and variable.node[1] not in symbols(value.node) for value in values
        ):
            return None
    if operators == ("!=",):
        return _without(bounds[0], relation.text)
    if (
        "!=" in operators
        or "=" in operators
        or "~" in operators
        or any(isinstance(bound, Group) for bound in bounds)
    ):
        return None
    low, high = (read("-\\infty"), read("\\infty"))
    left = right = "("
    if len(sides) == 3:
        low, high, left, right = sides[0], sides[2], operators[0], operators[1]
    elif variables == [1]:
        low, left = sides[0], operators[0]
    else:
        high, right = sides[1], operators[0]
    brackets = ("[" if left == "<=" else "(") + ("]" if right == "<=" else ")")
    return (Group(relation.text, (low, high), brackets),)


def _without(excluded: Answer, text: str) -> tuple[Answer, ...] | None:
    """Return the two open intervals around one excluded number."""
    if isinstance(excluded, Group):
        return None
    return (
        Group(text, (read("-\\infty"), excluded), "()"),
        Group(text + "'", (excluded, read("\\infty")), "()"),
    )


def has_inequality(relation: Relation) -> bool:
    """Return whether one of the relation's operators is "<", "<=" or "!="."""
    return any(operator in ("<", "<=", "!=") for operator in relation.operators)
