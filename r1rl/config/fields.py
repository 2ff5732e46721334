"""The declaration of a setting: one dataclass field with its default, its help, the range of its numbers, the
names that it may have and what its paths are relative to.

Everything else about a setting (`--help`, the check of unknown keys, of types and ranges, the search for
files) is read off its field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from r1rl.config.intervals import Interval

PathKind = Literal["any", "data", "code"]
"""The kind of path that a text, or each of a list of texts, may be.

"any" is a file or folder. "data" is a path only if it ends in a data file's suffix. "code" is code of the
user's own (`r1rl.config.plugins`), whose file stands before a colon.
"""


class Entry(Protocol):
    """An entry of a table whose names a setting chooses among."""

    @property
    def help(self) -> str:
        """The half sentence that `--help` shows after the name."""
        ...


@dataclass(frozen=True, slots=True)
class Choices:
    """The names that a setting may have; with `own` also code of the user's own, named as in that example."""

    table: Callable[[], Iterable[str]]
    """The names; a function, because those of some tables are not known before all of r1rl can be imported.
    """
    own: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names as they are listed."""
        return tuple(self.table())

    def __str__(self) -> str:
        """Return the choices in words: "clip, cispo or my_loss.py:my_surrogate"."""
        *most, last = [*self.names, self.own] if self.own else self.names
        return f"{', '.join(most)} or {last}" if most else last

    def allows(self, value: Any) -> bool:
        """Return True for one of the names, and for any "place:name" where code of one's own is allowed."""
        return isinstance(value, str) and (value in self.names or (self.own is not None and ":" in value))


def option(default: Any, help: str, within: Interval | None = None, path: PathKind | None = None) -> Any:
    """Return a setting with a default; lists and dicts get a fresh copy per recipe."""
    metadata = {"help": help, "within": within, "path": path}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def required(
    help: str,
    within: Interval | None = None,
    path: PathKind | None = None,
    choices: Callable[[], Iterable[str]] | None = None,
) -> Any:
    """Return a setting that every recipe must write; `choices` gives the only texts that it may have."""
    named = None if choices is None else Choices(choices)
    return field(metadata={"help": help, "within": within, "path": path, "choices": named})


def choice(default: str, among: Mapping[str, Entry], help: str = "", own: str | None = None) -> Any:
    """Return a setting that is one of the names of a table, the only place where these names are listed.

    `help` comes before the help of each entry. `own`: an example of how code of the user's own is named,
    where such code may stand in the place of a name.
    """
    parts = [f"{help}: "] if help else []
    parts.append("; ".join(f"{name}: {entry.help}" for name, entry in among.items()))
    parts += [f"; or code of your own, such as {own}"] if own else []
    path: PathKind | None = "code" if own else None
    choices = Choices(lambda: among, own)
    metadata = {"help": "".join(parts), "within": None, "path": path, "choices": choices}
    return field(default=default, metadata=metadata)


def section(make: Callable[[], Any], help: str) -> Any:
    """Return a section whose settings all have defaults."""
    return field(default_factory=make, metadata={"help": help})
