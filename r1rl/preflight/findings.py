"""The findings of a check, and how they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from r1rl.config.awaited import AWAITED_MODEL


@dataclass(slots=True)
class Findings:
    """The findings about one recipe."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    """Pairs (name, words) that tell what the recipe does; a row without a name belongs to the one above."""
    tables: list[RenderableType] = field(default_factory=list)
    """Tables below the rows."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what was assumed."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about what may be a mistake."""
    unchecked: list[str] = field(default_factory=list)
    """Sentences about what could not be looked at from here, and why."""
    prompt_tokens: int | None = None
    """Tokens of the longest prompt; None if the prompts could not be rendered here."""

    def print(self, console: Console) -> None:
        """Print all of it."""
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, words in self.rows:
            words = words.replace(AWAITED_MODEL, "not there yet")
            table.add_row(Text(name, style="bold"), Text(words, style="dim" if name == "example" else ""))
        console.print(table)
        for one in self.tables:
            console.print(one)
        for note in self.notes:
            console.print(f"note: {escape(note)}")
        for reason in self.unchecked:
            console.print(f"[yellow]not checked:[/] {escape(reason)}")
        for warning in self.warnings:
            console.print(f"[yellow]warning:[/] {escape(warning)}")
