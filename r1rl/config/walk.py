"""A walk over every setting of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any


def walk(value: Any, key: str = "", kind: str | None = None) -> Iterator[tuple[str, Any, str | None]]:
    """Yield (dotted key, value, kind of path) of every setting.

    "free" is the kind of values in a mapping with keys of the user's.
    """
    if dataclasses.is_dataclass(value):
        for entry in dataclasses.fields(value):
            yield from walk(
                getattr(value, entry.name), f"{key}.{entry.name}".lstrip("."), entry.metadata.get("path")
            )
    elif isinstance(value, dict) and value:
        for name, one in value.items():
            yield from walk(one, f"{key}.{name}", "free")
    elif isinstance(value, list) and value:
        for number, one in enumerate(value):
            yield from walk(one, f"{key}.{number}", kind)
    else:
        yield key, value, kind
