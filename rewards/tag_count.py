"""A quarter for each tag of the R1-Zero format that appears exactly once: a gentler start than `format`."""

from __future__ import annotations

from r1rl.text.tags import TAGS

_OWN_LINE_TAGS = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")


def tag_count(completions: list[str], prefill: str = "", *, own_lines: bool = False) -> list[float | None]:
    """Return 0.25 for each of `<think>`, `</think>`, `<answer>`, `</answer>` that stands in the text exactly
    once.

    The prefill counts. Order and nesting don't matter (use `format` for that). `own_lines` counts only tags
    at the ends of lines, as open-r1 does.
    """
    tags = _OWN_LINE_TAGS if own_lines else TAGS
    return [0.25 * sum((prefill + completion).count(tag) == 1 for tag in tags) for completion in completions]
