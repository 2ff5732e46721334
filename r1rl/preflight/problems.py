"""The problems that a recipe names, read so that every error names the recipe's section."""

from __future__ import annotations

import random

from r1rl.config.schema import EvaluationConfig, ProblemsConfig
from r1rl.data import LoadedProblems, read_problems
from r1rl.data.rows import Rows
from r1rl.errors import DataError

HELD_OUT_SEED = 0
"""The seed that held-out problems are drawn with. It is not the run's: runs that differ in their seed are
compared on the same problems.
"""


def read_held_out(evaluation: EvaluationConfig, rows: Rows | None = None) -> LoadedProblems:
    """Return the evaluation's problems, the same for every run; `rows` stand in the place of their source."""
    if evaluation.data is None:
        return LoadedProblems([])
    loaded = read_section(evaluation.data, HELD_OUT_SEED, "evaluation.data", rows)
    most = evaluation.num_problems
    if len(loaded.problems) <= most:
        return loaded
    chosen = sorted(random.Random(HELD_OUT_SEED).sample(range(len(loaded.problems)), most))
    return LoadedProblems(
        [loaded.problems[place] for place in chosen], loaded.notes, loaded.skipped, loaded.warnings
    )


def read_section(data: ProblemsConfig, seed: int, section: str, rows: Rows | None = None) -> LoadedProblems:
    """Return the problems of one section of the recipe, or of `rows` in the place of its source; every error
    names the section.
    """
    try:
        return read_problems(data, seed, section, rows)
    except DataError as error:
        if str(error).startswith(f"{section}."):
            raise
        raise type(error)(f"{section}: {error}") from error
