"""Preferences: problems with two answers each, of which one was chosen and the other rejected.

`chosen` and `rejected` are texts beside a `problem` (or `question`, or `prompt`), or conversations of one
user turn and one assistant turn, as in UltraFeedback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from r1rl.config.rows import PreferencesConfig
from r1rl.data.columns import cell_text, keeps
from r1rl.data.demonstrations import (
    PROBLEM_NAMES,
    as_source,
    check_columns,
    exact_text,
    missing_column,
    one_turn,
    why_empty,
)
from r1rl.data.rows import BadRow, RowFault, Rows, TableRow, read_table
from r1rl.errors import DataError

OUR_COLUMNS = ("problem", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Preference:
    """A problem with a chosen and a rejected answer."""

    problem: str
    chosen: str
    rejected: str
    place: str
    """The place of the row, for messages."""


@dataclass(frozen=True, slots=True)
class LoadedPreferences:
    """The pairs, and the rows that can't be used."""

    name: str
    pairs: list[Preference] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)


def read_preferences(
    data: PreferencesConfig, section: str = "data", rows: Rows | None = None
) -> LoadedPreferences:
    """Return the pairs of a recipe's data section; `rows` stand in the place of its source.

    Raise `DataError` if the source can't be read, a column is missing or no row is left.
    """
    table = read_table(as_source(data), section, rows)
    loaded = LoadedPreferences(table.name)
    if not table.columns:
        raise DataError(
            why_empty(table, data, [row for row in table.rows if isinstance(row, BadRow)], "pair")
        )
    check_columns(data, table, OUR_COLUMNS, "a pair")
    problem = data.columns.get("problem") or next(
        (name for name in (*PROBLEM_NAMES, "prompt") if name in table.columns), None
    )
    columns = {ours: data.columns.get(ours, ours) for ours in ("chosen", "rejected")}
    for ours, theirs in columns.items():
        if theirs not in table.columns:
            raise missing_column(table, ours)
    for row in table.rows:
        if isinstance(row, TableRow) and not keeps(row.values, data.where):
            continue
        found = row if isinstance(row, BadRow) else preference_of(row, problem, columns)
        if isinstance(found, BadRow):
            loaded.bad.append(found)
            continue
        loaded.pairs.append(found)
        if len(loaded.pairs) == data.limit:
            break
    if not loaded.pairs:
        if problem is None and all(row.fault is RowFault.MISSING_VALUE for row in loaded.bad):
            raise missing_column(table, "problem")
        raise DataError(why_empty(table, data, loaded.bad, "pair"))
    return loaded


def preference_of(
    row: TableRow, problem_column: str | None, columns: Mapping[str, str]
) -> Preference | BadRow:
    """Return the pair of one row."""
    answers: list[str] = []
    problem: str | BadRow | None = None
    for column in (columns["chosen"], columns["rejected"]):
        if isinstance(row.values.get(column), list):
            turn = one_turn(row, column)
            if isinstance(turn, BadRow):
                return turn
            problem = turn[0] if problem is None else problem
            answers.append(turn[1])
        else:
            text = exact_text(row, column)
            if isinstance(text, BadRow):
                return text
            answers.append(text)
    if problem is None:
        if problem_column is None:
            return BadRow(
                row.place,
                RowFault.MISSING_VALUE,
                "no problem: neither a column of its own nor a conversation",
            )
        problem = cell_text(row, problem_column)
    if isinstance(problem, BadRow):
        return problem
    chosen, rejected = answers
    if chosen.strip() == rejected.strip():
        return BadRow(row.place, RowFault.SAME_ANSWERS, "chosen and rejected are the same text")
    return Preference(problem, chosen, rejected, row.place)
