"""The completions that a selection starts from, read from files of any origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from r1rl.config.schema import SourceConfig
from r1rl.data.columns import keeps
from r1rl.data.rows import BadRow, RowFault, read_table
from r1rl.errors import DataError
from r1rl.select.recipe import GRADE, CompletionSourceConfig, source_name
from r1rl.text.tags import thoughts

OURS = ("problem", "completion", "answer", "prefill", "finish_reason", "tokens")
NEEDED = ("problem", "completion")


@dataclass(slots=True)
class CompletionRow:
    """One completion. The grading fills in `outcome`, `is_decided` and `pass_rate`."""

    values: dict[str, Any]
    """All columns of the row, ours under our names."""
    source: str
    place: str
    """The place of the row, for messages: "runs/a/completions.jsonl, line 7"."""
    skip: frozenset[str]
    """The steps that are skipped for rows of its source."""
    outcome: str | None = None
    """The outcome of grading its answer: correct, wrong, no_answer, malformed, timeout, ...; None if it is
    not graded.
    """
    is_decided: bool = False
    """A flag, true if the grader could tell whether the answer is right."""
    pass_rate: float | None = None
    """The share of right ones among its problem's decided completions."""

    @property
    def problem(self) -> str:
        """The problem's text."""
        return str(self.values["problem"])

    @property
    def problem_key(self) -> str:
        """The key of the problem, equal for all its completions, whatever the white space and the source."""
        return " ".join(self.problem.split())

    @property
    def completion(self) -> str:
        """The model's text after the prefill."""
        return str(self.values["completion"])

    @property
    def prefill(self) -> str:
        """The model's first words, which the prompt wrote for it."""
        return str(self.values.get("prefill") or "")

    @property
    def text(self) -> str:
        """The whole answer."""
        return self.prefill + self.completion

    @property
    def thoughts(self) -> str:
        """The reasoning within the answer."""
        return thoughts(self.text)

    @property
    def tokens(self) -> int | None:
        """The length of the completion in tokens, or None if the row does not say it."""
        value = self.values.get("tokens")
        return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    @property
    def is_graded(self) -> bool:
        """Return False for a row of a source that no rule can check."""
        return GRADE not in self.skip


@dataclass(slots=True)
class LoadedRows:
    """All rows of all sources, in their order, and those that could not be used."""

    rows: list[CompletionRow]
    num_read: Counter[str] = field(default_factory=Counter)
    """The number of usable rows by source."""
    bad: dict[str, Counter[str]] = field(default_factory=dict)
    """The number of rows left out, by source and fault."""
    bad_examples: list[str] = field(default_factory=list)


def read_sources(sources: Sequence[CompletionSourceConfig]) -> LoadedRows:
    """Return the rows of the recipe's sources.

    Raise `DataError` for a file that can't be read, lacks a column or has no usable row.
    """
    loaded = LoadedRows([])
    for index, source in enumerate(sources):
        _read_source(source, f"sources.{index}", loaded)
    return loaded


def _read_source(source: CompletionSourceConfig, section: str, loaded: LoadedRows) -> None:
    name = source_name(source)
    table = read_table(SourceConfig(source=source.path, arguments=source.arguments), section)
    theirs = {ours: source.columns.get(ours, ours) for ours in OURS}
    unknown = [ours for ours in source.columns if ours not in OURS]
    if unknown:
        raise DataError(f"{section}.columns.{unknown[0]}: our columns are {', '.join(OURS)}.")
    wanted = {*(theirs[ours] for ours in NEEDED), *source.columns.values(), *source.where}
    missing = [column for column in sorted(wanted) if column not in table.columns]
    if missing:
        has = ", ".join(table.columns) or "none"
        raise DataError(
            f"{section}: {table.name} has no column {missing[0]!r}. It has: {has}. Name ours in "
            f"{section}.columns."
        )
    faults: Counter[str] = Counter()
    skip = frozenset(source.skip)
    for row in table.rows:
        if not isinstance(row, BadRow) and not keeps(row.values, source.where):
            continue
        values = row if isinstance(row, BadRow) else _values(row.values, theirs, row.place)
        if isinstance(values, BadRow):
            faults[values.fault.value] += 1
            if faults[values.fault.value] == 1:
                loaded.bad_examples.append(f"{table.name}, {values.place}: {values.detail}")
            continue
        loaded.rows.append(CompletionRow(values, name, f"{table.name}, {row.place}", skip))
        loaded.num_read[name] += 1
    loaded.bad[name] = faults
    if not loaded.num_read[name]:
        why = f"the first fault: {loaded.bad_examples[-1]}" if faults else f"where is {source.where}"
        raise DataError(f"{section}: no row of {table.name} can be used; {why}.")


def _values(values: dict[str, Any], theirs: dict[str, str], place: str) -> dict[str, Any] | BadRow:
    """Return the row with our names for our columns."""
    ours_of = {name: ours for ours, name in theirs.items()}
    # A column with one of our names that is not the column which the recipe names is dropped.
    found = {
        ours_of.get(name, name): value
        for name, value in values.items()
        if name in ours_of or name not in theirs
    }
    for ours in NEEDED:
        text = found.get(ours)
        if text is None or (isinstance(text, str) and not text.strip()):
            return BadRow(place, RowFault.MISSING_VALUE, f"no value in column {theirs[ours]!r}")
        if not isinstance(text, str):
            return BadRow(
                place, RowFault.NOT_TEXT, f"column {theirs[ours]!r} holds a {type(text).__name__}, not text"
            )
    answer = found.get("answer")
    if answer is not None and not isinstance(answer, str):
        if isinstance(answer, (bool, list, dict)):
            return BadRow(
                place,
                RowFault.NOT_TEXT,
                f"column {theirs['answer']!r} holds a {type(answer).__name__}, not text",
            )
        found["answer"] = str(int(answer) if isinstance(answer, float) and answer.is_integer() else answer)
    return found
