"""The records that pass between the layers.

No torch is imported here, because recipes, data and rewards import this module before torch is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FinishReason(StrEnum):
    """The reason why a completion ended. Only `LENGTH` is a truncation."""

    EOS = "eos"
    STOP = "stop"  # a stop string of the recipe
    LENGTH = "length"  # max_completion_length reached


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the data: the text of the problem, its gold answer, and every other column for the
    rewards.
    """

    id: str
    problem: str
    answer: str | None
    columns: dict[str, Any] = field(default_factory=dict)
    """The other columns of the row, by name; rewards receive those that they name."""
    place: str = ""
    """The place of the row in its file, for messages: "problems.jsonl, line 7"; empty for a generated
    problem.
    """


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem rendered with the recipe's template and tokenized: the text that the policy continues."""

    problem: Problem
    text: str
    token_ids: list[int]
    prefill: str = ""
    """The part at the end of `text` that stands for the model's own first words (such as "<think>")."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The policy's text after one prompt.

    `token_ids` includes the final EOS token if there is one, which is trained too. `logprobs[t]` is the
    log-probability of `token_ids[t]` under the distribution that was sampled (after temperature, top-k,
    top-p, min-p).
    """

    token_ids: list[int]
    logprobs: list[float]
    text: str
    """The text, decoded without special tokens, after the prefill; a stop string is kept."""
    finish_reason: FinishReason

    @property
    def is_truncated(self) -> bool:
        """Return whether the completion was cut off by its length limit."""
        return self.finish_reason is FinishReason.LENGTH


@dataclass(frozen=True, slots=True)
class CompletionGroup:
    """The G completions of one prompt.

    `index` is the prompt's place in the batch that was given to the engine.
    """

    index: int
    completions: list[Completion]


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of a problem, as it came from the model."""

    problem: str
    """The problem's id."""
    sample: int
    """The number of the completion among the problem's completions, from 0."""
    seed: int
    text: str
    tokens: int
    """The number of tokens, EOS included; from a server, the number that it reports."""
    finish_reason: str
    """The reason why it ended: "eos", "stop" or "length"."""
    cuts: tuple[tuple[int, int], ...] = ()
    """Pairs (tokens, characters): a lower limit of so many tokens would have ended the text after so many
    characters.

    Limits that would not have cut the text are left out. It is empty if the tokens are not known, as from a
    server.
    """

    @property
    def key(self) -> tuple[str, int]:
        """The key that distinguishes it from the benchmark's other completions."""
        return self.problem, self.sample
