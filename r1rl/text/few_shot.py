"""Few-shot prompts: solved problems that stand before the one that is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from r1rl.config.schema import PromptConfig
from r1rl.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Example:
    """A few-shot example: a problem and its completion."""

    problem: str
    completion: str


def read_examples(path: str) -> list[Example]:
    """Read the few-shot examples of a .jsonl file of {problem, completion}, such as `r1rl select` writes.

    Raises RecipeError for a file that can't be read, and for a line that is no such row: leaving one out
    would change every prompt.
    """
    file = Path(path).expanduser()
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise RecipeError(f"prompt.demonstrations: {file} is not UTF-8 text.") from None
    except OSError as error:
        raise RecipeError(f"prompt.demonstrations: {file} can't be read: {error.strerror}.") from None
    found = [
        _example(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not found:
        raise RecipeError(f"prompt.demonstrations: {file} has no rows.")
    return found


def text_before(config: PromptConfig, ask: Callable[[str], str]) -> str:
    """Return the text before the prompt of a text template: every example as `ask` puts it, its answer, and
    an empty line.
    """
    if config.demonstrations is None:
        return ""
    examples = read_examples(config.demonstrations)
    return "".join(
        ask(one.problem) + _whole_answer(one.completion, config.prefill).rstrip() + "\n\n" for one in examples
    )


def turns_before(config: PromptConfig) -> list[dict[str, str]]:
    """Return the examples as earlier turns of a conversation."""
    turns = []
    for one in read_examples(config.demonstrations) if config.demonstrations is not None else []:
        turns.append({"role": "user", "content": one.problem})
        turns.append({"role": "assistant", "content": _whole_answer(one.completion, config.prefill).strip()})
    return turns


def _example(line: str, place: str) -> Example:
    try:
        row = json.loads(line)
        found = Example(row["problem"], row["completion"])
    except (ValueError, KeyError, TypeError):
        found = Example("", "")
    if not all(isinstance(text, str) and text.strip() for text in (found.problem, found.completion)):
        raise RecipeError(
            f'prompt.demonstrations: {place}: it must be an object with the texts "problem" and "completion".'
        )
    return found


def _whole_answer(completion: str, prefill: str) -> str:
    """Return the answer with the prefill in front, which completions in r1rl's own files lack and one written
    by hand may have.
    """
    wanted = prefill.strip()
    if wanted and completion.lstrip().startswith(wanted):
        return prefill + completion.lstrip().removeprefix(wanted)
    return prefill + completion
