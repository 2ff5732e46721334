"""The extraction of the answer: the region after the thinking block, the answer tag in it, the last box in
that.

Every search is a forward or backward scan (`str.find`, `str.rfind`, one scan over the braces). So the time is
linear in the length of the completion whatever the model wrote; no regular expression runs over a whole
completion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1rl.grading.types import Outcome

BOX_COMMANDS = ("\\boxed", "\\fbox", "\\framebox")
MAX_JOINED_BOXES = 16
"""The most adjacent boxes that are read as one list; no person would write a longer row of boxes as an
answer.
"""

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"[ \t]+([-+]?\d[\d,]*(?:\.\d+)?|[A-Za-z](?![A-Za-z]))|([0-9])")
_MENTION = re.compile(r"[`'\".]*[ \t]+[A-Za-z]{2}")
r"""The text after a box command that is only talked about: "Note that \boxed is a command"."""
_BETWEEN_BOXES = re.compile(
    r"(?:[\s,;&$]|and\b|or\b|\\text\s*\{\s*(?:and|or|,)?\s*\}|\\q?quad|\\[()\[\],;! \\])*"
)


@dataclass(frozen=True, slots=True)
class Extraction:
    """The text of the answer, or the reason why there is none (`NO_ANSWER`, `MALFORMED`)."""

    text: str | None
    problem: Outcome | None = None


NO_ANSWER = Extraction(None, Outcome.NO_ANSWER)
MALFORMED = Extraction(None, Outcome.MALFORMED)


def answer_region(completion: str, prefill: str = "") -> str | None:
    """Return the part of a completion that may hold the answer, which is everything after the last
    `</think>`.

    Return None if the thinking block is still open at the end. `prefill` is the end of the prompt that stands
    for the model's first words: with "<think>" in it, a completion without `</think>` is all thoughts.
    """
    closed = completion.rfind("</think>")
    region = completion if closed < 0 else completion[closed + 8 :]
    if "<think>" in region or (closed < 0 and prefill.rfind("<think>") > prefill.rfind("</think>")):
        return None
    return region


def answer_tag(region: str, prefill: str = "") -> str | None:
    """Return the content of the last complete `<answer>...</answer>`, or None if there is none."""
    end = region.rfind("</answer>")
    if end < 0:
        return None
    start = region.rfind("<answer>", 0, end)
    if start >= 0:
        return region[start + 8 : end]
    if prefill.rfind("<answer>") > prefill.rfind("</answer>") and "</answer>" not in region[:end]:
        return region[:end]
    return None


def closing_brace(text: str, start: int) -> int:
    r"""Return the index of the brace that closes the one at `text[start]`, or -1 if it is never closed.

    `\{` and `\}` don't count.
    """
    depth = 0
    for match in _BRACE.finditer(text, start):
        char = match.group()
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return -1


def _last_command(text: str, end: int) -> tuple[int, int]:
    """Return the start and the end of the last box command that begins before `end`, or (-1, -1) if there is
    none.
    """
    start, length = -1, 0
    for command in BOX_COMMANDS:
        found = text.rfind(command, 0, end)
        if found > start:
            start, length = found, len(command)
    return (start, start + length) if start >= 0 else (-1, -1)


def _box_content(text: str, after: int) -> tuple[str, int] | None:
    """Return the argument of a box command that ends at `after`, and the index behind it.

    Return None if the argument is malformed or empty.
    """
    brace = after
    while brace < len(text) and text[brace] in " \t\n":
        brace += 1
    if brace < len(text) and text[brace] == "{":
        close = closing_brace(text, brace)
        content = text[brace + 1 : close].strip() if close >= 0 else ""
        return (content, close + 1) if content else None
    bare = _BARE_BOX.match(text, after)
    if bare is None:
        return None
    return bare.group(1) or bare.group(2), bare.end()


def last_box(text: str) -> Extraction | None:
    """Return the content of the last box in `text`, or None if there is no box at all.

    A command without an argument in the middle of a sentence is no box. A last box that is empty or never
    closed is malformed, whatever boxes came before. Boxes that follow each other with nothing but commas,
    "and", "or" or mathematical delimiters between them are one answer, a list.
    """
    start, after = _last_command(text, len(text))
    while start >= 0 and _MENTION.match(text, after):
        start, after = _last_command(text, start)
    if start < 0:
        return None
    found = _box_content(text, after)
    if found is None:
        return MALFORMED
    contents = [found[0]]
    for _ in range(MAX_JOINED_BOXES - 1):
        previous, after = _last_command(text, start)
        if previous < 0:
            break
        box = _box_content(text, after)
        if box is None or box[1] > start or _BETWEEN_BOXES.fullmatch(text, box[1], start) is None:
            break
        contents.append(box[0])
        start = previous
    contents.reverse()
    distinct = list(dict.fromkeys(contents))
    return Extraction(distinct[0] if len(distinct) == 1 else ", ".join(distinct))


def extract_strict(completion: str, prefill: str = "") -> Extraction:
    """Return the answer by the strict policy: a box or an answer tag behind the thinking block, and nothing
    else.
    """
    region = answer_region(completion, prefill)
    if region is None:
        return NO_ANSWER
    tag = answer_tag(region, prefill)
    box = last_box(region if tag is None else tag)
    if box is not None:
        return box
    if tag is None:
        return MALFORMED if "<answer>" in region else NO_ANSWER
    tag = tag.strip()
    return Extraction(tag) if tag else MALFORMED


def braces_match(text: str) -> bool:
    """Return whether every brace in `text` has its partner, so that the text can stand in a box."""
    return closing_brace("{" + text + "}", 0) == len(text) + 1
