"""Whole-number expressions: their trees, text and stepwise evaluation, and all that some numbers can make.

An expression is a number or a tuple (operator, left, right) with the operators + - *.
"""

from __future__ import annotations

Expression = int | tuple[str, "Expression", "Expression"]

PRECEDENCE = {"+": 1, "-": 1, "*": 2}


def apply_operator(operator: str, left: int, right: int) -> int:
    """Return `left operator right`."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right


def value_of(expression: Expression) -> int:
    """Return the value of the expression."""
    if isinstance(expression, int):
        return expression
    operator, left, right = expression
    return apply_operator(operator, value_of(left), value_of(right))


def text_of(expression: Expression) -> str:
    """Return the expression as text, with only the parentheses that it needs: ("*", ("+", 3, 7), 5) is
    "(3+7)*5".
    """
    if isinstance(expression, int):
        return str(expression)
    operator, left, right = expression
    left_text, right_text = text_of(left), text_of(right)
    if not isinstance(left, int) and PRECEDENCE[left[0]] < PRECEDENCE[operator]:
        left_text = f"({left_text})"
    # On the right an operator of the same rank needs parentheses too: the text is read from left to right.
    if not isinstance(right, int) and PRECEDENCE[right[0]] <= PRECEDENCE[operator]:
        right_text = f"({right_text})"
    return f"{left_text}{operator}{right_text}"


def reduced(expression: Expression) -> Expression:
    """Return the expression after its leftmost operation on two plain numbers has been carried out."""
    if isinstance(expression, int):
        return expression
    operator, left, right = expression
    if not isinstance(left, int):
        return (operator, reduced(left), right)
    if not isinstance(right, int):
        return (operator, left, reduced(right))
    return apply_operator(operator, left, right)


def worked(expression: Expression) -> str:
    """Return the evaluation written out: "(3+7)*5=10*5=50"."""
    lines = [text_of(expression)]
    while not isinstance(expression, int):
        expression = reduced(expression)
        lines.append(text_of(expression))
    return "=".join(lines)


def reachable(numbers: list[int], operators: str, max_value: int) -> dict[int, Expression]:
    """Return every value that an expression of all `numbers` can take, each with its shortest expression.

    Only positive values of at most `max_value` occur, also as intermediate values. The result is in the order
    of the values.
    """
    shortest: dict[int, tuple[tuple[int, str], Expression]] = {}

    def combine(items: list[tuple[int, Expression]]) -> None:
        if len(items) == 1:
            value, expression = items[0]
            text = text_of(expression)
            key = (len(text), text)
            if value not in shortest or key < shortest[value][0]:
                shortest[value] = (key, expression)
            return
        for i in range(len(items)):
            for j in range(i + 1, len(items)):
                rest = items[:i] + items[i + 1 : j] + items[j + 1 :]
                for made in _pairings(items[i], items[j], operators, max_value):
                    combine([*rest, made])

    combine([(number, number) for number in sorted(numbers, reverse=True)])
    return {value: shortest[value][1] for value in sorted(shortest)}


def _pairings(
    x: tuple[int, Expression], y: tuple[int, Expression], operators: str, max_value: int
) -> list[tuple[int, Expression]]:
    """Return the combinations of two subexpressions.

    In each of them a compound one comes first, then the larger one (where the order is free).
    """
    (x_value, x_tree), (y_value, y_tree) = x, y
    if (isinstance(x_tree, int), -x_value) > (isinstance(y_tree, int), -y_value):
        x_value, x_tree, y_value, y_tree = y_value, y_tree, x_value, x_tree
    made: list[tuple[int, Expression]] = []
    if "+" in operators and x_value + y_value <= max_value:
        made.append((x_value + y_value, ("+", x_tree, y_tree)))
    if "*" in operators and x_value * y_value <= max_value:
        made.append((x_value * y_value, ("*", x_tree, y_tree)))
    if "-" in operators and x_value > y_value:
        made.append((x_value - y_value, ("-", x_tree, y_tree)))
    elif "-" in operators and y_value > x_value:
        made.append((y_value - x_value, ("-", y_tree, x_tree)))
    return made
