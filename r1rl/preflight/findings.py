"""What a check found, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from r1rl.preflight.awaited import AWAITED_MODEL


@dataclass(slots=True)
class Findings:
    """Of one recipe."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    """What the recipe does: (name, words); a row without a name belongs to the one above."""
    tables: list[RenderableType] = field(default_factory=list)
    """Shown below the rows."""
    notes: list[str] = field(default_factory=list)
    """What was assumed."""
    warnings: list[str] = field(default_factory=list)
    """What may be a mistake."""
    unchecked: list[str] = field(default_factory=list)
    """What could not be looked at from here, and why."""
    prompt_tokens: int | None = None
    """Of the longest prompt; None if the prompts could not be rendered here."""

    def print(self, console: Console) -> None:
        """All of it."""
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
