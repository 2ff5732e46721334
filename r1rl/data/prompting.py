"""The step from problems to prompts, without those that are too long."""

from __future__ import annotations

from collections.abc import Sequence

from r1rl.errors import DataError
from r1rl.text.prompts import PromptTemplate
from r1rl.types import Problem, Prompt


def build_prompts(
    problems: Sequence[Problem], template: PromptTemplate, max_prompt_tokens: int | None
) -> tuple[list[Prompt], int]:
    """Return the prompts of at most `max_prompt_tokens` tokens (None: all of them), and how many were longer
    and are dropped.

    A prompt is never cut, because its end, where the template hands over to the policy, would be lost. Raise
    `DataError` if none is left, or if a prompt has no tokens at all.
    """
    prompts = template.render_batch(problems)
    empty = next((prompt for prompt in prompts if not prompt.token_ids), None)
    if empty is not None:
        raise DataError(
            f"model.path: its tokenizer makes no tokens of a prompt ({empty.text[:60]!r}): are the "
            f"tokenizer's files missing?"
        )
    if max_prompt_tokens is None:
        return prompts, 0
    kept = [prompt for prompt in prompts if len(prompt.token_ids) <= max_prompt_tokens]
    if prompts and not kept:
        shortest = min(len(prompt.token_ids) for prompt in prompts)
        raise DataError(
            f"data.max_prompt_tokens is {max_prompt_tokens}, but the shortest of the {len(prompts)} prompts "
            f"has {shortest} tokens. "
            "Raise it."
        )
    return kept, len(prompts) - len(kept)
