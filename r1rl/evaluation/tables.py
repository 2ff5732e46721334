"""What an evaluation prints: the scores, what went wrong beside them, and the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from r1rl.evaluation.results import Comparison, Result
from r1rl.monitor.summary import format_estimate


def print_scores(console: Console, results: Sequence[Result], comparisons: Sequence[Comparison]) -> None:
    """The tables of an evaluation and one sentence for each difference."""
    console.print(score_table(results))
    console.print(trouble_table(results))
    for result in results:
        if result.figures["by"]:
            console.print(group_table(result))
    for comparison in comparisons:
        console.print(Text(comparison.sentence()))
        for reason in comparison.measured_differently:
            console.print(Text(f"  measured differently: {reason}", style="yellow"))


def score_table(results: Sequence[Result]) -> Table:
    """Accuracy, pass@n and cons@n with 95 % intervals over problems."""
    table = Table(title="Scores (95 % intervals over problems)", title_justify="left", header_style="bold")
    for title, justify in (("benchmark", "left"), ("model", "left"), ("problems", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for title in ("accuracy (avg@n)", "pass@n", "cons@n", "tokens"):
        table.add_column(title, justify="right")
    for result in results:
        figures = result.figures
        n = figures["num_samples"]
        table.add_row(
            Text(result.benchmark),
            Text(result.model),
            f"{figures['num_problems']} x {n}",
            format_estimate(figures["accuracy"], percent=True),
            format_estimate(figures.get(f"pass_at_{n}"), percent=True),
            format_estimate(figures.get(f"cons_at_{n}"), percent=True),
            format_estimate(figures["mean_tokens"], percent=False),
        )
    return table


def trouble_table(results: Sequence[Result]) -> Table:
    """Shares of all completions that a score hides, and how right and wrong completions differ."""
    table = Table(title="What went wrong (shares of all completions)", title_justify="left", header_style="bold")
    table.add_column("benchmark")
    table.add_column("model")
    for title in ("wrong", "no answer", "malformed", "undecided", "truncated", "tokens: right / wrong", "reflect: r / w", "language: r / w"):
        table.add_column(title, justify="right")
    for result in results:
        rates, right, wrong = result.figures["rates"], result.figures["correct"], result.figures["wrong"]
        table.add_row(
            Text(result.benchmark),
            Text(result.model),
            *(f"{rates[name]:.1%}" for name in ("wrong", "no_answer", "malformed", "undecided", "truncated")),
            _both(right, wrong, "tokens", "{:.0f}"),
            _both(right, wrong, "reflection_rate", "{:.1%}"),
            _both(right, wrong, "language_consistency", "{:.1%}"),
        )
    return table


def group_table(result: Result) -> Table:
    """The accuracy within each group of problems."""
    table = Table(title=f"{result.benchmark}, {result.model}", title_justify="left", header_style="bold")
    table.add_column("group")
    table.add_column("problems", justify="right")
    table.add_column("accuracy", justify="right")
    for column, values in result.figures["by"].items():
        for value, group in values.items():
            table.add_row(Text(f"{column}: {value}"), str(group["num_problems"]), format_estimate(group["accuracy"], percent=True))
    return table


def _both(right: Mapping[str, Any], wrong: Mapping[str, Any], name: str, form: str) -> str:
    return " / ".join("-" if one[name] is None else form.format(one[name]) for one in (right, wrong))
