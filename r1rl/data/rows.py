"""Rows of a data set, from a file or the hub. A row that can't be read is returned as a `BadRow`, never
raised.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

from r1rl.config.schema import SourceConfig
from r1rl.errors import DataError, HubUnreachable
from r1rl.problems import GENERATORS, generate

Rows = Iterable[Mapping[str, Any]]
"""Rows that a caller in Python has in memory, such as a list of dicts or a `datasets.Dataset`."""

IN_MEMORY = "in memory"
"""The source of such rows in a recipe that is recorded."""


class RowFault(StrEnum):
    """The reason why a row is skipped."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    NOT_CSV = "not_csv"
    MISSING_VALUE = "missing_value"
    NOT_TEXT = "not_text"
    NO_ANSWER_FOUND = "no_answer_found"
    # These are faults of rows to imitate:
    NOT_ONE_TURN = "not_one_turn"  # a conversation of other turns than one question and one answer
    TRUNCATED = "truncated"  # a completion that its length limit cut off
    OTHER_PREFILL = "other_prefill"  # a text that does not begin with the recipe's prefill
    TOO_LONG = "too_long"  # more tokens than the recipe allows
    FOREIGN_TOKEN = "foreign_token"  # a prompt with a token that a teacher does not know
    SAME_ANSWERS = "same_answers"  # chosen and rejected of a pair are one text


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row that could be read."""

    place: str
    """The place of the row, for messages: "line 7" (from 1) in jsonl and csv, "row 7" (from 0) elsewhere."""
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that can't be used."""

    place: str
    fault: RowFault
    detail: str


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one data set, read as they are iterated over."""

    name: str
    """The name of the data set in messages: the file, or the hub name with subset and split."""
    section: str
    """The recipe's section that describes it, for messages: "data" or "evaluation.data"."""
    columns: list[str]
    rows: Iterable[TableRow | BadRow]


def read_table(data: SourceConfig, section: str = "data", rows: Rows | None = None) -> Table:
    """Return the rows of a file, a hub data set or a generator, or the given `rows` instead.

    A generator's rows are the same every time (seed 0); `r1rl.data.load` draws a run's problems from the
    run's seed. Raise `DataError` if the source can't be read at all or has no rows.
    """
    if rows is not None:
        return _given_table(rows, section)
    if data.source in GENERATORS:
        return _read_generator(data, section)
    if data.arguments:
        known = ", ".join(GENERATORS)
        raise DataError(
            f"{section}.arguments are for the generators ({known}), but {section}.source is "
            f"{data.source!r}: leave them out."
        )
    reader = READERS.get(Path(data.source).suffix.lower())
    if reader is not None:
        return _read_file(data, reader, section)
    _refuse_what_is_no_hub_name(data.source, section)
    return _read_hub(data, section)


def _given_table(rows: Rows, section: str) -> Table:
    read = [TableRow(f"row {number}", dict(values)) for number, values in enumerate(rows)]
    columns = list(dict.fromkeys(name for row in read for name in row.values))
    return Table(f"{section} ({IN_MEMORY})", section, columns, read)


def _read_generator(data: SourceConfig, section: str) -> Table:
    drawn = generate(data.source, data.split, 0, **data.arguments)
    rows = [
        TableRow(
            f"row {number}",
            {"problem": one.problem, **({} if one.answer is None else {"answer": one.answer}), **one.columns},
        )
        for number, one in enumerate(drawn)
    ]
    return Table(f"{data.source} ({data.split})", section, list(rows[0].values), rows)


def _refuse_what_is_no_hub_name(source: str, section: str) -> None:
    """Raise a sentence at once, where the hub client would search the network for a file or for a misspelt
    generator.
    """
    path = Path(source).expanduser()
    if path.is_file():
        raise DataError(
            f"{section}.source: {path} is a file of a kind that r1rl does not read; its name must end in "
            f"{', '.join(READERS)}."
        )
    if source.startswith((".", "/", "~")) and not path.exists():
        raise DataError(f"{section}.source: there is no file or folder {path} (looked in {Path.cwd()}).")
    near = get_close_matches(source, GENERATORS, n=1, cutoff=0.8)
    if near and not path.exists():
        raise DataError(f"{section}.source: there is no generator {source}; did you mean {near[0]}?")


def _read_file(
    data: SourceConfig, reader: Callable[[Path], Iterator[TableRow | BadRow]], section: str
) -> Table:
    path = Path(data.source).expanduser()
    for key, value in (
        ("subset", data.subset),
        ("revision", data.revision),
        ("split", None if data.split == "train" else data.split),
    ):
        if value is not None:
            raise DataError(
                f"{section}.{key} is {value!r}, but {path} is a file, which has no {key}: leave "
                f"{section}.{key} out."
            )
    try:
        rows = list(reader(path))
    except FileNotFoundError:
        raise DataError(f"{section}.source: there is no file {path} (looked in {Path.cwd()}).") from None
    except OSError as error:
        raise DataError(f"{section}.source: {path} can't be read: {error.strerror or error}.") from error
    columns = list(dict.fromkeys(name for row in rows if isinstance(row, TableRow) for name in row.values))
    return Table(str(path), section, columns, rows)


def _read_jsonl(path: Path) -> Iterator[TableRow | BadRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            place = f"line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                yield _object_row(place, json.loads(text.rstrip("\r\n")))
            except UnicodeDecodeError as error:
                yield BadRow(place, RowFault.NOT_UTF8, f"byte {error.start} is not UTF-8")
            except json.JSONDecodeError as error:
                yield BadRow(place, RowFault.NOT_JSON, f"{error.msg} (character {error.pos})")
            except (
                ValueError,
                RecursionError,
            ) as error:  # a number of thousands of digits, thousands of brackets
                yield BadRow(place, RowFault.NOT_JSON, str(error))


def _read_json(path: Path) -> Iterator[TableRow | BadRow]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON ({error}). If it has one object a line, name it .jsonl."
        ) from error
    if not isinstance(content, list):
        raise DataError(f"{path} holds {_kind(content)}, not a list of objects, one for each problem.")
    for number, value in enumerate(content):
        yield _object_row(f"row {number}", value)


def _object_row(place: str, value: Any) -> TableRow | BadRow:
    if isinstance(value, dict):
        return TableRow(place, value)
    return BadRow(place, RowFault.NOT_AN_OBJECT, f"{_kind(value)} instead of an object")


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )


def _read_csv(path: Path) -> Iterator[TableRow | BadRow]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if any("\N{REPLACEMENT CHARACTER}" in name for name in header):
            raise DataError(f"{path}: the header has bytes that are not UTF-8: save the file as UTF-8.")
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(f"line {reader.line_num}", RowFault.NOT_CSV, str(error))
                continue
            place = f"line {reader.line_num}"
            if not fields:
                continue
            if len(fields) != len(header):
                yield BadRow(place, RowFault.NOT_CSV, f"{len(fields)} fields, {len(header)} in the header")
            elif any("\N{REPLACEMENT CHARACTER}" in field for field in fields):
                yield BadRow(place, RowFault.NOT_UTF8, "bytes that are not UTF-8")
            else:
                yield TableRow(place, dict(zip(header, fields, strict=True)))


def _read_parquet(path: Path) -> Iterator[TableRow | BadRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{path} is not a parquet file that can be read ({str(error).splitlines()[0]})."
        ) from error
    for number, values in enumerate(records):
        yield TableRow(f"row {number}", values)


READERS: dict[str, Callable[[Path], Iterator[TableRow | BadRow]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _read_hub(data: SourceConfig, section: str) -> Table:
    import datasets

    name = "/".join(part for part in (data.source, data.subset) if part) + f" (split {data.split})"
    try:
        loaded = datasets.load_dataset(
            data.source, name=data.subset, split=data.split, revision=data.revision
        )
    # The hub client raises dozens of types: no network, no such name, no such subset, private, ...
    except Exception as error:
        kind = HubUnreachable if isinstance(error, ConnectionError) else DataError
        raise kind(_hub_sentence(data, section, error)) from error
    return Table(name, section, list(loaded.column_names), HubRows(loaded))


@dataclass(frozen=True, slots=True)
class HubRows:
    """The rows of a loaded data set, decoded one by one each time they are iterated over."""

    dataset: Iterable[dict[str, Any]]

    def __iter__(self) -> Iterator[TableRow]:
        for number, values in enumerate(self.dataset):
            yield TableRow(f"row {number}", values)


def _hub_sentence(data: SourceConfig, section: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    reason = reason.rstrip(".") if len(reason) <= 300 else reason[:300] + " .."
    called = f"{data.source!r} ({f'subset {data.subset}, ' if data.subset else ''}split {data.split})"
    key = next(
        (key for key, word in (("subset", "config"), ("split", "split")) if word in reason.lower()), "source"
    )
    return (
        f"{section}.{key}: the data set {called} can't be loaded: {type(error).__name__}: {reason}. "
        f"A source is a hub name, a generator, or a file that ends in {', '.join(READERS)}."
    )
