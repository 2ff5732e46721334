"""The output of an evaluation: the scores, what went wrong beside them, and the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from r1rl.evaluation.results import Comparison, Result, by_benchmark
from r1rl.monitor.summary import format_estimate


def print_scores(console: Console, results: Sequence[Result], comparisons: Sequence[Comparison]) -> None:
    """Print the tables of an evaluation and one sentence for each difference."""
    results = by_benchmark(results)
    scored, probes = (
        [result for result in results if not result.is_probe],
        [result for result in results if result.is_probe],
    )
    if scored:
        console.print(score_table(scored))
        console.print(trouble_table(scored))
        console.print(readability_table(scored))
        console.print(portrait_table(scored))
    if probes:
        console.print(probe_table(probes))
    for result in scored:
        if result.figures.get("by_value"):
            console.print(group_table(result))
    for comparison in comparisons:
        console.print(Text(comparison.sentence()))
        for reason in comparison.measured_differently:
            console.print(Text(f"  measured differently: {reason}", style="yellow"))


def score_table(results: Sequence[Result]) -> Table:
    """Return accuracy, pass@n and cons@n with 95 % intervals over problems."""
    table = _table(
        "Scores (95 % intervals over problems)", "problems", "accuracy (avg@n)", "pass@n", "cons@n", "tokens"
    )
    for result in results:
        figures = result.figures
        n = figures["num_samples"]
        table.add_row(
            Text(result.benchmark),
            Text(result.model),
            f"{figures['num_problems']} x {n}",
            format_estimate(figures["accuracy"], percent=True),
            *(format_estimate(estimate, percent=True) for estimate in of_several(figures)),
            format_estimate(figures["mean_length"], percent=False),
        )
    return table


def of_several(figures: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return pass@n and cons@n of n completions; None for both where a problem has one completion."""
    n = figures["num_samples"]
    return (figures[f"pass_at_{n}"], figures[f"cons_at_{n}"]) if n > 1 else (None, None)


def trouble_table(results: Sequence[Result]) -> Table:
    """Return what a score hides, as shares of all completions."""
    table = _table(
        "What went wrong (shares of all completions)",
        "wrong",
        "no answer",
        "malformed",
        "undecided",
        "truncated",
    )
    for result in results:
        rates = result.figures["rates"]
        shares = [rates[name] for name in ("wrong", "no_answer", "malformed", "undecided")]
        shares.append(result.figures["truncated_rate"]["value"])
        table.add_row(
            Text(result.benchmark), Text(result.model), *(f"{100 * share:.1f} %" for share in shares)
        )
    return table


def readability_table(results: Sequence[Result]) -> Table:
    """Return how well the completions can be read."""
    table = _table("Readability (95 % intervals over problems)", "well-formed", "in the problem's language")
    for result in results:
        shares = (
            format_estimate(result.figures[name], percent=True)
            for name in ("well_formed_rate", "asked_language")
        )
        table.add_row(Text(result.benchmark), Text(result.model), *shares)
    return table


def portrait_table(results: Sequence[Result]) -> Table:
    """Return how right completions differ from all others that the grader could decide."""
    table = _table("Right / other completions", "number", "tokens", "reflect", "main language")
    for result in results:
        right, wrong = result.figures["correct"], result.figures["wrong"]
        forms = {
            "count": "{}",
            "mean_length": "{:.0f}",
            "reflection_rate": "{:.0%}",
            "language_consistency": "{:.0%}",
        }
        table.add_row(
            Text(result.benchmark),
            Text(result.model),
            *(_both(right, wrong, name, form) for name, form in forms.items()),
        )
    return table


def probe_table(results: Sequence[Result]) -> Table:
    """Return the scores of the contamination probe."""
    table = _table(
        "Contamination probe: problems whose rest the model continues word for word", "problems", "share"
    )
    for result in results:
        share = format_estimate(result.figures["accuracy"], percent=True)
        table.add_row(Text(result.benchmark), Text(result.model), str(result.figures["num_problems"]), share)
    return table


def group_table(result: Result) -> Table:
    """Return the accuracy within each group of problems."""
    table = Table(title=f"{result.benchmark}, {result.model}", title_justify="left", header_style="bold")
    table.add_column("group")
    for title in ("problems", "accuracy"):
        table.add_column(title, justify="right", overflow="fold")
    for column, values in result.figures["by_value"].items():
        for value, group in values.items():
            table.add_row(
                Text(f"{column}: {value}"),
                str(group["num_problems"]),
                format_estimate(group["accuracy"], percent=True),
            )
    return table


def _table(title: str, *numbers: str) -> Table:
    """Return a table with a line for each benchmark and model."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("benchmark", "model"):
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _both(right: Mapping[str, Any], wrong: Mapping[str, Any], name: str, form: str) -> str:
    return " / ".join("-" if one[name] is None else form.format(one[name]) for one in (right, wrong))
