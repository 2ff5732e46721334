"""Names that a value is given to: in `x = 5`, `f(x) = 2x`, `|AB| = 3`, `(x, y) = (1, 2)`."""

from __future__ import annotations

import re

from r1rl.grading.shapes import Answer, Group, Relation, Words

_NAME = re.compile(
    r"(?:[A-Za-z]|[A-Z]{2,4}|\\[A-Za-z]+ ?(?:\{[A-Za-z]+\}|[A-Za-z])?)'*"
    r"(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?(?:\^(?:\{-1\}|'|\{\\prime ?\}))?'*(?:\([^()]*\))?"
    r"|\|[A-Z]{2}\||[A-Z]+(?::[A-Z]+)+|\\(?:angle|triangle|measuredangle) "
    r"?[A-Z]*|\\frac\{?d[a-z]\}?\{?d[a-z]\}?|d[a-z]/d[a-z]"
)
_CONSTANT_NAMES = frozenset(["\\pi", "\\infty"])


def is_name(answer: Answer) -> bool:
    """Return whether this can only be a name that a value is given to.

    Such names are `x`, `f(x)`, `C_1`, `|AB|`, `A:B`, "Area" and `(x, y)`.
    """
    if isinstance(answer, Words):
        return True
    if isinstance(answer, Group):
        return (
            bool(answer.items)
            and answer.brackets in ("()", "")
            and all(is_name(item) for item in answer.items)
        )
    return _NAME.fullmatch(answer.key) is not None and answer.key not in _CONSTANT_NAMES


def name_key(answer: Answer) -> str | None:
    """Return the text key of an answer that is a name, or None if it is none."""
    return answer.key if is_name(answer) else None


def same_name(first: str, second: str) -> bool:
    """Return whether two names are equal.

    A function's name with and without its argument count as equal, and so do y and f(x).
    """
    bare = [name.partition("(")[0] for name in (first, second)]
    return bare[0] == bare[1] or (
        "y" in (first, second) and any(name.endswith("(x)") for name in (first, second))
    )


def by_name(group: Group) -> dict[str, Answer] | None:
    """Return the values by name if every item is `name = value` with another name, or else None."""
    named: dict[str, Answer] = {}
    for item in group.items:
        if (
            not isinstance(item, Relation)
            or item.operators != ("=",)
            or not is_name(item.sides[0])
            or item.sides[0].key in named
        ):
            return None
        named[item.sides[0].key] = item.sides[1]
    return named if len(named) > 1 else None


def bare_items(group: Group) -> tuple[Answer, ...]:
    """Return the items without their names: `x = 1, x = 2`, `x = 1, 2` and `1, 2` are the same list."""
    items: list[Answer] = []
    for item in group.items:
        if isinstance(item, Relation) and item.operators == ("=",) and is_name(item.sides[0]):
            value = item.sides[1]
            items.extend(value.items if isinstance(value, Group) and value.brackets == "" else (value,))
        else:
            items.append(item)
    return tuple(items)
