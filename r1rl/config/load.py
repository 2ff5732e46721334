"""Read a recipe: YAML and `key=value` overrides onto typed dataclasses, every error of the recipe in one
message. The record of the command says which dataclass (`r1rl.config.commands`).

Nothing here imports torch: a mistake is reported in a fraction of a second.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from r1rl.config.build import build_recipe
from r1rl.config.commands import Command, find_commands
from r1rl.config.describe import NO_DEFAULT, default_of
from r1rl.config.fields import PathKind
from r1rl.config.issues import Issues
from r1rl.config.nodes import Node, RecipeDumper, apply_override, find, parse
from r1rl.config.renamed import RecipeWarning
from r1rl.config.validate import contradictions
from r1rl.errors import RecipeError

HEADER_COMMAND = re.compile(r"^# Command\b.*\br1rl ([a-z-]+)", re.MULTILINE)
"""The command that the remarks at the top of a recipe name."""
DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")


def load_recipe(command: str, path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Return the recipe of a command from a YAML file, with `key=value` overrides applied in order. For a
    command without a recipe of its own, such as check, it is that of the command that the file is for.

    Paths in the recipe (data files, templates, model folders) are relative to the working directory; one that
    is not there but in the recipe's folder becomes a path to that. Raises `RecipeError` with all errors of
    the recipe.
    """
    path = Path(path)
    return parse_recipe(command, read_recipe(path), path, overrides)


def parse_recipe(command: str, text: str, path: Path, overrides: Sequence[str] = ()) -> Any:
    """Return the recipe that a YAML text holds, as `load_recipe` does for a file.

    `path` is the name of the text in messages, and its folder is the recipe's folder.
    """
    issues = Issues(str(path))
    root = parse(text, str(path), issues)
    record = find_commands()[command]
    if record.recipe is None:
        record = _likeliest_command(root, text, path)
    _refuse_recipe_of_another_command(record, root, path)
    if overrides and root.value is None:
        root = Node({}, root.where)
    for override in overrides:
        if record.apply_override is None or not record.apply_override(root, override, issues):
            apply_override(root, override, issues)
    assert record.recipe is not None
    recipe = build_recipe(record.recipe, root, issues)
    _note_contradictions(recipe, root, issues)
    issues.raise_if_any()
    for note in issues.notes:
        warnings.warn(f"{path}, {note}", RecipeWarning, stacklevel=2)
    _anchor_paths(recipe, path.parent)
    return recipe


def dump_recipe(recipe: Any) -> str:
    """Return the resolved recipe as YAML with every key written out; `load_recipe` reads it back to an equal
    recipe.
    """
    return yaml.dump(
        dataclasses.asdict(recipe), Dumper=RecipeDumper, sort_keys=False, allow_unicode=True, width=120
    )


def read_recipe(path: Path) -> str:
    """Return the text of a recipe. Raises `RecipeError` if it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}): is it a recipe?") from None
    except OSError as error:
        raise RecipeError(f"{path}: the recipe can't be read ({error.strerror}).") from None


def _refuse_recipe_of_another_command(command: Command, root: Node, path: Path) -> None:
    """Raise one sentence for a recipe that another command reads, not an error for each of its keys."""
    if not isinstance(root.value, dict) or root.value.keys() <= _sections(command):
        return
    for other in _commands_with_recipes():
        if other.name != command.name and root.value.keys() <= _sections(other):
            raise RecipeError(
                f"{path} is a recipe of r1rl {other.name}, and r1rl {command.name} reads another kind: run "
                f"r1rl "
                f"{other.name} {path}."
            )


def _likeliest_command(root: Node, text: str, path: Path) -> Command:
    """Return the command that a recipe is for: the one that knows most of its keys and lacks fewest; among
    several, the one that its header names.

    A misspelt key does not hide the kind: it is told as an error of that command's recipe. Raises RecipeError
    if several are as likely.
    """
    keys = set(root.value) if isinstance(root.value, dict) else set()
    misfits = {
        command.name: (len(keys - _sections(command)), len(_required(command) - keys))
        for command in _commands_with_recipes()
    }
    likely = [name for name, misfit in misfits.items() if misfit == min(misfits.values())]
    named = HEADER_COMMAND.search(text)
    if named is not None and named[1] in likely:
        return find_commands()[named[1]]
    if len(likely) > 1:
        listed = " or ".join(f"r1rl {name}" for name in likely)
        raise RecipeError(
            f"{path} could be a recipe of {listed}: say which in a line at its top, such as: # Command  "
            f"r1rl {likely[0]}"
        )
    return find_commands()[likely[0]]


def _commands_with_recipes() -> list[Command]:
    return [command for command in find_commands().values() if command.recipe is not None]


def _sections(command: Command) -> set[str]:
    return {entry.name for entry in _settings(command)}


def _required(command: Command) -> set[str]:
    return {entry.name for entry in _settings(command) if default_of(entry) is NO_DEFAULT}


def _settings(command: Command) -> tuple[dataclasses.Field[Any], ...]:
    assert command.recipe is not None
    return dataclasses.fields(command.recipe)


def _note_contradictions(recipe: Any, root: Node, issues: Issues) -> None:
    """Note values that contradict each other, unless one of them is not the user's own (see
    `Issues.suspect`).
    """
    for keys, sentence in list(contradictions(recipe)):
        if any(_overlap(key, bad) for key in keys for bad in issues.suspect):
            continue
        written = (find(root, key) for key in keys)
        issues.add(next((node.where for node in written if node is not None), ""), sentence)


def _overlap(key: str, other: str) -> bool:
    """Return whether one key is the other or lies within it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _anchor_paths(section: Any, base_dir: Path) -> None:
    """Point paths that exist only in the recipe's folder there, in every section. Rewards find their files
    themselves.
    """
    for entry in dataclasses.fields(section):
        value, kind = getattr(section, entry.name), entry.metadata.get("path")
        if kind is not None and isinstance(value, list):
            setattr(section, entry.name, [_anchored(one, kind, base_dir) for one in value])
        elif kind is not None and value:
            setattr(section, entry.name, _anchored(value, kind, base_dir))
        for inner in value if isinstance(value, list) else [value]:
            if dataclasses.is_dataclass(inner):
                _anchor_paths(inner, base_dir)


def _anchored(path: str, kind: PathKind, base_dir: Path) -> str:
    candidate = base_dir / path
    may_be_path = kind == "any" or path.endswith(DATA_SUFFIXES)
    return str(candidate) if path and may_be_path and not Path(path).exists() and candidate.exists() else path
