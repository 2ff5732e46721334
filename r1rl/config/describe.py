"""The recipe's keys read off its dataclasses: for `--help`, for error messages and for the check of unknown
keys.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from r1rl.config.fields import Choices
from r1rl.config.retired import replacement

NO_DEFAULT = object()
"""The mark of a key that every recipe must set."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a recipe: its dotted name (list items as `0`), type, default and help."""

    name: str
    hint: Any
    default: Any
    help: str
    choices: Choices | None = None
    """The names that a text may be, where it is not free."""

    @property
    def kind(self) -> str:
        """The type in words, or the names that the text may be."""
        return type_words(self.hint) if self.choices is None else str(self.choices)

    @property
    def leaf(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    @property
    def section(self) -> str:
        """The part of the name before the leaf; empty at the top of the recipe."""
        return self.name.rpartition(".")[0]


def recipe_keys(cls: type, section: str = "") -> list[Key]:
    """Return all keys of a recipe in the order of the dataclasses; a section comes before its own keys."""
    hints = typing.get_type_hints(cls)
    keys = []
    for entry in dataclasses.fields(cls):
        name = f"{section}.{entry.name}" if section else entry.name
        help, choices = entry.metadata.get("help", ""), entry.metadata.get("choices")
        keys.append(Key(name, hints[entry.name], default_of(entry), help, choices))
        inner = section_class(hints[entry.name])
        if inner is not None:
            keys += recipe_keys(inner, f"{name}.0" if is_list(hints[entry.name]) else name)
    return keys


def default_of(entry: dataclasses.Field[Any]) -> Any:
    """Return the default of a dataclass field, or `NO_DEFAULT`."""
    if entry.default is not dataclasses.MISSING:
        return entry.default
    return NO_DEFAULT if entry.default_factory is dataclasses.MISSING else entry.default_factory()


def section_class(hint: Any) -> type | None:
    """Return the dataclass that a key holds, directly, as `X | None` or as the items of a list, or None for a
    plain value.
    """
    for candidate in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
            return candidate
    return None


def is_list(hint: Any) -> bool:
    """Return whether the type is `list[...]`."""
    return typing.get_origin(hint) is list


def optional_inner(hint: Any) -> Any | None:
    """Return `X` of `X | None`, or else None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return inner[0] if len(inner) == 1 else None
    return None


def type_words(hint: Any) -> str:
    """Return a type in words: "number", "text or null", "grpo, dapo or bnpo", "list of text"."""
    inner = optional_inner(hint)
    if inner is not None:
        return f"{type_words(inner)} or null"
    origin = typing.get_origin(hint)
    if origin is Literal:
        *most, last = (str(choice) for choice in typing.get_args(hint))
        return f"{', '.join(most)} or {last}" if most else last
    if origin is list:
        inner = typing.get_args(hint)[0]
        return "list of sections" if dataclasses.is_dataclass(inner) else f"list of {type_words(inner)}"
    if origin is dict:
        value = typing.get_args(hint)[1]
        return "mapping" if value is Any else f"mapping to {type_words(value)}"
    if dataclasses.is_dataclass(hint):
        return "section"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(hint, "anything")


def explain_unknown(key: str, section: str, recipe: type) -> tuple[str, list[str]]:
    """Explain a key that its section does not have, and return the sentence and the keys that the user may
    have meant.
    """
    keys = recipe_keys(recipe)
    written = f"{section}.{key}" if section else key
    own = [entry.leaf for entry in keys if entry.section == section]
    elsewhere = [entry.name for entry in keys if entry.leaf == key and entry.section != section]
    near = get_close_matches(key, own, n=1, cutoff=0.8)
    if near:
        meant = f"{section}.{near[0]}" if section else near[0]
        return f"{written} is unknown; did you mean {meant}?", [meant]
    instead = replacement(key, recipe.__name__)
    if instead is not None:
        return f"{written} is not a key of r1rl: {instead}", elsewhere
    if elsewhere:
        return f"{written} is unknown; did you mean {' or '.join(elsewhere)}?", elsewhere
    near = get_close_matches(key, own, n=1) or get_close_matches(key, [entry.leaf for entry in keys], n=1)
    if near:
        meant_names = [entry.name for entry in keys if entry.leaf == near[0] and entry.section == section]
        meant_names = meant_names or [entry.name for entry in keys if entry.leaf == near[0]]
        return f"{written} is unknown; did you mean {' or '.join(meant_names)}?", meant_names
    place = f"{section} has" if section else "a recipe has"
    return f"{written} is unknown; {place} the keys {', '.join(own)}", []
