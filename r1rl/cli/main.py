"""The command line: `r1rl COMMAND RECIPE.yaml [key=value ...] [flags]`.

The recipe is read and checked before torch is imported; the function of a command is imported only when it
runs. The commands are found by their records (`r1rl.config.commands`).
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

from r1rl import __version__
from r1rl.config.bundled import find_recipe
from r1rl.config.commands import Command, Flag, find_commands, resolve
from r1rl.config.load import load_recipe
from r1rl.config.renamed import RecipeWarning
from r1rl.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
OVERRIDE = re.compile(r"^[A-Za-z_][\w.-]*=")


@dataclass(slots=True)
class Invocation:
    """A command line taken apart."""

    recipe: str | None = None
    overrides: list[str] = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)
    help: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 for an error that the user can mend, 130 after
    Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _told_once():
            return _dispatch(arguments)
    except UserError as error:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"r1rl: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        from r1rl.cli.help import print_overview

        print_overview(find_commands().values())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    command = _command(arguments[0])
    invocation = parse_arguments(command, arguments[1:])
    if invocation.help:
        from r1rl.cli.help import print_command

        print_command(command)
        return 0
    if any(flag.places and invocation.flags[flag.name] is not None for flag in command.flags):
        _run(command, None, None, invocation.flags)
        return 0
    if invocation.recipe is None:
        raise UserError(
            f"r1rl {command.name} needs a recipe, such as: {command.examples[0]}. r1rl {command.name} "
            f"--help lists its keys."
        )
    path = find_recipe(invocation.recipe)
    count = 0
    if command.many_processes:
        from r1rl.cli.launch import missing_cpu_processes, start_processes

        count = missing_cpu_processes()
    with warnings.catch_warnings():
        if count:
            warnings.simplefilter("ignore", RecipeWarning)  # the processes that are started say it
        recipe = load_recipe(command.name, path, invocation.overrides)
    if count:
        return start_processes(count, arguments)
    _run(command, recipe, path, invocation.flags)
    return 0


@contextmanager
def _told_once() -> Iterator[None]:
    """Print each `RecipeWarning` once, as a sentence, from the first process."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", RecipeWarning)
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, RecipeWarning):
                shown(message, category, filename, lineno, file, line)
            elif int(os.environ.get("RANK", "0")) == 0:
                print(f"r1rl: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield


def _run(command: Command, recipe: Any, path: Path | None, flags: dict[str, Any]) -> None:
    """Import the command's function and call it."""
    arguments = {name.replace("-", "_"): value for name, value in flags.items()}
    resolve(command.run)(recipe, path, **arguments)


def _command(name: str) -> Command:
    """Return a command by its name. Raises UserError for a name that is none."""
    commands = find_commands()
    if name in commands:
        return commands[name]
    near = get_close_matches(name, commands, n=1)
    advice = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(commands)}."
    raise UserError(f"there is no command {name}; {advice}")


def parse_arguments(command: Command, arguments: Sequence[str]) -> Invocation:
    """Take apart what follows the command's name.

    A flag's value may stand after a space, unless what stands there is an override or the recipe is still to
    come.
    """
    invocation = Invocation(flags={flag.name: None for flag in command.flags})
    flags = {f"--{flag.name}": flag for flag in command.flags}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            invocation.help = True
        elif name in flags and flags[name].places:
            invocation.flags[flags[name].name] = _values(command, flags[name], waiting)
        elif name in flags:
            follows_value = (
                bool(waiting)
                and invocation.recipe is not None
                and not _is_override(waiting[0])
                and waiting[0][0:1] != "-"
            )
            if not equals:
                value = waiting.pop(0) if follows_value else flags[name].bare
            invocation.flags[flags[name].name] = value
        elif word.startswith("-"):
            near = get_close_matches(name, [*flags, "--help"], n=1)
            known = (
                f"did you mean {near[0]}?" if near else f"it has the flags {', '.join([*flags, '--help'])}."
            )
            raise UserError(
                f"r1rl {command.name} has no flag {name}; {known} Settings are written key=value, without "
                f"dashes."
            )
        elif _is_override(word):
            invocation.overrides.append(word)
        elif invocation.recipe is None:
            invocation.recipe = word
        else:
            raise UserError(f'"{word}" is neither a flag nor key=value; the recipe is {invocation.recipe}.')
    return invocation


def _values(command: Command, flag: Flag, waiting: list[str]) -> list[str]:
    """Take the values of a flag that needs several from the words that follow it."""
    values = [waiting.pop(0) for _ in flag.places if waiting and not waiting[0].startswith("-")]
    if len(values) < len(flag.places):
        raise UserError(f"--{flag.name} needs {len(flag.places)} values: r1rl {command.name} {flag.usage}")
    return values


def _is_override(word: str) -> bool:
    return bool(OVERRIDE.match(word)) and not Path(word).is_file()
