"""The report of a selection: the rows in and out of every step, the reasons, and examples of the rows that
were removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from r1rl.monitor.progress import shorten
from r1rl.select.grading import PassRate
from r1rl.select.rows import CompletionRow, LoadedRows

SHOWN_EXAMPLES = 3
EXAMPLE_CHARACTERS = 400
SHOWN_REASONS = 4
SHOWN_PAIRS = 20
BINS = 10


@dataclass(slots=True)
class StepReport:
    """One step: the rows that came in, those that went out, and why the others did not."""

    name: str
    explanation: str
    rows_in: int
    rows_out: int
    reasons: dict[str, int]
    """The number of removed rows by reason, the commonest first, without the part of a reason after
    "like".
    """
    examples: list[dict[str, str]] = field(default_factory=list)


def report_step(
    name: str, explanation: str, rows: Sequence[CompletionRow], reasons: Sequence[str | None]
) -> StepReport:
    """Return the report of a step that gave each row a reason, or None to keep it.

    Examples come from different reasons first.
    """
    removed = [(row, reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None]
    counts = Counter(kind_of(reason) for _, reason in removed)
    seen: Counter[str] = Counter()
    ranked = []
    for place, (_, reason) in enumerate(removed):
        ranked.append((seen[kind_of(reason)], place))
        seen[kind_of(reason)] += 1
    examples = [_example(*removed[place]) for _, place in sorted(ranked)[:SHOWN_EXAMPLES]]
    return StepReport(
        name, explanation, len(rows), len(rows) - len(removed), dict(counts.most_common()), examples
    )


def kind_of(reason: str) -> str:
    """Return the kind under which a reason is counted; all reasons that name another row count as one
    kind.
    """
    return "like an earlier one" if reason.startswith("like ") else reason


def _example(row: CompletionRow, reason: str) -> dict[str, str]:
    return {
        "reason": reason,
        "where": row.place,
        "problem": shorten(row.problem, EXAMPLE_CHARACTERS),
        "completion": shorten(row.text, EXAMPLE_CHARACTERS),
    }


def build_report(
    loaded: LoadedRows,
    steps: Sequence[StepReport],
    selected: Sequence[CompletionRow],
    rates: dict[str, PassRate],
    num_problems_kept: int,
    contaminated: Sequence[dict[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the whole report as JSON values."""
    kept = Counter(row.source for row in selected)
    outcomes = Counter(row.outcome for row in loaded.rows if row.outcome is not None)
    values = [rate.value for rate in rates.values() if rate.value is not None]
    return {
        "rows_read": len(loaded.rows),
        "rows_unusable": sum(sum(faults.values()) for faults in loaded.bad.values()),
        "rows_selected": len(selected),
        "sources": {
            name: {"read": read, "unusable": dict(loaded.bad.get(name, {})), "selected": kept[name]}
            for name, read in loaded.num_read.items()
        },
        "unusable_examples": loaded.bad_examples,
        "outcomes": dict(outcomes.most_common()),
        "problems": {
            "read": len({row.problem_key for row in loaded.rows}),
            "with_a_pass_rate": len(values),
            "in_problems_file": num_problems_kept,
            "selected": len({row.problem_key for row in selected}),
            "mean_pass_rate": sum(values) / len(values) if values else None,
            "by_pass_rate": _histogram(values),
        },
        "steps": [asdict(step) for step in steps],
        "contaminated": list(contaminated),
        "notes": list(notes),
    }


def _histogram(values: Sequence[float]) -> dict[str, int]:
    """Count problems by pass rate: never right, always right, and tenths between."""
    edges = {0.0: "never", 1.0: "always"}
    counts = Counter(edges.get(value) or f"{min(int(value * BINS), BINS - 1) / BINS:.1f}" for value in values)
    names = ["never", *(f"{place / BINS:.1f}" for place in range(BINS)), "always"]
    return {name: counts[name] for name in names if counts[name]}


def step_table(report: dict[str, Any]) -> Table:
    """Return the table of the steps for the terminal."""
    table = Table(title="What each step removed", title_justify="left", header_style="bold")
    table.add_column("step", overflow="fold")
    for title in ("in", "out", "removed"):
        table.add_column(title, justify="right")
    table.add_column("why", overflow="fold")
    for step in report["steps"]:
        removed = step["rows_in"] - step["rows_out"]
        table.add_row(
            step["name"],
            str(step["rows_in"]),
            str(step["rows_out"]),
            str(removed),
            Text(_why(step["reasons"])),
        )
    return table


def _why(reasons: dict[str, int]) -> str:
    shown = [f"{name} {count}" for name, count in list(reasons.items())[:SHOWN_REASONS]]
    rest = sum(list(reasons.values())[SHOWN_REASONS:])
    return ", ".join([*shown, f"others {rest}"] if rest else shown)


def print_report(console: Console, report: dict[str, Any]) -> None:
    """Print the terminal's part of the report."""
    console.print(step_table(report))
    for note in report["notes"]:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    problems = report["problems"]
    if problems["with_a_pass_rate"]:
        rates = ", ".join(f"{name}: {count}" for name, count in problems["by_pass_rate"].items())
        console.print(Text(f"pass rates of {problems['with_a_pass_rate']} problems: {rates}"), soft_wrap=True)
    console.print(
        Text(
            f"{report['rows_selected']} of {report['rows_read']} rows selected, of {problems['selected']} "
            f"problems"
        )
    )


def markdown_report(run_name: str, report: dict[str, Any]) -> str:
    """Return the whole report as a page."""
    problems = report["problems"]
    sources = [
        (name, one["read"], sum(one["unusable"].values()), one["selected"])
        for name, one in report["sources"].items()
    ]
    steps = [
        (step["name"], step["explanation"], step["rows_in"], step["rows_out"], _why(step["reasons"]))
        for step in report["steps"]
    ]
    lines = [
        f"# Selection {run_name}",
        "",
        f"{report['rows_selected']} of {report['rows_read']} rows selected; {report['rows_unusable']} more "
        f"could not be used.",
        f"{problems['selected']} of {problems['read']} problems have a selected row.",
        "",
        *_markdown_table(("source", "read", "unusable", "selected"), sources),
        "## Steps",
        "",
        *_markdown_table(("step", "what", "in", "out", "why"), steps),
    ]
    if report["outcomes"]:
        lines += ["## Outcomes", "", *_markdown_table(("outcome", "rows"), list(report["outcomes"].items()))]
    if problems["with_a_pass_rate"]:
        lines += [
            "## Pass rates",
            "",
            *_markdown_table(("from", "problems"), list(problems["by_pass_rate"].items())),
        ]
    for note in report["notes"]:
        lines += [f"- {note}"]
    if report["contaminated"]:
        pairs = [
            (one["row"], one["benchmark"], one["id"], f"{one['score']:.2f}", one["shared"])
            for one in report["contaminated"]
        ]
        titles = ("row", "benchmark", "id", "score", "shared text")
        lines += ["", f"## Contaminated: {len(pairs)} problems", ""]
        lines += _markdown_table(titles, pairs[:SHOWN_PAIRS])
        lines += (
            [f"{len(pairs) - SHOWN_PAIRS} more are in report.json.", ""] if len(pairs) > SHOWN_PAIRS else []
        )
    for step in report["steps"]:
        if step["examples"]:
            lines += ["", f"## Removed by {step['name']}", ""]
        for example in step["examples"]:
            lines += [f"**{example['reason']}** ({example['where']})", ""]
            lines += [*_quoted(example["problem"]), ">", *_quoted(example["completion"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[" ".join(str(value).split()).replace("|", "\\|") for value in row] for row in rows]
    return [
        f"| {' | '.join(titles)} |",
        "|" + "---|" * len(titles),
        *(f"| {' | '.join(row)} |" for row in cells),
        "",
    ]


def _quoted(text: str) -> list[str]:
    return [f">     {line}" for line in text.split("\n")]
