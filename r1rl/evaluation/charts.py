"""Plain SVG for the report: a bar with its interval, and lines over token limits or training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

COLOURS = ("#1f5fa8", "#c8501e", "#2f8f4e", "#8a4fa3", "#b8860b", "#4a5568")
WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 10, 40
BAR_WIDTH, BAR_HEIGHT = 160, 16


@dataclass(frozen=True, slots=True)
class Point:
    """A value, mostly a share from 0 to 1, at a place on the horizontal axis."""

    x: float
    y: float
    ci95: Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Series:
    """One line."""

    name: str
    points: list[Point]


def interval_bar(estimate: Mapping[str, Any] | None) -> str:
    """Draw a share as a bar from 0 to 1 with its 95 % interval as a line through its end."""
    if estimate is None:
        return ""
    value, interval = estimate["value"], estimate["ci95"]
    middle = BAR_HEIGHT / 2
    whisker = ""
    if interval is not None:
        low, high = (BAR_WIDTH * bound for bound in interval)
        whisker = (
            f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#1c2430" '
            f'stroke-width="2"/>'
        )
    return (
        f'<svg width="{BAR_WIDTH}" height="{BAR_HEIGHT}" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" role="img" '
        f'aria-label="{value:.1%}">'
        f'<rect width="{BAR_WIDTH}" height="{BAR_HEIGHT}" fill="#eef2f6"/>'
        f'<rect width="{BAR_WIDTH * value:.1f}" height="{BAR_HEIGHT}" fill="#9dbfe3"/>{whisker}</svg>'
    )


def line_chart(series: Sequence[Series], title: str, logarithmic: bool = False, percent: bool = True) -> str:
    """Draw values over a number, shares if `percent`; `logarithmic` spaces the horizontal axis by powers of
    two.
    """
    places = sorted({point.x for line in series for point in line.points})
    if not places:
        return '<p class="note">nothing was graded</p>'
    top = _top(max(max(p.y, p.ci95[1] if p.ci95 else 0.0) for line in series for p in line.points), percent)
    scaled = [math.log2(max(place, 1)) if logarithmic else place for place in places]
    first, span = scaled[0], (scaled[-1] - scaled[0]) or 1.0

    def x_of(place: float) -> float:
        return (
            LEFT
            + (WIDTH - LEFT - RIGHT) * ((math.log2(max(place, 1)) if logarithmic else place) - first) / span
        )

    def y_of(share: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share / top)

    parts = [_grid(top, y_of, percent), _ticks(places, x_of)]
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(title)}</text>')
    for index, line in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{x_of(point.x):.1f},{y_of(point.y):.1f}" for point in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for point in line.points:
            x = x_of(point.x)
            if point.ci95:
                low, high = (y_of(bound) for bound in point.ci95)
                parts.append(
                    f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="{colour}" '
                    f'stroke-opacity=".5"/>'
                )
            label = escape(f"{line.name}: {_value(point.y, percent)} at {point.x:g}")
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y_of(point.y):.1f}" r="3" '
                f'fill="{colour}"><title>{label}</title></circle>'
            )
    legend = " ".join(
        f'<span style="color:{COLOURS[index % len(COLOURS)]}">&#9632;</span> {escape(line.name)}'
        for index, line in enumerate(series)
    )
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
    return f'{drawing}<div class="note">{legend}</div>'


def _top(highest: float, percent: bool) -> float:
    """Return the end of the vertical axis: a round number that the highest value does not exceed."""
    if percent:
        return next(bound for bound in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if bound >= min(highest, 1.0))
    power = 10.0 ** math.floor(math.log10(max(highest, 1.0)))
    return next(power * factor for factor in (1, 2, 4, 6, 8, 10) if power * factor >= highest)


def _value(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:.1f}"


def _grid(top: float, y_of: Any, percent: bool) -> str:
    lines = []
    for step in range(5):
        height = top * step / 4
        y = y_of(height)
        label = f"{100 * height:.3g} %" if percent else f"{height:g}"
        lines.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e4e9ef"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(lines)


def _ticks(places: Sequence[float], x_of: Any) -> str:
    every = max(1, math.ceil(len(places) / 7))
    chosen = list(places[::-1][::every])
    return "".join(
        f'<text x="{x_of(place):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{place:g}</text>'
        for place in chosen
    )
