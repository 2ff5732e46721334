"""Demonstrations: problems and the texts that a model is to answer with, as `r1rl generate` and `r1rl select`
write them.

A row has one of three forms:

    problem, completion      the prompt is rendered with the recipe's template
    prompt, completion       the prompt is rendered already
    messages                 a conversation of one user turn and one assistant turn, as in OpenR1-Math-220k

With the first two, `prefill` is the text that was put before the completion as the model's own first words. A
`finish_reason` of length says that the completion was cut off, so that its end is no real end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from r1rl.config.rows import DemonstrationsConfig, RowsConfig
from r1rl.config.schema import SourceConfig
from r1rl.data.columns import cell_text, keeps, listed
from r1rl.data.load import skipped_sentences
from r1rl.data.rows import BadRow, RowFault, Rows, Table, TableRow, read_table
from r1rl.errors import DataError
from r1rl.types import FinishReason

OUR_COLUMNS = ("problem", "prompt", "completion", "prefill", "finish_reason", "messages")
PROBLEM_NAMES = ("problem", "question")
"""The problem's usual names, tried in this order."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One text to imitate."""

    problem: str | None
    """The problem, or None if the prompt is rendered already."""
    prompt: str | None
    """The rendered prompt, or None if there is a problem to render."""
    text: str
    """All that follows the prompt; with a problem, the prefill is a part of it."""
    place: str
    """The place of the row, for messages."""


@dataclass(frozen=True, slots=True)
class LoadedDemonstrations:
    """The demonstrations, and notes for the user about how they were read."""

    name: str
    """The name of the data in messages."""
    demonstrations: list[Demonstration]
    bad: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_demonstrations(
    data: DemonstrationsConfig, section: str = "data", rows: Rows | None = None
) -> LoadedDemonstrations:
    """Return the demonstrations of a recipe's data section; `rows` stand in the place of its source. Raises
    DataError if the source can't be read, a column is missing or no row is left.
    """
    table = read_table(as_source(data), section, rows)
    if not table.columns:
        raise DataError(
            why_empty(table, data, [row for row in table.rows if isinstance(row, BadRow)], "demonstration")
        )
    columns = find_columns(data, table)
    loaded = LoadedDemonstrations(table.name, [], notes=_notes(columns, table))
    for row in table.rows:
        if isinstance(row, TableRow) and not keeps(row.values, data.where):
            continue
        found = row if isinstance(row, BadRow) else demonstration_of(row, columns)
        if isinstance(found, BadRow):
            loaded.bad.append(found)
            continue
        loaded.demonstrations.append(found)
        if len(loaded.demonstrations) == data.limit:
            break
    if not loaded.demonstrations:
        raise DataError(why_empty(table, data, loaded.bad, "demonstration"))
    return loaded


def find_columns(data: DemonstrationsConfig, table: Table) -> dict[str, str]:
    """Return our columns that the table has, and their names there. Raise `DataError` for one that is
    missing.
    """
    check_columns(data, table, OUR_COLUMNS, "a demonstration")
    found = {ours: ours for ours in OUR_COLUMNS if ours in table.columns}
    problem = next((name for name in PROBLEM_NAMES if name in table.columns), None)
    found |= {} if problem is None else {"problem": problem}
    found |= data.columns
    if "messages" in found and ("messages" in data.columns or "completion" not in found):
        return {"messages": found["messages"]}
    if "completion" not in found:
        raise missing_column(table, "completion", "messages")
    if not found.keys() & {"problem", "prompt"}:
        raise missing_column(table, "problem", "prompt")
    renders = "prompt" not in data.columns and "problem" in found
    return {
        ours: theirs
        for ours, theirs in found.items()
        if ours not in ("messages", "prompt" if renders else "problem")
    }


def check_columns(data: RowsConfig, table: Table, ours: Sequence[str], what: str) -> None:
    """Raise `DataError` if the recipe maps a column that `what` does not have, or names one that the table
    does not have.
    """
    for our, theirs in data.columns.items():
        if our not in ours:
            raise DataError(
                f"{table.section}.columns.{our}: {what} has no such column; it has {', '.join(ours)}."
            )
        if theirs not in table.columns:
            raise DataError(
                f"{table.section}.columns.{our}: {table.name} has no column {theirs!r}. It has: "
                f"{listed(table.columns)}."
            )
    for name in data.where:
        if name not in table.columns:
            raise DataError(
                f"{table.section}.where: {table.name} has no column {name!r}. It has: "
                f"{listed(table.columns)}."
            )


def missing_column(table: Table, ours: str, instead: str = "") -> DataError:
    """Return the error of a table that has neither one of our columns nor the one that may stand in its
    place.
    """
    named = f"{ours} (or {instead})" if instead else ours
    return DataError(
        f"{table.name} has no column named {named}. It has: {listed(table.columns)}. "
        f"Say which one it is, in {table.section}: columns: {{{ours}: ...}}."
    )


def demonstration_of(row: TableRow, columns: Mapping[str, str]) -> Demonstration | BadRow:
    """Return the demonstration of one row."""
    if "messages" in columns:
        turn = one_turn(row, columns["messages"])
        return turn if isinstance(turn, BadRow) else Demonstration(turn[0], None, turn[1], row.place)
    subject = (
        cell_text(row, columns["problem"]) if "problem" in columns else exact_text(row, columns["prompt"])
    )
    completion = exact_text(row, columns["completion"])
    for found in (subject, completion):
        if isinstance(found, BadRow):
            return found
    if "finish_reason" in columns and row.values.get(columns["finish_reason"]) == FinishReason.LENGTH:
        return BadRow(row.place, RowFault.TRUNCATED, "the completion was cut off at its length limit")
    if "problem" not in columns:
        return Demonstration(None, str(subject), str(completion), row.place)
    prefill = row.values.get(columns["prefill"]) if "prefill" in columns else None
    if prefill is not None and not isinstance(prefill, str):
        return BadRow(
            row.place,
            RowFault.NOT_TEXT,
            f"column {columns['prefill']!r} holds a {type(prefill).__name__}, not text",
        )
    return Demonstration(str(subject), None, (prefill or "") + str(completion), row.place)


def one_turn(row: TableRow, column: str) -> tuple[str, str] | BadRow:
    """Return the user's and the assistant's text of a conversation.

    A system message before them is left out, because the recipe decides about it.
    """
    messages = row.values.get(column)
    if not isinstance(messages, list) or not all(
        isinstance(one, dict) and isinstance(one.get("content"), str) for one in messages
    ):
        return BadRow(
            row.place,
            RowFault.NOT_ONE_TURN,
            f"column {column!r} is not a list of messages with role and content",
        )
    turns = [one for one in messages if one.get("role") != "system"]
    if [one.get("role") for one in turns] != ["user", "assistant"]:
        roles = ", ".join(str(one.get("role")) for one in messages)
        return BadRow(
            row.place,
            RowFault.NOT_ONE_TURN,
            f"the turns are {roles}; one of the user and one of the assistant are needed",
        )
    problem, text = (one["content"] for one in turns)
    if not problem.strip() or not text.strip():
        return BadRow(row.place, RowFault.MISSING_VALUE, f"an empty message in column {column!r}")
    return problem.strip(), text


def exact_text(row: TableRow, column: str) -> str | BadRow:
    """Return a column's text with its white space, which is trained like any other."""
    value = row.values.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return BadRow(row.place, RowFault.MISSING_VALUE, f"no value in column {column!r}")
    if not isinstance(value, str):
        return BadRow(
            row.place, RowFault.NOT_TEXT, f"column {column!r} holds a {type(value).__name__}, not text"
        )
    return value


def as_source(data: RowsConfig) -> SourceConfig:
    """Return the same table, as the section that tables are read from."""
    return SourceConfig(
        source=data.source,
        subset=data.subset,
        split=data.split,
        revision=data.revision,
        arguments=data.arguments,
    )


def _notes(columns: Mapping[str, str], table: Table) -> list[str]:
    if "prompt" in columns:
        return [
            f"{table.name}: column {columns['prompt']!r} is taken as the whole prompt, so prompt.template "
            f"is not applied to it. "
            f"If it is the bare problem, write {table.section}.columns: {{problem: {columns['prompt']}}}."
        ]
    if columns.get("problem", "problem") != "problem":
        return [f"{table.name}: column {columns['problem']!r} is the problem."]
    return []


def why_empty(table: Table, data: RowsConfig, bad: list[BadRow], what: str) -> str:
    """Return the sentence for a table of which nothing is left; `what` names the kind of its rows."""
    if bad:
        return " ".join([f"{table.name}: no {what} is left.", *skipped_sentences(table.name, bad)])
    return f"{table.name} has no rows{f' with {data.where}' if data.where and table.columns else ''}."
