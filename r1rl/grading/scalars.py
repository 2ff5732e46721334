"""The reading of one expression with its surroundings: currency, unit, percent and degree sign,
plus-minus.
"""

from __future__ import annotations

import re

from r1rl.grading.expression import parse_tokens
from r1rl.grading.shapes import Answer, Group, Scalar
from r1rl.grading.tokens import Token, UnreadableError, tokenize
from r1rl.grading.units import split_degree, split_percent, split_unit, strip_lead

_DECIMAL = re.compile(r"^[-+]?(\d[\d,]*)?\.(\d+)$")
_SCIENTIFIC = re.compile(
    r"^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:\s*(?:\\times|\\cdot)\s*10\s*\^\s*(?:\{\s*-?\d+\s*\}|\d)|[eE][-+]?\d+)$"
)


def read_scalar(text: str) -> Answer | None:
    """Return one expression with its unit, or the list of the two that a plus-minus sign stands for.

    Return None if the text can't be read.
    """
    body = strip_lead(text)
    body, unit = split_unit(body)
    body, percent = split_percent(body)
    if not percent and unit == "percent":
        percent, unit = True, None
    body, degree = split_degree(body)
    if not degree and unit == "degree":
        degree, unit = True, None
    try:
        tokens = tokenize(body)
        variants = [parse_tokens(variant) for variant in _plus_minus(tokens)]
    except UnreadableError:
        return None
    if len(variants) == 2:
        return Group(text, tuple(Scalar(text, node, None, 0, unit, percent, degree) for node in variants), "")
    decimals, digits = _precision(body.strip())
    return Scalar(text, variants[0], decimals, digits, unit, percent, degree)


def _precision(body: str) -> tuple[int | None, int]:
    """Return the decimals and the significant digits of a decimal number, or (None, 0) for anything else."""
    match = _DECIMAL.match(body)
    if match:
        whole = (match.group(1) or "").replace(",", "")
        return len(match.group(2)), len((whole + match.group(2)).lstrip("0"))
    if _SCIENTIFIC.match(body):
        mantissa = re.split(r"[eE\\]", body.lstrip("+-"))[0].strip()
        return len(mantissa.partition(".")[2]), len(mantissa.replace(".", "").lstrip("0"))
    return None, 0


def _plus_minus(tokens: list[Token]) -> list[list[Token]]:
    """Return the token lists that a plus-minus sign stands for; all signs of one expression are taken
    together.
    """
    if not any(token.kind == "command" and token.value in ("pm", "mp") for token in tokens):
        return [tokens]
    upper, lower = {"pm": "+", "mp": "-"}, {"pm": "-", "mp": "+"}
    return [
        [
            Token("symbol", signs[t.value], t.spaced) if t.kind == "command" and t.value in signs else t
            for t in tokens
        ]
        for signs in (upper, lower)
    ]
