"""The comparison of two answers, shape by shape.

The verdicts True and False are decisions, and None leaves the decision to the symbolic stage. Shapes that
can't be equal are rejected here: a list for a number, a tuple with one more entry, an interval with another
end. Only mathematics that this package can't read (`Opaque`) stays undecided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from r1rl.grading.atoms import Node, negate
from r1rl.grading.evaluate import Evaluator, TooLargeError, UndefinedError, exact, symbols
from r1rl.grading.identity import same_up_to_factor, same_value
from r1rl.grading.names import bare_items, by_name, is_name, name_key, same_name
from r1rl.grading.read import choice_letter, read
from r1rl.grading.regions import as_region, has_inequality
from r1rl.grading.shapes import Answer, Based, Group, Matrix, Opaque, Ratio, Relation, Scalar, Union, Words

DECIMAL_DIGITS = 6
"""The least number of significant digits, all correct, with which a decimal number stands for an exact
answer.
"""
ROUNDED_DIGITS = 3
"""The least number of digits of a decimal gold answer that may stand for the exact value that rounds to it.
"""
APPROXIMATION = 0.01
"""The largest relative difference between the sides of an "approximately"."""

MAX_UNMATCHED = 32
"""The most entries of two unordered lists, not equal as text, that are compared with each other.

More would take too long.
"""

_NUMBER_WORDS = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        ]
    )
}
_THOUSANDS_LIST = re.compile(r"\d{1,3}(?:,\d{3})+")
_INTEGER_PAIR = re.compile(r"(-?\d+),(\d+)")


class Comparer:
    """The comparison of answers with one evaluator.

    Its methods raise `TooLargeError` if a value is too large to be computed.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def equal(self, gold: Answer, answer: Answer) -> bool | None:
        """Return whether `answer` is the gold answer, or None if no rule decides."""
        if gold.key and gold.key == answer.key:
            return True
        if isinstance(gold, Words) or isinstance(answer, Words):
            return self._words(gold, answer)
        if isinstance(gold, Scalar) and isinstance(answer, Scalar):
            return self._scalars(gold, answer)
        if isinstance(gold, Based) or isinstance(answer, Based):
            return _based(gold, answer)
        if isinstance(gold, Ratio) or isinstance(answer, Ratio):
            return self._ratios(gold, answer)
        if isinstance(gold, Relation) or isinstance(answer, Relation):
            return self._relations(gold, answer)
        if isinstance(gold, Union) or isinstance(answer, Union):
            return self._regions(gold, answer)
        if isinstance(gold, Matrix) or isinstance(answer, Matrix):
            return self._matrices(gold, answer)
        if isinstance(gold, Group) or isinstance(answer, Group):
            return self._groups(gold, answer)
        return None

    def _words(self, gold: Answer, answer: Answer) -> bool | None:
        first, second = _letters(gold), _letters(answer)
        if first is not None and first == second:
            return True
        if isinstance(gold, Words) and len(gold.words) == 1:
            return choice_letter(answer.text) == gold.text.strip("() ").upper()
        number = _NUMBER_WORDS.get(first or second or "")
        if number is not None and isinstance(gold, Scalar) != isinstance(answer, Scalar):
            scalar = gold if isinstance(gold, Scalar) else answer
            return isinstance(scalar, Scalar) and scalar.node == ("n", Fraction(number))
        if isinstance(gold, Words) and isinstance(answer, Relation):
            value = self.value_of(answer)
            return self._words(gold, value) if isinstance(value, Words) else False
        if isinstance(answer, Words) and isinstance(gold, Relation):
            value = self.value_of(gold)
            return self._words(value, answer) if isinstance(value, Words) else False
        return False

    # -- numbers and expressions --

    def _scalars(self, gold: Scalar, answer: Scalar) -> bool | None:
        if gold.unit and answer.unit and gold.unit != answer.unit:
            return False
        if gold.percent != answer.percent:
            hundredth: Node = ("n", Fraction(1, 100))
            percent, plain = (gold, answer) if gold.percent else (answer, gold)
            part = Scalar(percent.text, ("*", percent.node, hundredth))
            return self._values(gold, answer) or self._values(part, plain)
        if gold.degree != answer.degree:
            degrees, plain = (gold, answer) if gold.degree else (answer, gold)
            radians: Node = ("f", "degree", degrees.node)
            return self._values(gold, answer) or ("pi" in plain.text and self._same(radians, plain.node))
        return self._values(gold, answer)

    def _values(self, gold: Scalar, answer: Scalar) -> bool | None:
        same = self._same(gold.node, answer.node)
        if same is False and (gold.decimals is None) != (answer.decimals is None):
            if answer.decimals is not None:
                return answer.digits >= DECIMAL_DIGITS and self._rounds_to(gold.node, answer, cut_off=True)
            return gold.digits >= ROUNDED_DIGITS and self._rounds_to(answer.node, gold, cut_off=False)
        return same

    def _same(self, left: Node, right: Node) -> bool | None:
        return same_value(self.evaluator, left, right)

    def _rounds_to(self, node: Node, decimal: Scalar, cut_off: bool) -> bool:
        """Return whether the constant `node` gives the decimal number if it is rounded (with `cut_off`: or
        cut off) to its places.

        Return False if `node` is an integer, which has a shorter decimal number of its own.
        """
        rounded = exact(decimal.node)
        if symbols(node) or not rounded:
            return False
        place = Fraction(10) ** (_magnitude(rounded) - decimal.digits + 1)
        value = exact(node)
        if value is None:
            approximate = self._constant(node)
            if approximate is None or getattr(approximate, "imag", 0) != 0:
                return False
            value = _fraction(approximate)
        elif value.denominator == 1:
            return False
        distance = abs(value - rounded)
        return distance <= place / 2 or (cut_off and distance < place and abs(rounded) < abs(value))

    def _constant(self, node: Node) -> Any:
        """Return the value of a tree without variables, as an mpf or mpc, or None if it has none."""
        try:
            return self.evaluator.value(node, {})
        except (UndefinedError, ZeroDivisionError, ValueError, OverflowError):
            return None

    def _ratios(self, gold: Answer, answer: Answer) -> bool | None:
        """Return whether a ratio equals another in proportion, or the fraction that it stands for.

        "12:00" only equals itself.
        """
        if isinstance(gold, Relation) or isinstance(answer, Relation):
            return self._relations(gold, answer)
        first, second = _quotient(gold), _quotient(answer)
        if first is None or second is None:
            if isinstance(gold, Ratio) and isinstance(answer, Ratio) and len(gold.terms) == len(answer.terms):
                return _all(self.equal(a, b) for a, b in zip(gold.terms, answer.terms, strict=True))
            return None if isinstance(gold, Opaque) or isinstance(answer, Opaque) else False
        return self._same(first, second)

    # -- relations --

    def value_of(self, relation: Relation) -> Answer | None:
        r"""Return the value that a chain of equalities gives, such as `x = 5` and `\log_2 8 = 3`.

        Return None if its sides contradict each other or if it is an equation to be solved (`x + y = 1`).
        """
        if any(operator not in ("=", "~") for operator in relation.operators):
            return None
        values = [side for side in relation.sides if not is_name(side)]
        if not values:
            return (
                relation.sides[-1]
                if len(relation.sides) == 2 and not isinstance(relation.sides[1], Group)
                else None
            )
        if len(values) == len(relation.sides) and any(
            isinstance(v, Scalar) and symbols(v.node) for v in values[:1]
        ):
            return None
        first_value = next(k for k, side in enumerate(relation.sides) if not is_name(side))
        if first_value and any(is_name(side) for side in relation.sides[first_value:]):
            return None
        for k, operator in enumerate(relation.operators):
            left, right = relation.sides[k], relation.sides[k + 1]
            if is_name(left) or is_name(right):
                continue
            if not (self._nearly(left, right) if operator == "~" else self.equal(left, right)):
                return None
        return values[0]

    def _nearly(self, left: Answer, right: Answer) -> bool:
        if (
            not (isinstance(left, Scalar) and isinstance(right, Scalar))
            or symbols(left.node)
            or symbols(right.node)
        ):
            return False
        a, b = self._constant(left.node), self._constant(right.node)
        if a is None or b is None:
            return False
        return bool(abs(a - b) <= APPROXIMATION * max(abs(a), abs(b)))

    def _relations(self, gold: Answer, answer: Answer) -> bool | None:
        if isinstance(gold, Relation) and isinstance(answer, Relation):
            return self._two_relations(gold, answer)
        relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
        assert isinstance(relation, Relation)
        if as_region(relation) is not None:
            return self._regions(gold, answer)
        value = self.value_of(relation)
        if value is None:
            opaque = isinstance(other, Opaque) or any(isinstance(side, Opaque) for side in relation.sides)
            return None if opaque and not has_inequality(relation) else False
        return self.equal(value, answer) if relation is gold else self.equal(gold, value)

    def _two_relations(self, gold: Relation, answer: Relation) -> bool | None:
        if as_region(gold) is not None and as_region(answer) is not None:
            return self._regions(gold, answer)
        if gold.operators == answer.operators:
            sides = [self.equal(a, b) for a, b in zip(gold.sides, answer.sides, strict=True)]
            if all(sides):
                return True
            undecided = None in sides and False not in sides
        else:
            undecided = False
        names = [name_key(relation.sides[0]) for relation in (gold, answer)]
        if names[0] is not None and names[1] is not None and same_name(names[0], names[1]):
            values = [self.value_of(relation) for relation in (gold, answer)]
            if values[0] is not None and values[1] is not None:
                verdict = self.equal(values[0], values[1])
                if verdict is not False:
                    return verdict
        if len(gold.sides) == 2 and gold.operators == answer.operators:
            return self._rearranged(gold, answer)
        return None if undecided else False

    def _rearranged(self, gold: Relation, answer: Relation) -> bool | None:
        """Return whether two equations or inequalities are equal up to a factor after everything is brought
        to one side.
        """
        sides = [*gold.sides, *answer.sides]
        if not all(isinstance(side, Scalar) for side in sides):
            return None if any(isinstance(side, Opaque) for side in sides) else False
        a, b, c, d = (side.node for side in sides if isinstance(side, Scalar))
        return (
            same_up_to_factor(
                self.evaluator, ("+", a, negate(b)), ("+", c, negate(d)), positive="=" not in gold.operators
            )
            or False
        )

    # -- intervals and unions --

    def _regions(self, gold: Answer, answer: Answer) -> bool | None:
        first, second = as_region(gold), as_region(answer)
        if first is None or second is None:
            return None if isinstance(gold, Opaque) or isinstance(answer, Opaque) else False
        return self._unordered(first, second)

    # -- groups --

    def _groups(self, gold: Answer, answer: Answer) -> bool | None:
        if not isinstance(gold, Group) or not isinstance(answer, Group):
            return self._group_and_single(gold, answer)
        named_gold, named_answer = by_name(gold), by_name(answer)
        if named_gold is not None and named_answer is not None:
            if named_gold.keys() != named_answer.keys():
                return False
            return _all(self.equal(value, named_answer[name]) for name, value in named_gold.items())
        first, second = bare_items(gold), bare_items(answer)
        if not first or not second:
            return not first and not second
        if "{}" in (gold.brackets, answer.brackets) and (gold.ordered or answer.ordered):
            return False
        if len(first) != len(second):
            return False
        if gold.ordered and answer.ordered and len(first) == 2 and gold.brackets != answer.brackets:
            return False
        if gold.ordered or answer.ordered or named_gold is not None or named_answer is not None:
            return _all(self.equal(a, b) for a, b in zip(first, second, strict=True))
        return self._unordered(first, second)

    def _group_and_single(self, gold: Answer, answer: Answer) -> bool | None:
        group, single = (gold, answer) if isinstance(gold, Group) else (answer, gold)
        assert isinstance(group, Group)
        if isinstance(single, Opaque):
            return None
        if len(group.items) == 1 and group.brackets == "{}":
            return self.equal(group.items[0], answer) if group is gold else self.equal(gold, group.items[0])
        if isinstance(single, Scalar) and group.brackets == "":
            compact = single.text.replace(" ", "")
            if _THOUSANDS_LIST.fullmatch(compact):  # 100,200 beside another list is a list too
                parts = Group(single.text, tuple(read(part) for part in compact.split(",")), "")
                return self._groups(parts, answer) if single is gold else self._groups(gold, parts)
            pair = _INTEGER_PAIR.fullmatch(group.text.replace(" ", ""))
            if single.decimals and pair and (single is gold or pair.group(1).lstrip("-") == "0"):
                decimal = read(f"{pair.group(1)}.{pair.group(2)}")  # a decimal comma
                return isinstance(decimal, Scalar) and exact(decimal.node) == exact(single.node)
        return False

    def _unordered(self, first: tuple[Answer, ...], second: tuple[Answer, ...]) -> bool | None:
        """Return whether two collections hold the same answers in any order."""
        if len(first) != len(second):
            return False
        rest = list(second)
        others: list[Answer] = []
        for item in first:
            same = next((k for k, other in enumerate(rest) if other.key == item.key), None)
            if same is None:
                others.append(item)
            else:
                del rest[same]
        if len(others) > MAX_UNMATCHED:
            raise TooLargeError
        undecided = False
        for item in others:
            for k, other in enumerate(rest):
                verdict = self.equal(item, other)
                if verdict:
                    del rest[k]
                    break
                undecided |= verdict is None
            else:
                return None if undecided else False
        return True

    def _matrices(self, gold: Answer, answer: Answer) -> bool | None:
        first, second = _rows(gold), _rows(answer)
        if first is None or second is None:
            return None if isinstance(gold, Opaque | Scalar) or isinstance(answer, Opaque | Scalar) else False
        if isinstance(gold, Matrix) and isinstance(answer, Matrix):
            if gold.determinant != answer.determinant:
                return False
        else:  # a vector may be written as a tuple
            first, second = _flat(first), _flat(second)
        if [len(row) for row in first] != [len(row) for row in second]:
            return False
        return _all(
            self.equal(a, b)
            for row, other in zip(first, second, strict=True)
            for a, b in zip(row, other, strict=True)
        )


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    """Return False if one verdict is False, else None if one is None, else True."""
    undecided = False
    for verdict in verdicts:
        if verdict is False:
            return False
        undecided |= verdict is None
    return None if undecided else True


def _magnitude(value: Fraction) -> int:
    """Return the exponent of the first significant digit: 2 for 314, -3 for 0.00271."""
    value = abs(value)
    exponent = len(str(value.numerator)) - len(str(value.denominator))
    return exponent if value >= Fraction(10) ** exponent else exponent - 1


def _letters(answer: Answer) -> str | None:
    """Return the words of an answer in words; a variable is a word of one letter."""
    if isinstance(answer, Words):
        return answer.words
    return answer.text.strip("() ").lower() if isinstance(answer, Scalar) and answer.node[0] == "s" else None


def _fraction(value: Any) -> Fraction:
    """Return the exact value of an mpf or of an mpc without imaginary part."""
    sign, mantissa, exponent, _ = getattr(value, "real", value)._mpf_
    return Fraction((-1) ** sign * int(mantissa)) * Fraction(2) ** exponent


def _quotient(answer: Answer) -> Node | None:
    """Return the fraction that a ratio of two terms stands for, or the expression itself."""
    if isinstance(answer, Scalar):
        return answer.node
    if not isinstance(answer, Ratio) or len(answer.terms) != 2:
        return None
    first, second = answer.terms
    if not isinstance(first, Scalar) or not isinstance(second, Scalar) or exact(second.node) == 0:
        return None
    return ("/", first.node, second.node)


def _based(gold: Answer, answer: Answer) -> bool | None:
    if isinstance(gold, Based) and isinstance(answer, Based):
        return gold.numeral == answer.numeral and gold.base == answer.base
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    if isinstance(other, Relation):
        return None
    return (
        isinstance(other, Scalar)
        and isinstance(based, Based)
        and other.text.replace(" ", "").lstrip("0") == based.numeral
    )


def _rows(answer: Answer) -> tuple[tuple[Answer, ...], ...] | None:
    if isinstance(answer, Matrix):
        return answer.rows
    if isinstance(answer, Group) and answer.brackets in ("()", "[]"):
        return (answer.items,)
    return None


def _flat(rows: tuple[tuple[Answer, ...], ...]) -> tuple[tuple[Answer, ...], ...]:
    return (tuple(row[0] for row in rows),) if all(len(row) == 1 for row in rows) else rows
