"""report.html: one file without any reference to the network. Scores with intervals, curves, and a browser of completions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import yaml

from r1rl.evaluation.charts import Point, Series, interval_bar, line_chart
from r1rl.evaluation.grades import GradedProblem
from r1rl.evaluation.report_page import BROWSER, SCRIPT, STYLE
from r1rl.evaluation.results import Comparison, Result
from r1rl.monitor.progress import shorten
from r1rl.monitor.summary import format_estimate

MAX_COMPLETIONS = 4_000
"""Completions in the browser, over all models and benchmarks; the log has the others."""
SHOWN_CHARACTERS = 6_000


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A result, its graded completions, and where the model stands on a curve."""

    result: Result
    problems: list[GradedProblem]
    run: str | None = None
    step: int | None = None


def render_report(title: str, evaluated: Sequence[Evaluated], comparisons: Sequence[Comparison]) -> str:
    """The whole page."""
    sections = [
        _section("Scores", _scores([one.result for one in evaluated])),
        _section("Differences", _differences(comparisons)) if comparisons else "",
        _section("What went wrong", _trouble([one.result for one in evaluated])),
        _section("Groups", _groups([one.result for one in evaluated])) if any(one.result.figures["by"] for one in evaluated) else "",
        _section("Accuracy against tokens", _against_tokens(evaluated)),
        _section("Over training steps", _over_steps(evaluated)) if _has_curve(evaluated) else "",
        _section("Completions", _browser(evaluated)),
        _section("How it was measured", _manifests([one.result for one in evaluated])),
    ]
    # "<" is escaped, so that no completion can end the element; U+2028 and U+2029 are line ends to some parsers.
    data = json.dumps(_rows(evaluated), ensure_ascii=True).replace("<", "\\u003c")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="lead">r1rl evaluate. Intervals are 95 %, over problems.</p>'
        f'{"".join(sections)}<script type="application/json" id="data">{data}</script><script>{SCRIPT}</script></body></html>\n'
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], first_number: int) -> str:
    """A table of cells that are HTML already; columns from `first_number` on hold numbers."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=number' if place >= first_number else ''}>{cell}</{tag}>" for place, cell in enumerate(cells))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{line("th", header)}</tr></thead><tbody>{body}</tbody></table></div>'


def _scores(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        figures, n = result.figures, result.figures["num_samples"]
        shown = [format_estimate(figures.get(name), percent=True) for name in ("accuracy", f"pass_at_{n}", f"cons_at_{n}")]
        names = [escape(result.benchmark), escape(result.model), interval_bar(figures["accuracy"])]
        rows.append([*names, f"{figures['num_problems']} x {n}", *shown, format_estimate(figures["mean_tokens"], percent=False)])
    return _table(["benchmark", "model", "", "problems x n", "accuracy (avg@n)", "pass@n", "cons@n", "tokens"], rows, 3)


def _differences(comparisons: Sequence[Comparison]) -> str:
    items = []
    for comparison in comparisons:
        reasons = "; ".join(comparison.measured_differently)
        items.append(f"<li>{escape(comparison.sentence())}{escape(f'. Measured differently: {reasons}') if reasons else ''}</li>")
    return f"<ul>{''.join(items)}</ul>"


def _trouble(results: Sequence[Result]) -> str:
    names = ("wrong", "no_answer", "malformed", "undecided", "truncated", "truncated_without_answer")
    header = ["benchmark", "model", *(name.replace("_", " ") for name in names), "tokens r / w", "reflect r / w", "language r / w"]
    rows = []
    for result in results:
        rates, right, wrong = (result.figures[name] for name in ("rates", "correct", "wrong"))
        pairs = [_pair(right, wrong, name, percent) for name, percent in _PORTRAIT]
        rows.append([escape(result.benchmark), escape(result.model), *(f"{100 * rates[name]:.1f} %" for name in names), *pairs])
    note = "Shares of all completions. r / w: right completions and all others that the grader could decide."
    return _table(header, rows, 2) + f'<p class="note">{note}</p>'


_PORTRAIT = (("tokens", False), ("reflection_rate", True), ("language_consistency", True))


def _pair(right: Mapping[str, Any], wrong: Mapping[str, Any], name: str, percent: bool) -> str:
    values = (one[name] for one in (right, wrong))
    return " / ".join("-" if value is None else f"{100 * value:.1f} %" if percent else f"{value:.0f}" for value in values)


def _groups(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        for column, values in result.figures["by"].items():
            for value, group in values.items():
                names = [escape(text) for text in (result.benchmark, result.model, f"{column}: {value}")]
                bar, number = interval_bar(group["accuracy"]), str(group["num_problems"])
                rows.append([*names, bar, number, format_estimate(group["accuracy"], percent=True)])
    return _table(["benchmark", "model", "group", "", "problems", "accuracy"], rows, 4)


def _against_tokens(evaluated: Sequence[Evaluated]) -> str:
    charts = []
    for benchmark, ones in _by_benchmark(evaluated).items():
        series = [
            Series(one.result.model, [Point(limit, value, None) for limit, value in one.result.figures["by_limit"] if value is not None])
            for one in ones
        ]
        charts.append(f"<figure><figcaption>{escape(benchmark)}</figcaption>{line_chart(series, 'token limit', logarithmic=True)}</figure>")
    note = "The accuracy if every completion longer than the limit had been cut off and counted as not right."
    return f'<p class="note">{note}</p><div class="charts">{"".join(charts)}</div>'


def _has_curve(evaluated: Sequence[Evaluated]) -> bool:
    runs = [(one.result.benchmark, one.run) for one in evaluated if one.step is not None]
    return len(runs) > len(set(runs))


def _over_steps(evaluated: Sequence[Evaluated]) -> str:
    charts = []
    for benchmark, ones in _by_benchmark([one for one in evaluated if one.step is not None]).items():
        series = []
        for run in dict.fromkeys(one.run for one in ones):
            own = sorted((one for one in ones if one.run == run), key=lambda one: one.step or 0)
            figures = [(one.step or 0, one.result.figures["accuracy"]) for one in own]
            points = [Point(step, figure["value"], figure["ci95"]) for step, figure in figures if figure]
            series.append(Series(run or "", points))
        charts.append(f"<figure><figcaption>{escape(benchmark)}</figcaption>{line_chart(series, 'step')}</figure>")
    return f'<div class="charts">{"".join(charts)}</div>'


def _by_benchmark(evaluated: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    found: dict[str, list[Evaluated]] = {}
    for one in evaluated:
        found.setdefault(one.result.benchmark, []).append(one)
    return found


def _browser(evaluated: Sequence[Evaluated]) -> str:
    total = sum(len(problem.samples) for one in evaluated for problem in one.problems)
    shown = len(_rows(evaluated))
    left_out = "" if shown == total else f'<p class="note">{shown} of {total} completions; all of them are in the samples files.</p>'
    return left_out + BROWSER


def _rows(evaluated: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """The completions of the browser, evenly from all results, whole problems first come first."""
    share = max(1, MAX_COMPLETIONS // max(1, len(evaluated)))
    rows = []
    for one in evaluated:
        own = [(problem, sample) for problem in one.problems for sample in problem.samples][:share]
        for problem, sample in own:
            rows.append(
                {
                    "model": one.result.model,
                    "benchmark": one.result.benchmark,
                    "id": problem.id,
                    "sample": sample.sample,
                    "problem": shorten(problem.problem, SHOWN_CHARACTERS),
                    "answer": problem.answer,
                    "text": shorten(sample.text, SHOWN_CHARACTERS),
                    "tokens": sample.tokens,
                    "truncated": sample.is_truncated,
                    "outcome": sample.outcome,
                    "extracted": sample.extracted,
                }
            )
    return rows


def _manifests(results: Sequence[Result]) -> str:
    blocks = []
    for result in results:
        text = yaml.safe_dump(result.manifest, sort_keys=False, allow_unicode=True, width=110)
        blocks.append(f"<details><summary>{escape(f'{result.benchmark}, {result.model}')}</summary><pre>{escape(text)}</pre></details>")
    return "".join(blocks)
