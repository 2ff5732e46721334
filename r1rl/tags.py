"""The think and answer tags of the R1-Zero template: where the thoughts end and where the answer stands.

`text` is always the prefill followed by the completion, so that a `<think>` written by the template counts.
"""

from __future__ import annotations

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def thoughts(text: str) -> str:
    """The reasoning: what stands before the last `</think>`; without one, before the first `<answer>`, else all of it.

    Tags are left out of the result.
    """
    head, closed, _ = text.rpartition(THINK_CLOSE)
    if not closed:
        head = text.partition(ANSWER_OPEN)[0]
    for tag in TAGS:
        head = head.replace(tag, " ")
    return head.strip()


def after_thoughts(text: str) -> str | None:
    """What follows the last `</think>` (all of the text if it has no think tag); None if the thoughts are never closed."""
    head, closed, tail = text.rpartition(THINK_CLOSE)
    return None if THINK_OPEN in tail else (tail if closed else head + tail)


def answer_block(text: str) -> str | None:
    """The contents of the last `<answer>` block after the thoughts; None if there is none or if the last one is not closed."""
    region = after_thoughts(text)
    if region is None or ANSWER_OPEN not in region:
        return None
    block, closed, _ = region.rpartition(ANSWER_OPEN)[2].partition(ANSWER_CLOSE)
    return block.strip() if closed else None
