"""The value of an expression tree: exact if it is rational, else to 40 digits at given points, and always
bounded.

The size of the result is known before a power, factorial or exponential is computed. Beyond the bounds
`TooLargeError` is raised, so no tree, whatever it says, holds the interpreter for more than some
milliseconds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mpmath.ctx_mp import MPContext

from r1rl.grading.atoms import Node

MAX_BITS = 40_000
"""The most bits of an integer, and of a binary exponent, that is computed."""
DIGITS = 40


class TooLargeError(ArithmeticError):
    """The value has more than `MAX_BITS` bits: computing it could take unbounded time and memory."""


class UndefinedError(ArithmeticError):
    """The expression has no value here: a division by zero, the logarithm of zero, a bracket function of a
    complex number.
    """


def bits(value: Fraction) -> int:
    """Return the size of the larger of numerator and denominator, in bits."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def exact(node: Node) -> Fraction | None:
    """Return the exact value of a tree that is rational by its arithmetic alone.

    Return None for any other tree (with a variable, a surd, a function). Raise `TooLargeError`, and
    `UndefinedError` for a division by zero.
    """
    kind = node[0]
    if kind == "n":
        return node[1]
    if kind == "s":
        return None
    if kind == "f":
        return _exact_function(node)
    if kind == "^":
        return _exact_power(node)
    values = []
    for child in node[1:]:
        value = exact(child)
        if value is None:
            return None
        values.append(value)
    if kind == "/":
        if values[1] == 0:
            raise UndefinedError("a division by zero")
        result = values[0] / values[1]
    elif kind == "*":
        result = math.prod(values, start=Fraction(1))
    else:
        result = sum(values[1:], values[0])
    if bits(result) > MAX_BITS:
        raise TooLargeError
    return result


def _exact_power(node: Node) -> Fraction | None:
    exponent = exact(node[2])
    if exponent is None:
        return None
    base = exact(node[1])
    if base is None:
        return None
    if exponent.denominator != 1:
        return _exact_root(base, exponent)
    return _integer_power(base, exponent.numerator)


def _integer_power(base: Fraction, power: int) -> Fraction:
    if abs(power) * max(1, bits(base)) > MAX_BITS and abs(base) not in (0, 1):
        raise TooLargeError
    if base == 0 and power <= 0:
        raise UndefinedError("a power of zero")
    if abs(base) == 1:
        return base if power % 2 else Fraction(1)
    return base**power


def _exact_root(base: Fraction, exponent: Fraction) -> Fraction | None:
    """Return base**exponent if base is a positive perfect power, as in 8^(2/3) = 4."""
    degree = exponent.denominator
    if base <= 0 or degree > 64:
        return Fraction(0) if base == 0 and exponent > 0 else None
    roots = []
    for integer in (base.numerator, base.denominator):
        root = (
            math.isqrt(integer)
            if degree == 2
            else round(integer ** (1 / degree))
            if integer.bit_length() < 900
            else 0
        )
        if root**degree != integer:
            return None
        roots.append(root)
    return _integer_power(Fraction(roots[0], roots[1]), exponent.numerator)


def _exact_function(node: Node) -> Fraction | None:
    name = node[1]
    if name not in ("factorial", "binomial", "abs", "root", "floor", "ceil", "gcd", "lcm", "max", "min"):
        return None
    arguments = [exact(child) for child in node[2:]]
    values = [value for value in arguments if value is not None]
    if len(values) < len(arguments):
        return None
    if name == "abs":
        return abs(values[0])
    if name == "root":
        return _exact_root(values[0], 1 / values[1]) if values[1] > 0 and values[0] >= 0 else None
    if name in ("floor", "ceil"):
        return Fraction(math.floor(values[0]) if name == "floor" else math.ceil(values[0]))
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    integers = [value.numerator for value in values]
    if any(value.denominator != 1 for value in values):
        return None
    if name in ("gcd", "lcm"):
        return Fraction(math.gcd(*integers) if name == "gcd" else math.lcm(*integers))
    if name == "factorial":
        if integers[0] < 0:
            return None
        if integers[0] > 3500:  # 3500! has some 36,000 bits
            raise TooLargeError
        return Fraction(math.factorial(integers[0]))
    if not 0 <= integers[1] <= integers[0]:
        return None
    if integers[0] > MAX_BITS:
        raise TooLargeError
    return Fraction(math.comb(*integers))


def symbols(node: Node) -> frozenset[str]:
    """Return the names of the variables in a tree, without the constants e, i and pi."""
    return frozenset(_symbols(node)) - {"e", "i", "pi"}


def mentions_i(node: Node) -> bool:
    """Return whether the imaginary unit stands in the tree."""
    return "i" in _symbols(node)


def _symbols(node: Node) -> set[str]:
    if node[0] == "s":
        return {node[1]}
    if node[0] == "n":
        return set()
    found: set[str] = set()
    for child in node[1:]:
        if isinstance(child, tuple):
            found |= _symbols(child)
    return found


class Evaluator(threading.local):
    """An evaluator of trees to `DIGITS` digits.

    It has one arithmetic context per thread, because mpmath changes its precision as it works.
    """

    def __init__(self) -> None:
        self.ctx = MPContext()
        self.ctx.dps = DIGITS
        self._functions = {
            name: getattr(self.ctx, name)
            for name in ("sin", "cos", "tan", "sec", "csc", "cot", "sinh", "cosh", "tanh")
        }
        self._functions |= {
            "arc" + name: getattr(self.ctx, "a" + name) for name in ("sin", "cos", "tan", "sec", "csc", "cot")
        }
        self._functions |= {"arc" + name: getattr(self.ctx, "a" + name) for name in ("sinh", "cosh", "tanh")}

    def value(self, node: Node, point: Mapping[str, Any], common_log: bool = False) -> Any:
        r"""Return the value at `point` (a number for each variable), as an mpf or mpc.

        With `common_log`, `\log` without a base is the common logarithm instead of the natural one. Raise
        `TooLargeError` and `UndefinedError`.
        """
        ctx = self.ctx
        kind = node[0]
        if kind == "n":
            fraction = node[1]
            return ctx.mpf(fraction.numerator) / fraction.denominator
        if kind == "s":
            name = node[1]
            if name in point:
                return point[name]
            return ctx.pi() if name == "pi" else ctx.e() if name == "e" else ctx.mpc(0, 1)
        if kind == "f":
            return self._function(
                node[1], [self.value(child, point, common_log) for child in node[2:]], common_log
            )
        values = [self.value(child, point, common_log) for child in node[1:]]
        if kind == "+":
            return ctx.fsum(values)
        if kind == "*":
            return math.prod(values[1:], start=values[0])
        if kind == "/":
            if values[1] == 0:
                raise UndefinedError
            return values[0] / values[1]
        return self._power(values[0], values[1])

    def _size(self, value: Any) -> Any:
        """Return |log2 |value||, roughly: the number of bits that its exponent takes."""
        return abs(self.ctx.mag(value)) if value else 0

    def _power(self, base: Any, exponent: Any) -> Any:
        if base == 0:
            if self.ctx.re(exponent) <= 0:
                raise UndefinedError
            return self.ctx.mpf(0)
        if abs(exponent) * (self._size(base) + 1) > MAX_BITS:
            raise TooLargeError
        return self.ctx.power(base, exponent)

    def _function(self, name: str, values: list[Any], common_log: bool) -> Any:
        ctx = self.ctx
        first = values[0]
        if self._size(first) > 200 and name not in ("abs", "ln", "log", "root", "degree", "max", "min"):
            raise TooLargeError
        if name in self._functions:
            if name in ("sinh", "cosh", "tanh") and abs(first) > MAX_BITS:
                raise TooLargeError
            try:
                return self._functions[name](first)
            except (ZeroDivisionError, ValueError) as error:
                raise UndefinedError from error
        if name in ("ln", "log"):
            if first == 0:
                raise UndefinedError
            value = ctx.log(first)
            return value / ctx.log(10) if name == "log" and common_log else value
        if name == "abs":
            return abs(first)
        if name == "degree":
            return first * ctx.pi() / 180
        if name == "root":
            return self._root(first, values[1])
        if name.startswith("apply:"):
            return self._unknown(name, values)
        return self._integer_function(name, values)

    def _root(self, radicand: Any, index: Any) -> Any:
        """Return the root; the root of a negative number with an odd index is the real one."""
        if index == 0:
            raise UndefinedError
        if (
            isinstance(radicand, self.ctx.mpf)
            and radicand < 0
            and index == int(self.ctx.re(index))
            and int(self.ctx.re(index)) % 2
        ):
            return -self._power(-radicand, 1 / index)
        return self._power(radicand, 1 / index)

    def _unknown(self, name: str, values: list[Any]) -> Any:
        """Return the value of a stand-in for an unknown function: smooth, not linear, and another one for
        every name.
        """
        seed = sum(ord(char) * 31**k for k, char in enumerate(name)) % 997
        total = self.ctx.mpf(seed) / 499
        for k, value in enumerate(values):
            total = total + self.ctx.cos((k + 2) * value / 3 + seed)
        return total

    def _integer_function(self, name: str, values: list[Any]) -> Any:
        ctx = self.ctx
        if any(not isinstance(value, ctx.mpf) for value in values):
            raise UndefinedError
        if name in ("floor", "ceil"):
            return getattr(ctx, name)(values[0])
        if name in ("max", "min"):
            return max(values) if name == "max" else min(values)
        if any(abs(value) > MAX_BITS for value in values):
            raise TooLargeError
        try:
            if name == "factorial":
                return ctx.factorial(values[0])
            if name == "binomial":
                return ctx.binomial(values[0], values[1])
        except (ZeroDivisionError, ValueError) as error:
            raise UndefinedError from error
        raise UndefinedError
