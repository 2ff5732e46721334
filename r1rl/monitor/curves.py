"""The file curves.png: the course of a run, as small multiples over its steps."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from r1rl.monitor import metric_names as metrics

TRAINING_COLOUR = "#1f5fa8"
HELD_OUT_COLOUR = "#c8501e"


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the small plots."""

    title: str
    metric: str
    """The panel's name in metrics.jsonl."""
    figure: str | None = None
    """The panel's name among an evaluation's figures."""
    percent: bool = False
    absent: str = "not measured"
    """The text of the panel if no step has the metric."""


PANELS = (
    Panel("Reward", metrics.REWARD),
    Panel("Accuracy", metrics.ACCURACY, "accuracy", percent=True, absent="no outcome reward"),
    Panel("Completion length (tokens)", metrics.MEAN_LENGTH, "mean_length"),
    Panel("Completions that reflect", metrics.REFLECTION_RATE, "reflection_rate", percent=True),
    Panel("Entropy (nats per token)", metrics.ENTROPY),
    Panel("KL to the reference", metrics.KL, absent="not measured: algorithm.beta is 0"),
)


class CurvesFigure(Figure):
    """A figure that a notebook shows by itself: it needs neither pyplot nor its settings."""

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG file."""
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def smoothed(values: Sequence[float], reach: int) -> list[float]:
    """Return the mean over the `reach` values before and after each one, over fewer towards the ends.

    The window is symmetric, so that no trend is shifted.
    """
    result = []
    for place in range(len(values)):
        around = min(reach, place, len(values) - 1 - place)
        result.append(fmean(values[place - around : place + around + 1]))
    return result


def draw_curves(
    records: Sequence[Mapping[str, Any]],
    evaluations: Mapping[int, Mapping[str, Any]],
    title: str,
    panels: Sequence[Panel] = PANELS,
) -> CurvesFigure:
    """Return the figure of a run, with six panels.

    `records` are the lines of metrics.jsonl. `evaluations` maps a step to the figures of the evaluation made
    after it ({"accuracy": {"value": 0.4, "ci95": [0.35, 0.45]}, ...}), drawn as points with their 95 %
    intervals.
    """
    figure = CurvesFigure(figsize=(12.0, 6.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    for axes, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
        _draw_panel(axes, panel, records, evaluations)
    figure.supxlabel("step", fontsize=10)
    return figure


def save_curves(
    path: Path,
    records: Sequence[Mapping[str, Any]],
    evaluations: Mapping[int, Mapping[str, Any]],
    title: str,
    panels: Sequence[Panel] = PANELS,
) -> None:
    """Write `draw_curves` to a PNG file, replaced in one move."""
    partial = path.with_name(f".{path.name}.partial")
    draw_curves(records, evaluations, title, panels).savefig(partial, format="png")
    partial.replace(path)


def _draw_panel(
    axes: Axes,
    panel: Panel,
    records: Sequence[Mapping[str, Any]],
    evaluations: Mapping[int, Mapping[str, Any]],
) -> None:
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.grid(True, color="0.92", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8)
    points = [
        (record[metrics.STEP], record[panel.metric])
        for record in records
        if record.get(panel.metric) is not None
    ]
    if points:
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=TRAINING_COLOUR, alpha=0.25, linewidth=0.8)
        trend = smoothed(values, max(1, len(values) // 30))
        axes.plot(steps, trend, color=TRAINING_COLOUR, linewidth=1.8, label="training batches, smoothed")
    by_step = sorted(evaluations.items())
    held_out = [
        (step, figures[panel.figure])
        for step, figures in by_step
        if panel.figure and figures.get(panel.figure) is not None
    ]
    if held_out:
        _draw_held_out(axes, held_out)
    if not points and not held_out:
        axes.text(
            0.5,
            0.5,
            panel.absent,
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=9,
            color="0.5",
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return
    if panel.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
        axes.set_ylim(bottom=0.0)
    if held_out:
        axes.legend(fontsize=7, frameon=False, loc="best")


def _draw_held_out(axes: Axes, points: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
    """Draw points with error bars; a figure without an interval (one problem only) has no bar."""
    steps = [step for step, _ in points]
    values = [estimate["value"] for _, estimate in points]
    intervals = [
        estimate.get("ci95") or (value, value) for value, (_, estimate) in zip(values, points, strict=True)
    ]
    below = [max(0.0, value - low) for value, (low, _) in zip(values, intervals, strict=True)]
    above = [max(0.0, high - value) for value, (_, high) in zip(values, intervals, strict=True)]
    axes.errorbar(
        steps,
        values,
        yerr=[below, above],
        fmt="o-",
        color=HELD_OUT_COLOUR,
        markersize=4,
        linewidth=1.0,
        capsize=3,
        label="held out, 95 % interval",
    )
