"""The gate before any parser or worker: answers that are too long, too deep or too large to be decided within
the limit.
"""

from __future__ import annotations

import re

MAX_LENGTH = 1_500
"""The most characters of an answer or gold answer; longer ones are only compared as text."""
MAX_NESTING = 60
MAX_STACKED_POWERS = 3

_BRACES = re.compile(r"\\.|[{}()\[\]]", re.DOTALL)
_LARGE_EXPONENT = re.compile(r"\^\s*\{?\s*\d{5,}")
_LARGE_FACTORIAL = re.compile(r"\d{5,}\s*\)?\s*!|!!!")
_BOUNDS = re.compile(
    r"\\(?:sum|prod|bigcup|bigcap|int)(?![A-Za-z])[^\\]{0,40}?\^\s*\{?\s*(\d{5,}|\d+\s*\^|\d+\s*!)"
)


def too_long(text: str) -> bool:
    """Return whether an answer is so long that only equality as text is tried."""
    return len(text) > MAX_LENGTH


def too_costly(text: str) -> bool:
    """Return whether computer algebra would need unbounded time for a text that no parser of this package has
    read.

    Such texts have stacked powers of numbers, sums over millions of terms, factorials of large numbers or
    brackets nested very deeply.
    """
    depth = deepest = 0
    powers: list[int] = []
    for match in _BRACES.finditer(text):
        bracket = match.group()
        if bracket[0] == "\\":
            continue
        if bracket in "{([":
            depth += 1
            deepest = max(deepest, depth)
            if text[: match.start()].rstrip().endswith("^"):
                powers.append(depth)
                if len(powers) > MAX_STACKED_POWERS:
                    return True
        else:
            if powers and powers[-1] == depth:
                powers.pop()
            depth -= 1
    if deepest > MAX_NESTING:
        return True
    return any(pattern.search(text) for pattern in (_LARGE_EXPONENT, _LARGE_FACTORIAL, _BOUNDS))
