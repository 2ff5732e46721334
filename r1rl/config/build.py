"""The step from the tree of a YAML text to typed dataclasses.

It finds unknown keys, missing keys, wrong types and numbers out of range.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from difflib import get_close_matches
from typing import Any, Literal

from r1rl.config.describe import NO_DEFAULT, default_of, explain_unknown, optional_inner, type_words
from r1rl.config.fields import Choices
from r1rl.config.intervals import Interval
from r1rl.config.issues import Issues
from r1rl.config.nodes import Node, plain
from r1rl.config.renamed import take_over

BAD = object()
"""A stand-in for a value that could not be read; its issue is noted and the field keeps its default."""


def build_recipe(recipe: type, root: Node, issues: Issues) -> Any:
    """Return the recipe's dataclass.

    A value that can't be read is noted in `issues` and replaced by its default, so that the rest is checked
    too.
    """
    if root.value is not None and not isinstance(root.value, dict):
        issues.add(
            root.where, f"a recipe is a mapping of keys to values, but this file holds {root.describe()}"
        )
        root = Node(None, root.where)
    return _Builder(recipe, issues).section(recipe, root, "")


class _Builder:
    """The recipe class in which unknown keys are looked up, and the list that issues are added to."""

    def __init__(self, recipe: type, issues: Issues) -> None:
        self.recipe = recipe
        self.issues = issues

    def section(self, cls: type, node: Node, path: str) -> Any:
        """Return a dataclass from a mapping; an empty section (null) sets nothing."""
        children: dict[str, Node] = node.value or {}
        take_over(cls, children, path, self.issues)
        hints = typing.get_type_hints(cls)
        fields = {entry.name: entry for entry in dataclasses.fields(cls)}
        for key, child in children.items():
            if key not in fields:
                sentence, meant = explain_unknown(key, path, self.recipe)
                self.issues.add(child.where, sentence, suspect=meant)
        values = {}
        for name, entry in fields.items():
            key = f"{path}.{name}" if path else name
            value = BAD
            if name in children:
                choices, within = entry.metadata.get("choices"), entry.metadata.get("within")
                value = (
                    self.value(hints[name], children[name], key, within)
                    if choices is None
                    else self.named(choices, children[name], key)
                )
            elif default_of(entry) is NO_DEFAULT:
                where = node.where if path else ""
                self.issues.add(where, f"{key} is missing: {entry.metadata['help']}", suspect=[key])
            values[name] = self.fallback(entry, hints[name]) if value is BAD else value
        return cls(**values)

    def fallback(self, entry: dataclasses.Field[Any], hint: Any) -> Any:
        """Return the default, or for a required key an empty value that only serves the remaining checks."""
        default = default_of(entry)
        if default is not NO_DEFAULT:
            return default
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            inner_hints = typing.get_type_hints(hint)
            return hint(
                **{
                    inner.name: self.fallback(inner, inner_hints[inner.name])
                    for inner in dataclasses.fields(hint)
                }
            )
        return [] if typing.get_origin(hint) is list else ""

    def value(self, hint: Any, node: Node, key: str, within: Interval | None) -> Any:
        """Return a value of the type `hint`, or BAD."""
        inner = optional_inner(hint)
        if inner is not None:
            return None if node.value is None else self.value(inner, node, key, within)
        if hint is Any:
            return plain(node)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            if node.value is None or isinstance(node.value, dict):
                return self.section(hint, node, key)
            first = dataclasses.fields(hint)[0].name
            return self.bad(node, key, f"expected a section, such as {{{first}: {node.text or '...'}}}")
        origin = typing.get_origin(hint)
        if origin is list:
            return self.items(hint, node, key, within)
        if origin is dict:
            return self.mapping(hint, node, key, within)
        if origin is Literal:
            return self.choice(hint, node, key)
        return self.scalar(hint, node, key, within)

    def items(self, hint: Any, node: Node, key: str, within: Interval | None) -> Any:
        """Return a list; null is an empty one."""
        if node.value is None:
            return []
        (inner,) = typing.get_args(hint)
        if not isinstance(node.value, list):
            item = (
                f"{{{dataclasses.fields(inner)[0].name}: {node.text or '...'}}}"
                if dataclasses.is_dataclass(inner)
                else node.text
            )
            return self.bad(
                node, key, f"expected a {type_words(hint)}{f', such as [{item}]' if item else ''}"
            )
        values = [
            self.value(inner, child, f"{key}.{index}", within) for index, child in enumerate(node.value)
        ]
        return BAD if any(value is BAD for value in values) else values

    def mapping(self, hint: Any, node: Node, key: str, within: Interval | None) -> Any:
        """Return a mapping with free keys; null is an empty one."""
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            return self.bad(node, key, f"expected a {type_words(hint)}, such as {{name: value}}")
        inner = typing.get_args(hint)[1]
        values = {
            name: self.value(inner, child, f"{key}.{name}", within) for name, child in node.value.items()
        }
        return BAD if any(value is BAD for value in values.values()) else values

    def choice(self, hint: Any, node: Node, key: str) -> Any:
        """Return one of the names of a Literal."""
        if node.value in typing.get_args(hint) and not isinstance(node.value, bool):
            return node.value
        advice = ": write the word none" if node.value is None and "none" in typing.get_args(hint) else ""
        return self.bad(node, key, f"expected {type_words(hint)}{advice}")

    def named(self, choices: Choices, node: Node, key: str) -> Any:
        """Return one of the names of a table, or the name of code of the user's own."""
        if choices.allows(node.value):
            return node.value
        advice = ": write the word none" if node.value is None and "none" in choices.names else ""
        near = get_close_matches(node.text, choices.names, n=1)
        advice = f"; did you mean {near[0]}?" if isinstance(node.value, str) and near else advice
        return self.bad(node, key, f"expected {choices}{advice}")

    def scalar(self, hint: Any, node: Node, key: str, within: Interval | None) -> Any:
        """Return text, a whole number, a number, or true/false."""
        value = node.value
        if hint is str:
            if isinstance(value, str):
                return value
            if node.from_override and not isinstance(value, (dict, list)) and value is not None:
                return node.text  # a shell strips the quotes that would make it text
            quotes = f': put it in quotes, "{node.text}"' if node.text and value is not None else ""
            return self.bad(node, key, f"expected text{quotes}")
        if hint is bool:
            return value if isinstance(value, bool) else self.bad(node, key, "expected true or false")
        number = _number(value, whole=hint is int)
        if number is None:
            return self.bad(node, key, f"expected a {type_words(hint)}")
        if within is not None and not within.contains(number):
            self.issues.add(node.where, f"{key} is {node.text}; it must be {within}", suspect=[key])
            return BAD
        return number

    def bad(self, node: Node, key: str, expected: str) -> Any:
        """Note a value of the wrong kind, and return BAD."""
        self.issues.add(node.where, f"{key} is {node.describe()}; {expected}", suspect=[key])
        return BAD


def _number(value: Any, whole: bool) -> int | float | None:
    """Return a finite number of the right kind, or None.

    Text such as "1e-6" in quotes counts; true and false do not.
    """
    if isinstance(value, bool):
        return None
    if whole:
        return value if isinstance(value, int) else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None
