"""Units, currencies and percent signs: the rules that split them from the number that they belong to.

A unit may be left out or added, but never changed: "15 cm" equals "15" and "15 centimeters", but not "15 m".
No unit is converted.
"""

from __future__ import annotations

import re

_ALIASES = {
    "cm": "centimeter " "centimetre", "mm": "millimeter millimetre", "m": "meter metre",
    "km": "kilometer kilometre", "in": "inch " "inche", "ft": "foot " "feet", "yd": "yard", "mi": "mile",
    "g": "gram gramme " "gm", "kg": "kilogram " "kilo", "mg": "milligram", "lb": "pound", "oz": "ounce",
    "s": "sec " "second", "min": "minute", "h": "hr " "hour", "day": "", "week": "wk", "month": "",
    "year": "yr", "ml": "milliliter millilitre", "l": "liter litre", "mph": "", "kph": "kmh", "degree": "deg",
    "dollar": "usd", "cent": "", "euro": "eur", "yuan": "rmb", "rupee": "rs", "radian": "rad", "unit": "",
    "square": "sq", "cubic": "cu", "j": "joule", "n": "newton", "w": "watt", "v": "volt",
    "a": "ampere amp", "hz": "hertz", "k": "kelvin", "pa": "pascal", "people": "person", "gallon": "gal",
    "nm": "", "kj": "", "kw": "", "mhz": "", "mol": "mole", "gb": "", "mb": "", "percent": "pct percentage",
}  # fmt: skip
_CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in [name, *aliases.split()]}
_NOT_A_UNIT = frozenset(
    [
        "or", "and", "if", "not", "for", "is", "are", "the", "no", "yes", "when", "where", "with", "but",
        "to", "than", "more", "less", "about", "approximately", "either", "neither", "nor", "any", "all",
        "such", "that", "other", "maybe", "perhaps", "then", "so", "else", "except", "between", "does", "do",
        "false", "true", "undefined", "infinity", "none", "nan", "pi", "sin", "cos", "tan", "log", "ln",
        "sqrt", "exp",
    ]
)  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+")
_TAIL_PART = re.compile(r"\\text ?\{([^{}]*)\}|([\s/.,]|\\cdot(?![A-Za-z])|\^ ?\{?-?\d\}?|per\b)")
_BARE_UNIT = re.compile(r"[A-Za-z]+(?:\.|\s?\^[23])?(?:(?:\s*/\s*|\s+)[A-Za-z]+(?:\.|\s?\^[23])?)*")
_CURRENCY = re.compile(r"^(?:\\euro ?|\\pounds ?|US\$?\s*|USD\s*|Rs\.?\s*|EUR\s*|RMB\s*)(?=[-\d.])")
_PERCENT = re.compile(
    r"\s*(?:%|\\text ?\{\s*(?:percent|pct|%)\s*\}|\bpercent(?:age)?|\bpct)\s*$", re.IGNORECASE
)
_DEGREE = re.compile(
    r"\s*(?:\^ ?\{? ?\\circ ?\}?|\\text ?\{\s*degrees?\s*\}|\bdegrees?|\bdeg)\s*(?:C|F|\\text "
    r"?\{\s*[CF]\s*\})?\s*$"
)
_APPROXIMATE = re.compile(
    r"^(?:\\approx ?|\\sim ?|~|about |approximately |\\text ?\{\s*(?:about|approximately)\s*\})\s*"
)


def split_percent(text: str) -> tuple[str, bool]:
    """Return the text without a percent sign or word at its end, and whether there was one."""
    match = _PERCENT.search(text)
    return (text[: match.start()], True) if match and match.start() else (text, False)


def split_degree(text: str) -> tuple[str, bool]:
    """Return the text without a degree sign or word at its end, and whether there was one."""
    match = _DEGREE.search(text)
    return (text[: match.start()], True) if match and match.start() else (text, False)


def strip_lead(text: str) -> str:
    """Return the text without a currency or an "approximately" before the number."""
    return _CURRENCY.sub("", _APPROXIMATE.sub("", text))


def split_unit(text: str) -> tuple[str, str | None]:
    """Return the text without the unit at its end, and the unit in canonical form (None if there is none)."""
    start = text.find("\\text")
    while start > 0:
        unit = _text_tail(text, start)
        if unit is not None:
            return text[:start].rstrip(), unit
        start = text.find("\\text", start + 5)
    return _split_bare(text)


def _split_bare(text: str) -> tuple[str, str | None]:
    """Do what `split_unit` does for a unit in plain letters.

    It scans backwards once, because the time must stay linear in the length of the text.
    """
    text = text.replace("^{2}", "^2").replace("^{3}", "^3")
    start = len(text)
    while start:
        char = text[start - 1]
        if (char.isascii() and char.isalpha()) or char in " /.":
            start -= 1
        elif char in "23" and text[start - 2 : start - 1] == "^":
            start -= 2
        else:
            break
    letter = _WORD.search(text, start)
    if letter is None or not start or text[start - 1] not in "0123456789)}]!|":
        return text, None
    tail = text[letter.start() :]
    words = _WORD.findall(tail)
    spaced = text[letter.start() - 1] == " "
    if (
        len(words) > 4
        or not _BARE_UNIT.fullmatch(tail)
        or not all(_is_bare_unit(word, spaced) for word in words)
    ):
        return text, None
    return text[: letter.start()].rstrip(), canonical(tail)


def _text_tail(text: str, start: int) -> str | None:
    """Return the unit if everything from `start` on is text groups and unit signs, or else None."""
    position, parts = start, []
    while position < len(text):
        match = _TAIL_PART.match(text, position)
        if match is None:
            return None
        parts.append(match.group(1) if match.group(1) is not None else match.group(2))
        position = match.end()
    tail = " ".join(parts)
    words = [word.lower() for word in _WORD.findall(tail)]
    if len(words) > 6 or any(word in _NOT_A_UNIT for word in words) or re.search(r"\d[^ ]*[a-z]|\d{2}", tail):
        return None
    return canonical(tail)


def _is_bare_unit(word: str, spaced: bool) -> bool:
    lower = word.lower()
    if lower in _NOT_A_UNIT:
        return False
    if _singular(lower) in _CANONICAL:
        return len(lower) > 1 or (spaced and lower in "mgsh")
    return spaced and len(word) >= 3 and word.isalpha()


def _singular(word: str) -> str:
    if word in _CANONICAL or len(word) < 3:
        return word
    return word[:-1] if word.endswith("s") else word


def canonical(unit: str) -> str | None:
    """Return the one spelling of a unit: canonical names in their order with exponents, or None for an empty
    unit.
    """
    names = []
    squared = {"square": "2", "cubic": "3"}
    pending = ""
    for token in re.findall(r"[A-Za-z]+|-?\d|/|per", unit):
        lower = token.lower()
        if lower == "per":
            lower = "/"
        if lower.isalpha():
            name = _singular(lower)
            name = _CANONICAL.get(name, name)
            if name in squared:
                pending = squared[name]
                continue
            names.append(name + pending)
            pending = ""
        else:
            names.append(lower)
    if pending:
        names.append(pending)
    return "".join(names) or None
