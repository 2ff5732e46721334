"""The think and answer tags of the R1-Zero template, and the text of the thoughts.

r1rl.grading.extract finds the answer.
"""

from __future__ import annotations

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def thoughts(text: str) -> str:
    """Return the reasoning in `text` (the prefill and the completion), without tags.

    It is the text before the last `</think>`; if there is none, the text before the first `<answer>`; or else
    all of it.
    """
    head, closed, _ = text.rpartition(THINK_CLOSE)
    if not closed:
        head = text.partition(ANSWER_OPEN)[0]
    for tag in TAGS:
        head = head.replace(tag, " ")
    return head.strip()
