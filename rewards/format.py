"""The R1-Zero format: `<think> thoughts </think> <answer> answer </answer>`, graded full, partial or zero."""

from __future__ import annotations

import re

from r1rl.errors import RewardError
from r1rl.text.tags import ANSWER_CLOSE, ANSWER_OPEN, TAGS, THINK_CLOSE, THINK_OPEN

_TAG = re.compile("|".join(map(re.escape, TAGS)))
_STRUCTURE = [THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE]
_OWN_LINES = re.compile(r"\s*<think>\n(.*?)\n</think>\n\s*<answer>\n(.*?)\n</answer>\s*", re.DOTALL)


def format(
    completions: list[str],
    prefill: str = "",
    *,
    full: float = 1.0,
    partial: float = 0.5,
    own_lines: bool = False,
) -> list[float | None]:
    """Reward the structure of the tags (DeepSeek-R1, arXiv 2501.12948, section 2.2.2; a prefilled `<think>`
    counts as written).

    - `full`: one think block, then one answer block, neither of them blank, and nothing else but white space.
    - `partial`: the basic structure holds: the thoughts end in one `</think>`, one answer block follows and
      the text ends with it; but `<think>` is missing, or text stands before `<think>` or between the two
      blocks.
    - 0: anything else, such as a repeated, nested or unclosed tag, text after `</answer>`, blank thoughts, a
      blank answer.

    `own_lines` asks for each tag on a line of its own (open-r1's pattern) for the full reward.
    """
    if not 0 <= partial <= full:
        raise RewardError(
            f"rewards: format: 0 <= partial <= full must hold, not partial {partial} and full {full}."
        )
    return [_grade(prefill + completion, full, partial, own_lines) for completion in completions]


def _grade(text: str, full: float, partial: float, own_lines: bool) -> float:
    tags = _TAG.findall(text)
    if tags not in (_STRUCTURE, _STRUCTURE[1:]):
        return 0.0
    before, *blocks, after = _TAG.split(text)
    if after.strip():
        return 0.0
    if tags != _STRUCTURE:
        thoughts, between, answer = before, *blocks
        return partial if thoughts.strip() and answer.strip() else 0.0
    thoughts, between, answer = blocks
    if not thoughts.strip() or not answer.strip():
        return 0.0
    exact = (
        not before.strip()
        and not between.strip()
        and (not own_lines or _OWN_LINES.fullmatch(text) is not None)
    )
    return full if exact else partial
