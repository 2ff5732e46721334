"""YAML text as a tree of values that remember the line or the override that they were written in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from r1rl.config.issues import Issues
from r1rl.errors import RecipeError

FLOAT_TAG = "tag:yaml.org,2002:float"
COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
EXPONENT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
OVERRIDE_KEY = re.compile(r"^[A-Za-z_][\w-]*(\.[\w-]+)*$")


class RecipeLoader(yaml.SafeLoader):
    """YAML's safe loader, but `1e-6` is a number, as in YAML 1.2; YAML 1.1 reads it as text."""


class RecipeDumper(yaml.SafeDumper):
    """The matching dumper: it quotes text that `RecipeLoader` would read as a number."""


for _resolver in (RecipeLoader, RecipeDumper):
    _resolver.add_implicit_resolver(FLOAT_TAG, EXPONENT, list("-+0123456789"))


@dataclass(slots=True)
class Node:
    """A value of the recipe: a section (dict), a list, or a scalar with the text that it was written as."""

    value: Any
    where: str
    text: str = ""

    @property
    def from_override(self) -> bool:
        """Return whether the value was given on the command line."""
        return self.where.startswith("override ")

    def describe(self) -> str:
        """Return the value in a word or as written, for messages."""
        if isinstance(self.value, dict):
            return "a section" if self.value else "an empty section"
        if isinstance(self.value, list):
            return f"a list of {len(self.value)}"
        if self.value is None:
            return "nothing (null)"
        return f'the text "{self.text}"' if isinstance(self.value, str) else self.text


def plain(node: Node) -> Any:
    """Return the tree as ordinary dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def find(root: Node, key: str) -> Node | None:
    """Return the node at a dotted key, or None if the recipe does not mention it."""
    node: Node | None = root
    for part in key.split("."):
        if node is None:
            return None
        if isinstance(node.value, dict):
            node = node.value.get(part)
        elif isinstance(node.value, list) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
        else:
            return None
    return node


def parse(text: str, source: str, issues: Issues, override: str = "") -> Node:
    """Return the tree of a YAML text.

    Syntax errors raise at once; duplicate keys and foreign tags are noted in `issues`.
    """
    loader = RecipeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Node(None, override or "line 1")
        return _convert(loader, root, override or "line 1", override, issues, ())
    except yaml.YAMLError as error:
        raise RecipeError(_syntax_error(error, source, override)) from None
    finally:
        loader.dispose()


def _convert(
    loader: RecipeLoader, node: yaml.Node, where: str, override: str, issues: Issues, parents: tuple[int, ...]
) -> Node:
    if id(node) in parents:
        issues.add(where, "an alias (*name) contains itself")
        return Node(None, where)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in COLLECTION_TAGS:
        issues.add(where, f"the tag {node.tag} has no meaning in a recipe")
    parents = (*parents, id(node))
    if isinstance(node, yaml.MappingNode):
        return _convert_mapping(loader, node, where, override, issues, parents)
    if isinstance(node, yaml.SequenceNode):
        items = [
            _convert(loader, item, override or _line(item), override, issues, parents) for item in node.value
        ]
        return Node(items, where)
    return Node(loader.construct_object(node), where, node.value)


def _convert_mapping(
    loader: RecipeLoader,
    node: yaml.MappingNode,
    where: str,
    override: str,
    issues: Issues,
    parents: tuple[int, ...],
) -> Node:
    seen: dict[str, str] = {}
    for key, _ in node.value:
        if key.value in seen and key.value != "<<":
            issues.add(
                override or _line(key),
                f"the key {key.value} is written twice; the first is on {seen[key.value]}",
            )
        seen.setdefault(str(key.value), override or _line(key))
    # "<<: *anchor" becomes keys that come first, so that the section's own keys win.
    loader.flatten_mapping(node)
    children = {}
    for key, value in node.value:
        key_where = override or _line(key)
        if not isinstance(key, yaml.ScalarNode):
            issues.add(key_where, "a key must be a word")
            continue
        children[key.value] = _convert(loader, value, key_where, override, issues, parents)
    return Node(children, where)


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _syntax_error(error: yaml.YAMLError, source: str, override: str) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{source}, {override}" if override else f"{source}, line {mark.line + 1}" if mark else source
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    advice = " Indent with spaces; YAML does not allow tabs." if "\\t" in problem or "\t" in problem else ""
    return f"{place}: this is not valid YAML ({problem}).{advice}"


def apply_override(root: Node, override: str, issues: Issues) -> None:
    """Set a dotted `key=value` in the tree; the value is YAML, and list items are addressed by index
    (`rewards.0.weight=0.5`).

    `key=` sets empty text. Sections of the key that the recipe does not mention are made; a list grows by one
    item if its next index is named.
    """
    key, separator, text = override.partition("=")
    where = f"override {override}"
    if not separator or not OVERRIDE_KEY.match(key):
        raise RecipeError(
            f'"{override}" is not an override: write key=value with a dotted key, such as '
            f"rollout.temperature=0.8."
        )
    value = parse(text or '""', issues.source, issues, where)
    *parents, last = key.split(".")
    node = root
    for depth, part in enumerate(parents):
        child = _child(node, part, ".".join(parents[:depth]), where, issues)
        if child is None:
            return
        if child.value is None or (isinstance(child.value, str) and child.value == ""):
            child.value, child.where = {}, where
        node = child
    _child(node, last, ".".join(parents), where, issues, value)


def _child(
    node: Node, part: str, path: str, where: str, issues: Issues, value: Node | None = None
) -> Node | None:
    """Return the child of a section or list, made if it is missing and replaced if a value is given.

    Return None after an error.
    """
    if isinstance(node.value, dict):
        if value is not None:
            node.value[part] = value
        return node.value.setdefault(part, Node(None, where))
    if not isinstance(node.value, list):
        issues.add(where, f"{path or 'the recipe'} is {node.describe()}, so it has no key {part}")
        return None
    size = len(node.value)
    if not part.isdigit() or int(part) > size:
        known = f"items 0 to {size - 1}" if size else "no items yet"
        advice = (
            f"write {path}.{size} to add one"
            if part.isdigit()
            else f"name one by its number, such as {path}.0"
        )
        issues.add(where, f"{path} is a list with {known}: {advice}")
        return None
    if int(part) == size:
        node.value.append(Node(None, where))
    if value is not None:
        node.value[int(part)] = value
    return node.value[int(part)]
