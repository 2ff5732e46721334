"""The end of a run on the terminal: held-out figures before and after, and one problem answered by both
models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from r1rl.monitor.progress import shorten

SHOWN_CHARACTERS = 1500


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table, which shows a figure of an evaluation."""

    title: str
    figure: str
    percent: bool = True
    former: str = ""
    """The figure's name in runs that earlier versions began; empty where it is the same."""

    def of(self, figures: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the line's figure among those of an evaluation; None where it was not measured."""
        found: Mapping[str, Any] | None = figures.get(self.figure, figures.get(self.former))
        return found


LINES = (
    Line("accuracy", "accuracy"),
    Line("length (tokens)", "mean_length", percent=False),
    Line("reflect", "reflection_rate"),
    Line("well-formed", "well_formed_rate", former="format_rate"),
    Line("one language", "language_consistency"),
    Line("cut off", "truncated_rate"),
)


@dataclass(frozen=True, slots=True)
class Contrast:
    """The same problem, answered before and after training."""

    problem: str
    answer: str | None
    before: str
    after: str
    before_is_correct: bool
    after_is_correct: bool


def before_after_table(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Table:
    """Return the table of held-out figures with their 95 % intervals. `before` and `after` are the figures of
    two evaluations of the same problems.
    """
    count = f"{after['num_problems']} problems x {after['num_samples']} samples"
    table = Table(
        title=f"Held-out problems ({count}; 95 % intervals)", title_justify="left", header_style="bold"
    )
    table.add_column("")
    for title in ("before", "after") if before is not None else ("after",):
        table.add_column(title, justify="right")
    for line in _lines(after):
        cells = [
            format_estimate(line.of(figures), line.percent)
            for figures in (before, after)
            if figures is not None
        ]
        table.add_row(line.title, *cells)
    return table


def by_value_table(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Table | None:
    """Return the table of the rewards, before their weights, within the values of each column that decides
    about rewards; None if there is no such column.
    """
    if not after.get("by_value"):
        return None
    table = Table(title="Rewards by row", title_justify="left", header_style="bold")
    for title in ("", "reward", *(("before", "after") if before is not None else ("after",))):
        table.add_column(title, justify="right" if title in ("before", "after") else "left")
    for column, values in after["by_value"].items():
        for value, figures in values.items():
            applying = [name for name, estimate in figures["rewards"].items() if estimate is not None]
            for name in applying:
                sides = [
                    side["by_value"][column][value]["rewards"].get(name)
                    for side in (before, after)
                    if side is not None
                ]
                first = f"{column} {value}" if name == applying[0] else ""
                table.add_row(Text(first), Text(name), *(_three_places(side) for side in sides))
    return table


def _three_places(estimate: Mapping[str, Any] | None) -> str:
    return "-" if estimate is None else f"{estimate['value']:.3f}"


def _lines(figures: Mapping[str, Any]) -> list[Line]:
    passes = [
        Line(name.replace("_at_", "@"), name)
        for name in figures
        if name.startswith("pass_at_") and name != "pass_at_1"
    ]
    shown = [line for line in LINES if line.of(figures) is not None]
    return [*shown[:1], *passes, *shown[1:]]


def format_estimate(estimate: Mapping[str, Any] | None, percent: bool) -> str:
    """Return a figure such as "41.2 % (36.0-46.5)": without the interval where there is none, a dash where
    there is no figure.
    """
    if estimate is None:
        return "-"
    factor, unit = (100.0, " %") if percent else (1.0, "")
    text = f"{estimate['value'] * factor:.1f}{unit}"
    interval = estimate.get("ci95")
    return (
        text if interval is None else f"{text} ({interval[0] * factor:.1f}\u2013{interval[1] * factor:.1f})"
    )


def side_by_side(contrast: Contrast) -> RenderableType:
    """Return the two answers beside each other. Nothing in them is taken as markup."""
    answer = f"answer: {contrast.answer}" if contrast.answer is not None else ""
    pages = [
        _page("before training", contrast.before, contrast.before_is_correct),
        _page("after training", contrast.after, contrast.after_is_correct),
    ]
    halves = Table.grid(expand=True)
    halves.add_column(ratio=1)
    halves.add_column(ratio=1)
    halves.add_row(*pages)
    return Group(Text(contrast.problem.strip(), style="bold"), Text(answer, style="dim"), halves)


def _page(title: str, text: str, is_correct: bool) -> Panel:
    verdict, colour = ("correct", "green") if is_correct else ("not correct", "red")
    return Panel(
        Text(shorten(text.strip(), SHOWN_CHARACTERS)),
        title=Text(title),
        subtitle=Text(verdict),
        border_style=colour,
    )
