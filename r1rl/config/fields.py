"""How a setting is declared: one dataclass field with its default, its help, the range of its numbers and
what its paths are relative to.

Everything else about a setting (`--help`, the check of unknown keys, of types and ranges, the search for
files) is read off its field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any, Literal

from r1rl.config.intervals import Interval

PathKind = Literal["any", "data"]
"""A text, or a list of texts, that may be a path. any: a file or folder; data: a path only where it ends in a
data file's suffix.
"""


def option(default: Any, help: str, within: Interval | None = None, path: PathKind | None = None) -> Any:
    """A setting with a default; lists and dicts get a fresh copy per recipe."""
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
    """Return a setting that every recipe must write.

    `choices` gives the only texts that it may have, for names that are not known before all of r1rl can be
    imported.
    """
    return field(metadata={"help": help, "within": within, "path": path, "choices": choices})


def section(make: Callable[[], Any], help: str) -> Any:
    """A section whose settings all have defaults."""
    return field(default_factory=make, metadata={"help": help})
