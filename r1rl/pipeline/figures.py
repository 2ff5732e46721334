"""The figures of a stage that a person looks at first, read from the summary.json that its command left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from r1rl.monitor.summary import format_estimate


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one model on one benchmark, as an evaluate stage measured it. Estimates are {"value",
    "ci95"}.
    """

    stage: str
    model: str
    benchmark: str
    problems: str
    accuracy: Mapping[str, Any] | None
    tokens: Mapping[str, Any] | None
    no_answer: float | None
    """The share of completions in which no answer was found, a measure of form."""
    main_language: float | None
    """Language consistency: the share of words in a completion's main language."""


def key_figures(summary: Mapping[str, Any]) -> str:
    """Return a few words for the status table: the figures known here that the command's summary has."""
    words = []
    if summary.get("accuracy_after") is not None:
        before = summary.get("accuracy_before")
        arrow = f"{format_estimate(before, percent=True)} -> " if before is not None else ""
        words.append(f"accuracy {arrow}{format_estimate(summary['accuracy_after'], percent=True)}")
    elif isinstance(summary.get("accuracy"), Mapping):
        words.append(f"accuracy {format_estimate(summary['accuracy'], percent=True)}")
    if "scores" in summary:
        models = {score["model"] for score in summary["scores"]}
        benchmarks = {score["benchmark"] for score in summary["scores"]}
        words.append(f"{len(models)} model(s) on {len(benchmarks)} benchmark(s)")
    for key, form in (
        ("num_completions", "{:,} completions"),
        ("rows_read", "{:,} rows read"),
        ("rows_selected", "{:,} selected"),
        ("parameters", "{:,} parameters"),
        ("loss", "loss {:.3f}"),
    ):
        if isinstance(summary.get(key), (int, float)):
            words.append(form.format(summary[key]))
    return ", ".join(words)


def scores(stage: str, summary: Mapping[str, Any]) -> Iterator[Score]:
    """Yield the scores that an evaluate stage left; none for other commands."""
    for figures in summary.get("scores", ()):
        language = figures.get("language_consistency")
        yield Score(
            stage=stage,
            model=figures["model"],
            benchmark=figures["benchmark"],
            problems=f"{figures['num_problems']} x {figures['num_samples']}",
            accuracy=figures.get("accuracy"),
            tokens=figures.get("mean_length"),
            no_answer=(figures.get("rates") or {}).get("extraction_failure"),
            main_language=language["value"] if language is not None else None,
        )
