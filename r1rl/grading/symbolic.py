"""The last stage: computer algebra through math-verify, for mathematics that the parser here can't read.

It runs in worker processes only. A "yes" of math-verify counts only if both sides, as it understood them,
have the same structure, or agree at random points to 25 digits: its reading of an answer can drop a part of
it.
"""

from __future__ import annotations

import random
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse, verify

DIGITS = 30
AGREE = sympy.Float("1e-20", DIGITS)
POINTS = 4
_EXAMPLES = (
    "y = \\sqrt[3]{x} + e^{-x}",
    "\\sum_{k=0}^{n-1} F_k x^k",
    "\\int_0^1 \\frac{x}{2} dx",
    "\\lim_{x\\to 0} \\frac{\\sin(x)}{x}",
    "\\begin{pmatrix}1 & 2 \\\\ 3 & 4\\end{pmatrix}",
    "\\{x|x=3k,k\\in \\mathbb{Z}\\}",
    "(-\\infty, 2] \\cup (3, \\infty)",
)
_CONFIG = (LatexExtractionConfig(boxed_match_priority=0),)


def decide(gold: str, answer: str) -> bool | None:
    """Return whether two answers in LaTeX are equal, or None if one of them can't be read."""
    first, second = _parse(gold), _parse(answer)
    if first is None or second is None:
        return None
    if type(first) is type(second) and (first == second or str(first) == str(second)):
        return True  # the printed form leaves out what sympy assumes of bound variables
    if not verify(first, second, timeout_seconds=None):
        return False
    return confirmed(first, second)


def warm_up() -> None:
    """Read one answer of every kind, because the first reading loads the grammar and each kind extends its
    tables.
    """
    for example in _EXAMPLES:
        _parse(example)


def _parse(text: str) -> Any | None:
    parsed = parse(
        "\\boxed{" + text + "}", extraction_config=_CONFIG, fallback_mode="no_fallback", parsing_timeout=None
    )
    return parsed[0] if parsed and not isinstance(parsed[0], str) else None


def confirmed(gold: Any, answer: Any) -> bool:
    """Return whether two sympy objects are the same in structure, entry by entry, or in value at random
    points.
    """
    if isinstance(gold, sympy.MatrixExpr) or isinstance(answer, sympy.MatrixExpr):
        gold, answer = gold.doit(), answer.doit()
    if type(gold) is type(answer) and gold == answer:
        return True
    if isinstance(answer, sympy.Eq) and not isinstance(gold, sympy.Eq):
        return isinstance(answer.lhs, sympy.Symbol) and confirmed(gold, answer.rhs)
    if isinstance(gold, sympy.Eq) and not isinstance(answer, sympy.Eq):
        return isinstance(gold.lhs, sympy.Symbol) and confirmed(gold.rhs, answer)
    if isinstance(gold, sympy.Eq):
        left, right = gold.lhs - gold.rhs, answer.lhs - answer.rhs
        return _same_values(left, right) or _same_values(left, -right)
    if isinstance(gold, sympy.FiniteSet) and isinstance(answer, sympy.FiniteSet):
        return len(gold) == len(answer) and all(any(confirmed(a, b) for b in answer) for a in gold)
    if isinstance(gold, sympy.Tuple) and isinstance(answer, sympy.Tuple):
        return len(gold) == len(answer) and all(map(confirmed, gold, answer))
    if isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase):
        return gold.shape == answer.shape and all(map(confirmed, gold, answer))
    return isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr) and _same_values(gold, answer)


def _same_values(left: sympy.Expr, right: sympy.Expr) -> bool:
    names = sorted(left.free_symbols | right.free_symbols, key=str)
    generator = random.Random(20)
    agreed = 0
    for _ in range(POINTS if names else 1):
        point = {name: sympy.Rational(generator.randint(200, 3000), 997) for name in names}
        a, b = left.subs(point).evalf(DIGITS), right.subs(point).evalf(DIGITS)
        if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
            return False
        if abs(a - b) > AGREE * max(abs(a), abs(b), AGREE):
            return False
        agreed += 1
    return agreed > 0
