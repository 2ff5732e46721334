"""The reading of answers that are neither boxed nor tagged, for benchmarks whose convention differs.

It is not used for training rewards unless a recipe asks for it: a policy soon learns to scatter numbers over
its last line.

An answer is looked for in this order: behind "####", behind the last "the answer is" (also in other
languages), in the last formula, in the last bold text, as the last number. A choice letter is the last
capital letter on its own.
"""

# ruff: noqa: RUF001 - answers are announced in many scripts

from __future__ import annotations

import re

from r1rl.grading.extract import NO_ANSWER, Extraction, answer_region

TAIL = 2_000
"""The number of characters at the end that are searched."""

_ANCHOR = re.compile(
    r"(?:final\s+answer|answer|result|solution|réponse|respuesta|antwort|resposta|risposta|ответ|答案|答え|정답)"
    r"[\s*_]*(?:is\s+for\s+sure|is\s*:?|are\s*:?|est\s*:?|es\s*:?|ist\s*:?|是|为|為|[:：=])?[\s*_]*",
    re.IGNORECASE,
)
_HASHES = re.compile(r"####\s*([^\n]+)")
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_NUMBER = re.compile(
    r"-?(?:\\?\$)?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:[.,]\d+)?(?<=\d)(?:\s*/\s*\d+)?(?:\s*(?:\\?%|percent|pct))?"
)
_BRACKETED_LETTER = re.compile(r"\(([A-J])\)|\*\*\(?([A-J])\b")
_LETTER = re.compile(r"(?<![A-Za-z])(A(?! [a-z])|[B-HJ]|I(?=[.):]|\s*$))(?![A-Za-z'])")
_CHOICE = re.compile(r"\(?[A-Ja-j]\)?")
_SENTENCE_END = re.compile(r"(?<=[^\d\s])\.\s|\.\s*$|\.\s+(?=[A-Z\\])|\n|。")


def extract_lenient(completion: str, prefill: str, gold: str | None) -> Extraction:
    """Return the answer of a completion that has neither a box nor a tag."""
    region = answer_region(completion, prefill)
    if region is None:
        return NO_ANSWER
    tail = region[-TAIL:].strip()
    if not tail:
        return NO_ANSWER
    text = (
        _choice(tail)
        if gold is not None and _CHOICE.fullmatch(gold.strip().removeprefix("\\text{").removesuffix("}"))
        else None
    )
    if text is None:
        text = _after_anchor(tail) or _short(tail) or _last_formula(tail) or _last_number(tail)
    return Extraction(text) if text else NO_ANSWER


def _choice(tail: str) -> str | None:
    anchors = list(_ANCHOR.finditer(tail))
    start = anchors[-1].end() if anchors else 0
    found = _BRACKETED_LETTER.search(tail, start) or _LETTER.search(tail, start) or _LETTER.search(tail)
    return found.group(found.lastindex or 1) if found else None


def _after_anchor(tail: str) -> str | None:
    hashes = _HASHES.findall(tail)
    if hashes:
        return str(hashes[-1]).strip()
    for match in reversed(list(_ANCHOR.finditer(tail))):
        rest = tail[match.end() :]
        formula = _MATH.match(rest)
        if formula:
            return _formula(formula)
        sentence = _SENTENCE_END.split(rest, maxsplit=1)[0].strip(" *:")
        if sentence and len(sentence) <= 200:
            number = _NUMBER.match(sentence)
            if number and not re.match(r"\s*[\\^+*/=({-]", sentence[number.end() :]):
                return number.group()
            return sentence
    return None


def _short(tail: str) -> str | None:
    """Return a completion that is nothing but an answer."""
    return (
        tail if tail.isascii() and len(tail) <= 40 and "\n" not in tail and len(tail.split()) <= 3 else None
    )


def _formula(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _last_formula(tail: str) -> str | None:
    formulas = list(_MATH.finditer(tail))
    if not formulas:
        return None
    text = _formula(formulas[-1])
    after = _NUMBER.search(tail, formulas[-1].end())
    if after and after.group():
        return None
    return text.rpartition("=")[2].strip() or text


def _last_number(tail: str) -> str | None:
    bold = _BOLD.findall(tail)
    if bold and _NUMBER.search(bold[-1]):
        tail = bold[-1]
    numbers = [match.group().strip() for match in _NUMBER.finditer(tail) if match.group().strip()]
    return numbers[-1] if numbers else None
