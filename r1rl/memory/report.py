"""The estimate of a recipe's memory as a table and sentences."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from r1rl.memory.estimate import Estimate
from r1rl.memory.launch import describe
from r1rl.memory.remedy import remedy
from r1rl.memory.work import GB

WHEN = {"always": "always", "rollout": "while sampling", "update": "while training"}


def memory_table(found: Estimate, source: str) -> Table:
    """Return a table of the parts and their sum. `source`: where the launch was read from, in words."""
    plan, launch = found.plan, found.launch
    where = "per GPU" if launch.on_gpu else "per process"
    unit, size = ("GB", GB) if plan.total >= GB else ("MB", GB // 1000)
    title = (
        f"Memory {where}, estimated: {found.model}, N = {found.shape.parameters:,} parameters; "
        f"{describe(launch)} ({source})"
    )
    table = Table(title=title, title_justify="left", header_style="bold", show_footer=True)
    table.add_column("part", "total at most")
    table.add_column("when")
    table.add_column(unit, f"{plan.total / size:,.2f}", justify="right")
    table.add_column("how it is counted", overflow="fold")
    for part in plan.parts:
        table.add_row(
            part.name, WHEN[part.phase], f"{part.bytes / size:,.2f}", Text(part.formula, style="dim")
        )
    return table


def verdict(found: Estimate) -> list[str]:
    """Return sentences that say whether it fits and what to change if not, how many rows decode at once, and
    what was assumed.
    """
    plan, work = found.plan, found.work
    sentences: list[str] = []
    if found.launch.on_gpu:
        size = f"{found.launch.card_bytes / GB:.0f} GB"
        advice = (
            ""
            if plan.fits
            else remedy(found.shape, found.launch, work, found.keys)
            or "a smaller model, or GPUs with more memory"
        )
        sentences.append(
            f"fits in {size}" if plan.fits else f"does not fit in {size}; the most useful change: {advice}"
        )
    if found.decided:
        sentences.append(found.decided)
    wanted = min(work.rows, work.max_rows or work.rows)
    if work.trains and 0 < plan.rows_at_once < wanted:
        sentences.append(f"{plan.rows_at_once} of {wanted} rows decode at once, the others after them")
    return [*sentences, *(f"assumed: {assumption}" for assumption in found.assumptions)]
