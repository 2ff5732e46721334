"""Whole-number expressions: text, evaluation, and everything that some numbers can make."""

from __future__ import annotations

import itertools

import pytest

from r1rl.problems.expressions import Expression, reachable, reduced, text_of, value_of, worked


@pytest.mark.parametrize(
    ("expression", "text", "value"),
    [
        (7, "7", 7),
        (("+", ("*", 7, 3), 25), "7*3+25", 46),  # 21 + 25
        (("*", ("+", 3, 7), 5), "(3+7)*5", 50),  # 10 * 5
        (("-", 25, ("+", 3, 7)), "25-(3+7)", 15),  # 25 - 10; without parentheses it would be 29
        (("-", 25, ("*", 3, 7)), "25-3*7", 4),
        (("*", 2, ("*", 3, 7)), "2*(3*7)", 42),
        (("+", ("-", 9, 4), 1), "9-4+1", 6),
    ],
)
def test_text_and_value(expression: Expression, text: str, value: int) -> None:
    assert text_of(expression) == text
    assert value_of(expression) == value


def test_worked_evaluates_one_operation_at_a_time() -> None:
    # 25 + (3 + 7) * 5: first 3 + 7 = 10, then 10 * 5 = 50, then 25 + 50 = 75
    assert worked(("+", 25, ("*", ("+", 3, 7), 5))) == "25+(3+7)*5=25+10*5=25+50=75"
    assert worked(9) == "9"


def test_reduced_takes_the_left_operation_first() -> None:
    assert reduced(("+", ("*", 2, 3), ("*", 4, 5))) == ("+", 6, ("*", 4, 5))
    assert reduced(4) == 4


def test_reachable_is_complete() -> None:
    """Against brute force over all orders, operators and both bracketings of three numbers, with the same
    bounds on the way.
    """
    apply = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
    for numbers in ([3, 7, 25], [2, 2, 9], [5, 5, 5]):
        expected = set()
        for a, b, c in itertools.permutations(numbers):
            for first, second in itertools.product("+-*", repeat=2):
                for inner, outer in (((a, b), c), ((b, c), a)):
                    half = apply[first](*inner)
                    for left, right in ((half, outer), (outer, half)):
                        value = apply[second](left, right)
                        if 0 < half <= 400 and 0 < value <= 400:
                            expected.add(value)
        found = reachable(numbers, "+-*", 400)
        assert set(found) == expected
        assert all(value_of(expression) == value for value, expression in found.items())


def test_reachable_respects_operators_and_limit() -> None:
    assert list(reachable([2, 3, 4], "+", 100)) == [9]
    # + and * make 2+3+4 = 9, 2*3+4 = 10, 2*4+3 = 11, 3*4+2 = 14 = (3+4)*2, (2+4)*3 = 18, (2+3)*4 = 20 and
    # 2*3*4 = 24
    assert list(reachable([2, 3, 4], "+*", 100)) == [9, 10, 11, 14, 18, 20, 24]
    assert list(reachable([2, 3, 4], "+*", 20)) == [9, 10, 11, 14, 18, 20]


def test_shortest_expression_wins() -> None:
    # 2 + 3 * 4 = 14 is shorter than (3 + 4) * 2 = 14
    assert len(text_of(reachable([2, 3, 4], "+-*", 100)[14])) == 5
