"""Shaping: a reward for the outward signs of step-by-step work. It is easily hacked: read the warning before
you use it.
"""

# ruff: noqa: RUF001 (other scripts and typography are the matter of this file)

from __future__ import annotations

import re

from r1rl.errors import RewardError

_STEP = re.compile(
    r"^[ \t]*(?:(?:#+[ \t]*|\*\*)?step[ \t]+\d+\b"
    r"|\d{1,2}[.)][ \t]+\S|[-*•][ \t]+\S|(?:第[一二三四五六七八九十\d]+步))"
    r"|\b(?:first|firstly|second|secondly|third|thirdly|next|then|finally),|(?:首先|其次|然后|接着|最后)[，,]",
    re.IGNORECASE | re.MULTILINE,
)


def reasoning_steps(completions: list[str], *, steps: int = 3) -> list[float | None]:
    """Return min(1, step markers / `steps`).

    Step markers are "Step 1", numbered and bulleted lines, "First,", "Next,", "Finally,", 首先, 然后 (after
    open-r1).

    No recipe uses this. **Warning**: it pays for the words, not for the steps. A policy learns within a few
    dozen updates to write "First, Next, Finally," around a direct answer. Gate it (`when: {accuracy: 1}`),
    keep its weight small, and read completions.
    """
    if steps < 1:
        raise RewardError(f"rewards: reasoning_steps: steps must be at least 1, not {steps}.")
    return [min(1.0, sum(1 for _ in _STEP.finditer(text)) / steps) for text in completions]
