"""The problems that a recipe's data section describes, with notes of the columns that were guessed and the
rows that were skipped.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from r1rl import problems as generators
from r1rl.config.schema import ProblemsConfig, SourceConfig
from r1rl.data.columns import USUAL_NAMES, ColumnMap, Fields, fields_of, keeps, resolve_columns
from r1rl.data.rows import BadRow, Rows, Table, TableRow, read_table
from r1rl.errors import DataError
from r1rl.seeds import derive_seed
from r1rl.types import Problem

SHOWN_BAD_ROWS = 3
"""The number of bad rows of each kind that a message quotes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedProblems:
    """The problems, and notes for the user about how they were read."""

    problems: list[Problem]
    notes: list[str] = field(default_factory=list)
    """Sentences about guessed columns."""
    skipped: Counter[str] = field(default_factory=Counter)
    """The number of rows left out, by fault."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about skipped rows, and about answers that look like whole solutions."""


def load_problems(data: ProblemsConfig, seed: int, section: str = "data") -> list[Problem]:
    """Return the problems of a recipe's data section, in the order of the source, and log the notes about
    them.

    `seed` is the generators'; `section` is the recipe's section, for messages. Raise `DataError` if the
    source can't be read, a column is missing or no row is left.
    """
    loaded = read_problems(data, seed, section)
    for note in loaded.notes:
        logger.info(note)
    for warning in loaded.warnings:
        logger.warning(warning)
    return loaded.problems


def read_problems(
    data: ProblemsConfig, seed: int, section: str = "data", rows: Rows | None = None
) -> LoadedProblems:
    """Return what `load_problems` does, with the notes and the count of skipped rows beside the problems.

    `rows` stand in the place of the section's source.
    """
    if rows is not None:
        return _problems_of(read_table(data, section, rows), data)
    # Each source of a mixture has a seed of its own. Otherwise one generator named twice would draw the same
    # problems twice.
    sources = [(section, data, seed)] + [
        (f"{section}.mix.{i}", one, derive_seed(seed, "mix", i)) for i, one in enumerate(data.mix)
    ]
    parts = [_read_source(one, own_seed, key) for key, one, own_seed in sources]
    if len(parts) == 1:
        return parts[0]
    problems = [problem for part in parts for problem in part.problems]
    return LoadedProblems(
        problems=[
            replace(problem, id=own)
            for problem, own in zip(problems, _distinct(one.id for one in problems), strict=True)
        ],
        notes=[note for part in parts for note in part.notes],
        skipped=sum((part.skipped for part in parts), Counter[str]()),
        warnings=[warning for part in parts for warning in part.warnings],
    )


def _read_source(data: SourceConfig, seed: int, section: str) -> LoadedProblems:
    if data.source in generators.GENERATORS:
        return LoadedProblems(_generate(data, seed, section))
    return _problems_of(read_table(data, section), data)


def _problems_of(table: Table, data: SourceConfig) -> LoadedProblems:
    """Return the problems of a table's rows."""
    mapping = resolve_columns(data, table) if table.columns else None
    fields: list[Fields] = []
    bad: list[BadRow] = []
    for row in table.rows:
        found = _fields(row, mapping, data)
        if isinstance(found, BadRow):
            bad.append(found)
        elif found is not None:
            fields.append(found)
            if len(fields) == data.limit:
                break
    if mapping is None or not fields:
        raise DataError(_why_empty(table, data, bad))
    return LoadedProblems(
        problems=[
            Problem(
                identity,
                one.problem,
                one.answer,
                {**one.columns, **data.constants},
                place=f"{table.name}, {one.place}",
            )
            for identity, one in zip(_identities(fields), fields, strict=True)
        ],
        notes=_guesses(table, mapping),
        skipped=Counter(row.fault.value for row in bad),
        warnings=skipped_sentences(table.name, bad) + _suspicions(table, data, mapping, fields),
    )


def column_names(problems: Iterable[Problem]) -> set[str]:
    """Return the columns that a reward may name: `problem`, `answer` if some problem has one, and all others
    of the data.
    """
    names = {"problem"}
    for problem in problems:
        names.update(problem.columns)
        if problem.answer is not None:
            names.add("answer")
    return names


def _generate(data: SourceConfig, seed: int, section: str) -> list[Problem]:
    unused = {"subset": data.subset, "revision": data.revision, "columns": data.columns, "where": data.where}
    for key, value in unused.items():
        if value:
            raise DataError(
                f"{section}.{key} is set, but {section}.source is the generator {data.source}, which has "
                f"none: leave it out."
            )
    if data.answer_format != "plain":
        raise DataError(
            f"{section}.answer_format is {data.answer_format}, but a generator's answers are plain: leave "
            f"it out."
        )
    problems = generators.generate(data.source, data.split, seed, **data.arguments)[: data.limit]
    taken = sorted(
        set(data.constants)
        & {"problem", "answer", "id", *(name for problem in problems for name in problem.columns)}
    )
    if taken:
        raise DataError(
            f"{section}.constants.{taken[0]}: the generator {data.source} has a column {taken[0]} of its "
            f"own: leave it out."
        )
    return [replace(problem, columns={**problem.columns, **data.constants}) for problem in problems]


def _fields(row: TableRow | BadRow, mapping: ColumnMap | None, data: SourceConfig) -> Fields | BadRow | None:
    """Return the row's fields, or None for a row that the recipe's `where` leaves out.

    Only a table without a readable row has no mapping.
    """
    if isinstance(row, BadRow) or mapping is None:
        return row if isinstance(row, BadRow) else None
    return fields_of(row, mapping, data.answer_format) if keeps(row.values, data.where) else None


def _identities(fields: list[Fields]) -> Iterator[str]:
    """Yield each problem's id: its own, or a hash of its text and answer, which stays if rows are added or
    moved.
    """
    return _distinct(
        one.id or hashlib.blake2b(f"{one.problem}\0{one.answer}".encode(), digest_size=8).hexdigest()
        for one in fields
    )


def _distinct(identities: Iterable[str]) -> Iterator[str]:
    """Yield the ids in their order; the second of the same id gets "-2" at its end."""
    seen: Counter[str] = Counter()
    given: set[str] = set()
    for identity in identities:
        own = identity
        while own in given:
            seen[identity] += 1
            own = f"{identity}-{seen[identity] + 1}"
        given.add(own)
        yield own


def _guesses(table: Table, mapping: ColumnMap) -> list[str]:
    theirs = {"problem": mapping.problem, "answer": mapping.answer}
    change = f"to change that: {table.section}.columns"
    notes = [
        f"{table.name}: column {theirs[ours]!r} is taken as the {ours} ({change})."
        for ours in mapping.guessed
    ]
    if mapping.answer is None:
        notes.append(
            f"{table.name} has no column named {' or '.join(USUAL_NAMES['answer'])}, so the problems have "
            f"no answer."
        )
    return notes


def skipped_sentences(name: str, bad: Sequence[BadRow]) -> list[str]:
    """Return one sentence for each kind of bad row, with the first few."""
    by_fault: dict[str, list[BadRow]] = defaultdict(list)
    for row in bad:
        by_fault[row.fault.value].append(row)
    sentences = []
    for fault, rows in sorted(by_fault.items()):
        shown = "; ".join(f"{row.place}: {row.detail}" for row in rows[:SHOWN_BAD_ROWS])
        more = f"; and {len(rows) - SHOWN_BAD_ROWS} more" if len(rows) > SHOWN_BAD_ROWS else ""
        sentences.append(
            f"{name}: {len(rows)} {'row' if len(rows) == 1 else 'rows'} skipped ({fault}): {shown}{more}."
        )
    return sentences


def _suspicions(table: Table, data: SourceConfig, mapping: ColumnMap, fields: list[Fields]) -> list[str]:
    """Return sentences about answers that are whole solutions, the commonest reason for an accuracy that
    stays at zero.
    """
    if data.answer_format != "plain":
        return []
    for answer_format, mark in (("boxed", "\\boxed{"), ("after_hashes", "####")):
        marked = sum(1 for one in fields if one.answer is not None and mark in one.answer)
        if marked > len(fields) / 2:
            return [
                f"{table.name}: most answers in column {mapping.answer!r} contain {mark}: they look like "
                f"whole solutions. "
                f"If so, set {table.section}.answer_format: {answer_format}."
            ]
    return []


def _why_empty(table: Table, data: SourceConfig, bad: list[BadRow]) -> str:
    if bad:
        return " ".join([f"{table.name}: no row is left.", *skipped_sentences(table.name, bad)])
    if not data.where or not table.columns:
        return f"{table.name} has no rows."
    values = {
        name: Counter(str(row.values.get(name)) for row in table.rows if isinstance(row, TableRow))
        for name in data.where
    }
    found = "; ".join(
        f"{name} is {', '.join(repr(value) for value, _ in counts.most_common(8))}"
        for name, counts in values.items()
    )
    return (
        f"{table.section}.where: no row of {table.name} has {data.where}. "
        f"The commonest values: {found or 'none'}."
    )
