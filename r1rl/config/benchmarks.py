"""The declaration of a benchmark, in a recipe of `r1rl evaluate` or in the table of
`r1rl.data.benchmarks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from r1rl.config.fields import option, required
from r1rl.config.intervals import COUNT
from r1rl.config.schema import ProblemsConfig


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig:
    """A benchmark: its problems, the question that is put to a model, and the grading of answers."""

    name: str = required("its name in benchmarks and results")
    data: ProblemsConfig = required("its problems")
    question: str = option(
        "{problem}", "the text that fills the template; {problem} stands for the problem's text"
    )
    choices: list[str] = option(
        [],
        "multiple choice: the columns of the wrong answers. The options are lettered in an order drawn from "
        "the problem's id",
    )
    grading: Literal["strict", "lenient", "countdown", "continuation"] = option(
        "strict",
        "strict: the last box or answer tag; lenient: also the last number or formula; countdown: an "
        "expression of the numbers; continuation: the completion begins with the answer",
    )
    num_samples: int = option(4, "completions per problem", within=COUNT)
    max_completion_length: int = option(4096, "tokens", within=COUNT)
    group_by: list[str] = option([], "columns whose values get a score of their own, such as [level]")
    local: str = option("", "its file in local_dir")
    version: int = option(
        1, "raised whenever a change makes new scores incomparable with old ones", within=COUNT
    )


CONTINUATION: Literal["continuation"] = "continuation"
"""The grading of the contamination probe: the problem's own text is continued, alone and with greedy
decoding.
"""
