"""The contract of a reward function: the arguments it receives, and the rewards of one batch that it returns.

A reward function scores a batch of completions. Its calling convention is TRL's, so a function that was
written for TRL's GRPOTrainer and plain-text prompts works unchanged:

    def length_bonus(completions, answer, **columns) -> list[float | None]:
        return [min(len(text), 1000) / 1000 for text in completions]

**Arguments.** Every argument is passed by keyword, and only those that the function names. A list has one
entry per row.

| parameter               | value                                                                            |
|-------------------------|----------------------------------------------------------------------------------|
| `completions`           | list[str]: the policy's text, without special tokens and without the prefill     |
| `prompts`               | list[str]: the rendered prompts, prefill included                                |
| `completion_ids`        | list[list[int]]: the token ids, the final EOS included                           |
| `finish_reasons`        | list[str]: "eos", "stop" or "length"                                             |
| `outcome`               | list[float or None]: the outcome reward's results; that reward then runs first   |
| `max_completion_length` | int: the limit in tokens                                                         |
| `prefill`               | str: the template's first words for the policy, such as "<think>"; "" for none   |
| `events`                | collections.Counter: counts to report, such as `events["grading/timeout"] += 1`  |
| `answer`, `problem`     | list: the gold answers (str or None) and the texts of the problems               |
| any column of the data  | list: that column's values                                                       |
| anything else           | the value from the recipe's `arguments`, or the parameter's own default          |

`**kwargs` receives all of these but `outcome` and `events`, and every column. A parameter that stands after
`*` and has a default is a setting: it comes from the recipe's `arguments` or from its default, never from a
column that happens to have the same name.

**Return value.** The function returns a list with one number per row, or `None` where the reward does not
apply. The values True and False count as 1 and 0. NaN and infinities are errors of that row, not values.

**Freedoms and limits.** The function may be `async`. It may be slow: rewards run beside each other and beside
the rollout, in threads. Calls of one function never overlap, unless an earlier one has run past its time
limit. It may raise: then it is called again row by row, and only the rows that raise lose this reward. (So it
must not compare the rows of a batch unless it catches its own errors.) It may raise `r1rl.errors.RewardError`
to stop the run with a sentence for the user. It must not hold the interpreter lock for long (a gigantic power
does): move such work to a process. A module that holds resources may have a function `close()`, called when
the run ends. A built-in reward is called once with an empty batch before the run, so that it can check its
arguments.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1rl.types import Completion, Prompt

RewardFunction = Callable[..., Any]
"""A function of the form above; async functions return an awaitable of the list."""

ROW_KEYWORDS = ("completions", "prompts", "completion_ids", "finish_reasons")
"""Keywords whose value is a list with one entry per row, in every batch."""
OUTCOME_KEYWORD = "outcome"
EVENTS_KEYWORD = "events"
BATCH_KEYWORDS = ("max_completion_length", "prefill")
"""Keywords whose value is the same for every row."""
KEYWORDS = (*ROW_KEYWORDS, OUTCOME_KEYWORD, *BATCH_KEYWORDS, EVENTS_KEYWORD)
PROBLEM_COLUMNS = ("answer", "problem")
"""The columns that every row has."""


@dataclass(frozen=True, slots=True)
class RewardResult:
    """The rewards of one batch of B completions."""

    total: list[float]
    """The sum of weight x value over the rewards that apply to the row, NaN if no reward with a weight
    applies.
    """
    by_name: dict[str, list[float | None]]
    """Each reward's own values, before its weight.

    A value is None if the reward does not apply, its gate is closed, or it failed on that row.
    """
    outcome: list[float | None]
    """The values of the reward that says whether an answer is right; all None if the recipe has no such
    reward.
    """
    events: dict[str, int]
    """The number of rows of each event, such as "grading/timeout" or "reward/accuracy/exception"."""
    seconds: dict[str, float]
    """The time that each reward took for this batch, waiting for other batches left out."""
    tracebacks: dict[str, str] = field(default_factory=dict)
    """The traceback of a reward's first exception of the run, for display; empty in every later batch."""


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """One batch as the rewards see it. `values` makes fresh copies, so a function that edits its inputs
    spoils nothing.
    """

    prompts: list[Prompt]
    completions: list[Completion]
    max_completion_length: int
    prefill: str

    def __len__(self) -> int:
        return len(self.completions)

    def values(self, keyword: str, rows: Sequence[int]) -> Any:
        """Return the value of one keyword or column for some rows of the batch."""
        match keyword:
            case "completions":
                return [self.completions[row].text for row in rows]
            case "prompts":
                return [self.prompts[row].text for row in rows]
            case "completion_ids":
                return [list(self.completions[row].token_ids) for row in rows]
            case "finish_reasons":
                return [self.completions[row].finish_reason.value for row in rows]
            case "max_completion_length":
                return self.max_completion_length
            case "prefill":
                return self.prefill
            case "answer":
                return [self.prompts[row].problem.answer for row in rows]
            case "problem":
                return [self.prompts[row].problem.problem for row in rows]
            case column:
                return [copy.deepcopy(self.prompts[row].problem.columns.get(column)) for row in rows]
