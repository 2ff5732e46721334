"""Shaping: a reward for self-checking words. It is easily hacked: read the warning before you use it."""

from __future__ import annotations

from r1rl.text.reflection import reflects
from r1rl.text.tags import thoughts


def reflection(completions: list[str], prefill: str = "") -> list[float | None]:
    """Return 1 if the thoughts check, question or redo their own work (r1rl.text.reflection), else 0.

    No recipe uses this. **Warning**: it pays for saying "wait, let me check", not for checking.
    DeepSeek-R1-Zero's reflection grew because it paid through accuracy; rewarded by itself it becomes a
    phrase that every completion carries. Gate it (`when: {accuracy: 1}`), keep its weight small, and watch
    accuracy rather than `reflection/rate`.
    """
    return [float(reflects(thoughts(prefill + completion))) for completion in completions]
