"""The page report.html: one file without any reference to the network, with scores and intervals, curves, and
a browser of completions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from r1rl.evaluation import report_sections as sections
from r1rl.evaluation.report_page import BROWSER, SCRIPT, STYLE
from r1rl.evaluation.results import Comparison, Evaluated, by_benchmark
from r1rl.monitor.progress import shorten

MAX_COMPLETIONS = 4_000
"""Completions in the browser, over all models and benchmarks; the log has the others."""
SHOWN_CHARACTERS = 6_000


def render_report(title: str, evaluated: Sequence[Evaluated], comparisons: Sequence[Comparison]) -> str:
    """Return the whole page."""
    results = by_benchmark([one.result for one in evaluated])
    scored = [result for result in results if not result.is_probe]
    probes = [result for result in results if result.is_probe]
    answered = [one for one in evaluated if not one.result.is_probe]
    parts = [
        _section("Scores", sections.scores(scored)) if scored else "",
        _section("Differences", sections.differences(comparisons)) if comparisons else "",
        _section("Contamination probe", sections.recited(probes)) if probes else "",
        _section("What went wrong", sections.trouble(scored)) if scored else "",
        _section("Right and other completions", sections.portraits(scored)) if scored else "",
        _section("Groups", sections.groups(scored))
        if any(result.figures.get("by_value") for result in scored)
        else "",
        _section("More than one attempt", sections.over_k(scored))
        if any(result.figures["num_samples"] > 1 for result in scored)
        else "",
        _section("Accuracy against the token limit", sections.against_limit(scored)) if scored else "",
        _section("Over training steps", sections.over_steps(answered))
        if sections.has_curve(answered)
        else "",
        _section("Problems", sections.problems(answered)) if answered else "",
        _section("Completions", _browser(evaluated)),
        _section("How it was measured", sections.manifests(results)),
    ]
    # "<" is escaped, so that no completion can end the element; U+2028 and U+2029 are line ends to some
    # parsers.
    data = json.dumps(_rows(evaluated), ensure_ascii=True).replace("<", "\\u003c")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="lead">r1rl evaluate. Intervals are 95 %, over problems.</p>'
        f'{"".join(parts)}<script type="application/json" '
        f'id="data">{data}</script><script>{SCRIPT}</script></body></html>\n'
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _browser(evaluated: Sequence[Evaluated]) -> str:
    total = sum(len(problem.samples) for one in evaluated for problem in one.problems)
    shown = len(_rows(evaluated))
    left_out = (
        ""
        if shown == total
        else f'<p class="note">{shown} of {total} completions; all of them are in the samples files.</p>'
    )
    return left_out + BROWSER


def _rows(evaluated: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """Return the completions of the browser: the first of every result, evenly; those of one problem beside
    each other, model by model.
    """
    share = max(1, MAX_COMPLETIONS // max(1, len(evaluated)))
    by_problem: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in evaluated:
        own = [(problem, sample) for problem in one.problems for sample in problem.samples][:share]
        for problem, sample in own:
            by_problem.setdefault((one.result.benchmark, problem.id), []).append(
                {
                    "model": one.result.model,
                    "benchmark": one.result.benchmark,
                    "id": problem.id,
                    "sample": sample.sample,
                    "problem": shorten(problem.problem, SHOWN_CHARACTERS),
                    "answer": problem.answer,
                    "text": shorten(sample.text, SHOWN_CHARACTERS),
                    "tokens": sample.num_tokens,
                    "truncated": sample.is_truncated,
                    "outcome": sample.outcome,
                    "extracted": sample.extracted,
                }
            )
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in by_problem))
    return [
        row
        for benchmark in benchmarks
        for (name, _), rows in by_problem.items()
        if name == benchmark
        for row in rows
    ]
