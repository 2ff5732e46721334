"""The texts of `--help`: the commands, and every key of a command's recipe with its type, default and
meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from r1rl.config.commands import Command
from r1rl.config.describe import NO_DEFAULT, Key, is_list, recipe_keys, section_class

OVERRIDES = (
    "key=value changes a recipe for this run: dotted keys, YAML values, list items by number "
    "(rewards.0.weight=0.5)."
)


def print_overview(commands: Iterable[Command]) -> None:
    """Print the text of `r1rl --help`."""
    console = Console(highlight=False)
    console.print("[bold]r1rl[/] replicates DeepSeek-R1-Zero and the DeepSeek-R1 recipe on one machine.\n")
    console.print("  r1rl COMMAND RECIPE.yaml \\[key=value ...] \\[flags]")
    console.print("  accelerate launch -m r1rl COMMAND RECIPE.yaml \\[key=value ...]    several GPUs\n")
    table = _grid()
    for command in commands:
        table.add_row(Text(command.name, style="bold"), command.summary)
    console.print(Padding(table, (0, 0, 1, 2)))
    console.print(f"{escape(OVERRIDES)}\nr1rl COMMAND --help lists every key of its recipe. Start with:")
    console.print("  [bold]r1rl grpo recipes/zero_rl/tiny.yaml[/]")


def print_command(command: Command) -> None:
    """Print the text of `r1rl COMMAND --help`."""
    console = Console(highlight=False)
    console.print(f"[bold]r1rl {command.name}[/]: {escape(command.summary)}\n")
    console.print(escape(command.explanation) + "\n")
    for example in command.examples:
        console.print(f"  {escape(example)}", soft_wrap=True)
    console.print(f"\n{escape(OVERRIDES)}\n")
    if command.flags:
        table = _grid()
        for flag in command.flags:
            table.add_row(Text(flag.usage, style="bold"), flag.help)
        console.print(Padding(table, (0, 0, 1, 2)))
    if command.recipe is None:
        console.print(
            "The keys of a recipe are those of the command that it is for: r1rl COMMAND --help lists them."
        )
        return
    keys = recipe_keys(command.recipe)
    console.print("[bold]The recipe[/]")
    shown: dict[type, str] = {}
    console.print(
        Padding(
            _key_table([key for key in keys if not key.section and section_class(key.hint) is None], shown),
            (0, 0, 1, 2),
        )
    )
    for section in keys:
        inner = section_class(section.hint)
        if inner is None or (inner in shown and section.section):
            continue
        prefix = f"{section.name}.0" if is_list(section.hint) else section.name
        listed = "a list, here its first item" if is_list(section.hint) else ""
        notes = [
            section.help,
            f"the same keys as {shown[inner]}" if inner in shown else listed,
            _required(section),
        ]
        console.print(
            f"[bold]{section.name}[/]: {escape('; '.join(note for note in notes if note))}", soft_wrap=True
        )
        if inner in shown:
            continue
        shown[inner] = section.name
        console.print(
            Padding(_key_table([key for key in keys if key.section == prefix], shown), (0, 0, 1, 2))
        )


def _key_table(keys: list[Key], described: dict[type, str]) -> Table:
    """Return a table with one line per key; `described` names the section whose keys another one of the same
    kind has.
    """
    table = _grid()
    for key in keys:
        inner = section_class(key.hint)
        shared = f"; the same keys as {described[inner]}" if inner in described else ""
        facts = f"{key.kind}; {_required(key) or 'default ' + _shown(key.default)}"
        table.add_row(
            Text(key.name, style="bold"), Text.assemble(key.help + shared + "  ", (f"[{facts}]", "dim"))
        )
    return table


def _required(key: Key) -> str:
    return "required" if key.default is NO_DEFAULT else ""


def _shown(default: Any) -> str:
    """Return a default as one would write it in YAML."""
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return default or '""'
    if isinstance(default, float):
        return f"{default:g}"
    return str(default)


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    return table
