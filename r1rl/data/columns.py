"""The step from a row of a data set to a `Problem`: the meaning of its columns, and the place of the answer
in its column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from r1rl.config.schema import SourceConfig
from r1rl.data.rows import BadRow, RowFault, Table, TableRow
from r1rl.errors import DataError
from r1rl.grading.extract import last_box

USUAL_NAMES = {
    "problem": ("problem", "question", "prompt"),
    "answer": ("answer", "solution", "target"),
    "id": ("id",),
}
"""The usual names of each of our columns, tried in this order, by exact match. Nothing else is guessed."""

AnswerFormat = Literal["plain", "boxed", "after_hashes"]


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The data set's name for each of our columns."""

    problem: str
    answer: str | None
    id: str | None
    others: Mapping[str, str]
    """Further columns that the recipe renames."""
    guessed: tuple[str, ...]
    """The columns among problem and answer that the recipe does not name, and whose name is not ours."""


def resolve_columns(data: SourceConfig, table: Table) -> ColumnMap:
    """Find the problem, the answer and every column that the recipe names.

    Raise `DataError` for a column that does not exist.
    """
    for ours, theirs in data.columns.items():
        if theirs not in table.columns:
            raise DataError(
                f"{table.section}.columns.{ours}: {table.name} has no column {theirs!r}. It has: "
                f"{listed(table.columns)}."
            )
    for name in data.where:
        if name not in table.columns:
            raise DataError(
                f"{table.section}.where: {table.name} has no column {name!r}. It has: "
                f"{listed(table.columns)}."
            )
    for name in data.constants:
        if name in (*table.columns, *data.columns, *USUAL_NAMES):
            raise DataError(
                f"{table.section}.constants.{name}: {table.name} has a column {name!r} of its own, or "
                f"columns makes one: leave it out."
            )
    found = {ours: data.columns.get(ours) or _usual(ours, table.columns) for ours in USUAL_NAMES}
    if found["problem"] is None:
        raise DataError(
            f"{table.name} has no column named {' or '.join(USUAL_NAMES['problem'])}. It has: "
            f"{listed(table.columns)}. "
            f"Say which one is the problem, in {table.section}: columns: {{problem: ...}}."
        )
    guessed = tuple(
        ours for ours in ("problem", "answer") if ours not in data.columns and found[ours] not in (None, ours)
    )
    others = {ours: theirs for ours, theirs in data.columns.items() if ours not in USUAL_NAMES}
    return ColumnMap(found["problem"], found["answer"], found["id"], others, guessed)


def _usual(ours: str, columns: list[str]) -> str | None:
    return next((name for name in USUAL_NAMES[ours] if name in columns), None)


def listed(columns: list[str]) -> str:
    """Return the names of a table's columns, for messages."""
    return ", ".join(columns) or "none"


def keeps(values: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Return whether each column named in `where` has the value, or one of the values, given there.

    `values` are the row's. Values are compared as they are and as text, so that `level: 3` also matches a
    csv's "3".
    """
    return all(
        _is_one_of(values.get(name), wanted if isinstance(wanted, list) else [wanted])
        for name, wanted in where.items()
    )


def _is_one_of(value: Any, wanted: list[Any]) -> bool:
    return any(value == one or str(value) == str(one) for one in wanted)


@dataclass(frozen=True, slots=True)
class Fields:
    """The parts that a problem is made from, before it has its id."""

    id: str | None
    problem: str
    answer: str | None
    columns: dict[str, Any]
    place: str
    """The place of the row, for messages."""


def fields_of(row: TableRow, mapping: ColumnMap, answer_format: AnswerFormat) -> Fields | BadRow:
    """Return the row's problem and answer, and all its other columns under their own names and the recipe's
    names.
    """
    problem = cell_text(row, mapping.problem)
    if isinstance(problem, BadRow):
        return problem
    answer: str | None = None
    if mapping.answer is not None:
        found = cell_text(row, mapping.answer)
        if isinstance(found, BadRow):
            return found
        answer = extract_answer(found, answer_format)
        if not answer:
            return BadRow(
                row.place,
                RowFault.NO_ANSWER_FOUND,
                f"column {mapping.answer!r} holds no answer of the format {answer_format}",
            )
    columns = {
        name: value for name, value in row.values.items() if name not in ("problem", "answer", mapping.id)
    }
    columns |= {ours: row.values.get(theirs) for ours, theirs in mapping.others.items()}
    identity = row.values.get(mapping.id) if mapping.id else None
    return Fields(None if identity is None else str(identity), problem, answer, columns, row.place)


def cell_text(row: TableRow, column: str) -> str | BadRow:
    """Return a column's value as text; numbers become text, and a list of one element stands for that
    element.
    """
    value = row.values.get(column)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, str) and not value.strip()):
        return BadRow(row.place, RowFault.MISSING_VALUE, f"no value in column {column!r}")
    if isinstance(value, (bool, list, dict)):
        return BadRow(
            row.place, RowFault.NOT_TEXT, f"column {column!r} holds a {type(value).__name__}, not text"
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def extract_answer(text: str, answer_format: AnswerFormat) -> str | None:
    r"""Return the answer within the text of its column, or None if the format's mark is not there.

    The answer in each format is:

    - plain: the whole text;
    - boxed: the content of the last \boxed{}, as in MATH;
    - after_hashes: the text after the last "####", without thousands separators, as GSM8K's own scorer does.
    """
    match answer_format:
        case "plain":
            return text
        case "boxed":
            box = last_box(text)
            return box.text if box else None
        case "after_hashes":
            _, found, answer = text.rpartition("####")
            return re.sub(r"(?<=\d),(?=\d)", "", answer).strip() if found else None
