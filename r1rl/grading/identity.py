"""The test for equal expressions: by exact rationals, or else by their values to 40 digits at random points.

Two different expressions of the kind that answers are made of agree at a random point with probability zero
(Schwartz 1980, "Fast probabilistic algorithms for verification of polynomial identities"). So agreement at
several points, to 20 digits, decides in both directions. The points are drawn from a fixed seed, so a verdict
never changes between two calls.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from r1rl.grading.atoms import Node
from r1rl.grading.evaluate import Evaluator, UndefinedError, exact, mentions_i, symbols

AGREE = 1e-20
"""The relative difference below which values are equal; a surd that was mistyped differs by far more."""
NEEDED_POINTS = 3
MAX_POINTS = 12


def same_value(evaluator: Evaluator, left: Node, right: Node) -> bool | None:
    """Return whether two trees are equal wherever both are real, or None if no point could tell.

    Raise `TooLargeError` if one is too large to be computed and they are not the same tree.
    """
    if left == right:
        return True
    try:
        first, second = exact(left), exact(right)
    except UndefinedError:
        return None
    if first is not None and second is not None:
        return first == second
    names = symbols(left) | symbols(right)
    if ("infty" in symbols(left)) != ("infty" in symbols(right)):
        return False
    verdict = _same_at_points(evaluator, left, right, names, common_log=False)
    if verdict is False and ("log" in _function_names(left) or "log" in _function_names(right)):
        return _same_at_points(evaluator, left, right, names, common_log=True)
    return verdict


def _same_at_points(
    evaluator: Evaluator, left: Node, right: Node, names: frozenset[str], common_log: bool
) -> bool | None:
    strict = mentions_i(left) or mentions_i(right)
    agreed_real = agreed_complex = differed_complex = 0
    for point in points(evaluator, names):
        try:
            a = evaluator.value(left, point, common_log)
            b = evaluator.value(right, point, common_log)
        except (UndefinedError, ZeroDivisionError, ValueError, OverflowError):
            if not names:
                return None
            continue
        equal = close(evaluator, a, b)
        if strict or not names or (is_real(a) and is_real(b)):
            if not equal:
                return False
            agreed_real += 1
            if agreed_real >= NEEDED_POINTS or not names:
                return True
        elif equal:
            agreed_complex += 1
        else:
            differed_complex += 1
    if agreed_real:
        return True
    if agreed_complex >= 2 and not differed_complex:
        return True
    return False if differed_complex else None


def same_up_to_factor(evaluator: Evaluator, left: Node, right: Node, positive: bool) -> bool | None:
    """Return whether left = c * right for a constant c other than 0 (with `positive`: above 0), or None if no
    point could tell.

    This is the test for two equations or inequalities of the form tree = 0.
    """
    names = symbols(left) | symbols(right)
    if symbols(left) != symbols(right):
        return False
    factors: list[Any] = []
    for point in points(evaluator, names):
        try:
            a, b = evaluator.value(left, point), evaluator.value(right, point)
        except (UndefinedError, ZeroDivisionError, ValueError, OverflowError):
            continue
        if a == 0 or b == 0 or (not names and close(evaluator, a, 0 * b)):
            return None
        if factors and not close(evaluator, a / b, factors[0]):
            return False
        factors.append(a / b)
        if len(factors) >= NEEDED_POINTS + 1:
            break
    if len(factors) < 2 or not names:
        return None
    return not positive or (is_real(factors[0]) and factors[0] > 0)


def points(evaluator: Evaluator, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield random points, the positive ones first, small and large; one empty point if there are no
    variables.
    """
    ordered = sorted(names)
    if not ordered:
        yield {}
        return
    ctx = evaluator.ctx
    generator = random.Random(20)
    for index in range(MAX_POINTS):
        scale = (1.0, 4.0, 0.4, 15.0)[index % 4]
        signed = index % 3 == 2
        yield {
            name: ctx.mpf(scale * generator.uniform(0.2, 1.3)) * (generator.choice((-1, 1)) if signed else 1)
            for name in ordered
        }


def is_real(value: Any) -> bool:
    """Return whether the imaginary part is nothing but rounding."""
    imaginary = getattr(value, "imag", 0)
    return bool(abs(imaginary) <= AGREE * max(abs(value), 1e-6))


def close(evaluator: Evaluator, a: Any, b: Any) -> bool:
    """Return whether two values are equal but for rounding."""
    if not (evaluator.ctx.isfinite(a) and evaluator.ctx.isfinite(b)):
        return False
    return bool(abs(a - b) <= AGREE * max(abs(a), abs(b), 1e-15))


def _function_names(node: Node) -> set[str]:
    names = {node[1]} if node[0] == "f" else set()
    if node[0] not in ("n", "s"):
        for child in node[1:]:
            if isinstance(child, tuple):
                names |= _function_names(child)
    return names
