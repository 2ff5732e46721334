"""The sections of report.html as HTML: tables and charts. Texts of models and data are escaped here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from r1rl.evaluation.charts import Point, Series, interval_bar, line_chart
from r1rl.evaluation.results import Comparison, Evaluated, Result
from r1rl.evaluation.tables import of_several
from r1rl.monitor.summary import format_estimate
from r1rl.scoring.estimators import powers_of_two

MAX_PROBLEMS = 1_000
"""Problems of a benchmark that its table lists; result.json has all."""
SHOWN_PROBLEM = 120


def scores(results: Sequence[Result]) -> str:
    """Render accuracy, pass@n, cons@n and length."""
    rows = []
    for result in results:
        figures, n = result.figures, result.figures["num_samples"]
        shown = [
            format_estimate(estimate, percent=True)
            for estimate in (figures["accuracy"], *of_several(figures))
        ]
        names = [escape(result.benchmark), escape(result.model), interval_bar(figures["accuracy"])]
        rows.append(
            [
                *names,
                f"{figures['num_problems']} x {n}",
                *shown,
                format_estimate(figures["mean_length"], percent=False),
            ]
        )
    note = (
        "avg@n: the mean over problems of the share of right completions. pass@n: at least one of n is "
        "right. cons@n: the majority is."
    )
    return _table(
        ["benchmark", "model", "", "problems x n", "accuracy (avg@n)", "pass@n", "cons@n", "tokens"], rows, 3
    ) + _note(note)


def differences(comparisons: Sequence[Comparison]) -> str:
    """Render one sentence for each pair of models on a benchmark."""
    items = []
    for comparison in comparisons:
        reasons = "; ".join(comparison.measured_differently)
        difference = escape(f". Measured differently: {reasons}") if reasons else ""
        items.append(f"<li>{escape(comparison.sentence())}{difference}</li>")
    return f"<ul>{''.join(items)}</ul>"


def recited(results: Sequence[Result]) -> str:
    """Render the contamination probe."""
    rows = []
    for result in results:
        share = result.figures["accuracy"]
        names = [escape(result.benchmark), escape(result.model), interval_bar(share)]
        rows.append([*names, str(result.figures["num_problems"]), format_estimate(share, percent=True)])
    note = (
        "How often the model, shown only the beginning of a problem, goes on with exactly the rest of it "
        "(greedy decoding). A share "
        "well above that of fresh problems says that it has seen the benchmark."
    )
    return _table(["benchmark", "model", "", "problems", "continued word for word"], rows, 3) + _note(note)


def trouble(results: Sequence[Result]) -> str:
    """Render what a score hides, as shares of all completions."""
    rows = []
    for result in results:
        rates = result.figures["rates"]
        shares = [rates[name] for name in ("wrong", "no_answer", "malformed", "undecided")]
        shares += [result.figures["truncated_rate"]["value"], rates["truncated_without_answer"]]
        rows.append(
            [escape(result.benchmark), escape(result.model), *(f"{100 * share:.1f} %" for share in shares)]
        )
    note = (
        "Shares of all completions. Undecided (the grader ran out of time or could not read the gold "
        "answer) is in no score; "
        "truncated completions are in the other columns too."
    )
    header = [
        "benchmark",
        "model",
        "wrong",
        "no answer",
        "malformed",
        "undecided",
        "truncated",
        "truncated, no answer",
    ]
    return _table(header, rows, 2) + _note(note)


def portraits(results: Sequence[Result]) -> str:
    """Render how right completions differ from the others."""
    rows = []
    for result in results:
        for name, title in (("correct", "right"), ("wrong", "other")):
            one = result.figures[name]
            shown = [
                _number(one["mean_length"]),
                _percent(one["reflection_rate"]),
                _percent(one["language_consistency"]),
            ]
            rows.append([escape(result.benchmark), escape(result.model), title, str(one["count"]), *shown])
    note = (
        "Other: all that the grader could decide and that are not right. Reflecting: words of checking or "
        "starting again. Main "
        "language: the share of words in the completion's commonest language."
    )
    return _table(
        ["benchmark", "model", "completions", "number", "tokens", "reflecting", "main language"], rows, 3
    ) + _note(note)


def groups(results: Sequence[Result]) -> str:
    """Render the accuracy within each value of the group_by columns, a column for each model."""
    blocks = []
    for benchmark, ones in _by_benchmark(results).items():
        for column in dict.fromkeys(column for one in ones for column in one.figures.get("by_value", {})):
            values = dict.fromkeys(
                value for one in ones for value in one.figures.get("by_value", {}).get(column, {})
            )
            rows = []
            for value in values:
                found = [one.figures.get("by_value", {}).get(column, {}).get(value) for one in ones]
                count = next(group["num_problems"] for group in found if group)
                rows.append(
                    [
                        escape(value),
                        str(count),
                        *(format_estimate(group and group["accuracy"], percent=True) for group in found),
                    ]
                )
            header = [escape(column), "problems", *(escape(one.model) for one in ones)]
            blocks.append(f"<h3>{escape(f'{benchmark} by {column}')}</h3>{_table(header, rows, 1)}")
    return "".join(blocks)


def over_k(results: Sequence[Result]) -> str:
    """Render pass@k and cons@k over k."""
    charts = []
    for benchmark, ones in _by_benchmark(results).items():
        for title, name in (("pass@k", "pass_at"), ("cons@k", "cons_at")):
            series = []
            for one in ones:
                figures = {
                    1: one.figures["accuracy"],
                    **{k: one.figures.get(f"{name}_{k}") for k in _ks(one) if k > 1},
                }
                series.append(
                    Series(
                        one.model,
                        [
                            Point(k, figure["value"], figure["ci95"])
                            for k, figure in figures.items()
                            if figure
                        ],
                    )
                )
            if any(len(line.points) > 1 for line in series):
                charts.append(_chart(f"{benchmark}, {title}", series, "k", logarithmic=True))
    note = "Expectations over k of the n completions. At k = 1 both are the accuracy."
    return _note(note) + f'<div class="charts">{"".join(charts)}</div>'


def against_limit(results: Sequence[Result]) -> str:
    """Render the score at every lower token limit: charts, and the figures in a table."""
    charts, rows = [], []
    is_bound = False
    for benchmark, ones in _by_benchmark(results).items():
        series = []
        for one in ones:
            points = []
            for entry in one.figures["by_limit"]:
                bound = entry["is_lower_bound"]
                is_bound |= bound
                if entry["accuracy"]:
                    points.append(
                        Point(entry["limit"], entry["accuracy"]["value"], entry["accuracy"]["ci95"])
                    )
                value = format_estimate(entry["accuracy"], percent=True)
                names = [escape(benchmark), escape(one.model), str(entry["limit"])]
                rows.append(
                    [*names, f"at least {value}" if bound else value, _percent(entry["truncated_rate"])]
                )
            series.append(Series(one.model, points))
        charts.append(_chart(benchmark, series, "token limit", logarithmic=True))
    note = "What a lower limit would have given: the same completions, cut off there and graded again."
    if is_bound:
        note += (
            " Where a server does not tell its tokens, a completion that would have been cut counts as not "
            "right: a lower bound."
        )
    table = _table(["benchmark", "model", "token limit", "accuracy", "cut off"], rows, 2)
    figures = f"<details><summary>The figures</summary>{table}</details>"
    return f'{_note(note)}<div class="charts">{"".join(charts)}</div>{figures}'


def has_curve(evaluated: Sequence[Evaluated]) -> bool:
    """Return whether some run has several steps on a benchmark."""
    runs = [(one.result.benchmark, one.run) for one in evaluated if one.step is not None]
    return len(runs) > len(set(runs))


def over_steps(evaluated: Sequence[Evaluated]) -> str:
    """Render accuracy and length over the steps of runs."""
    charts = []
    found: dict[str, list[Evaluated]] = {}
    for one in evaluated:
        if one.step is not None:
            found.setdefault(one.result.benchmark, []).append(one)
    for benchmark, ones in found.items():
        for title, name, percent in (
            (benchmark, "accuracy", True),
            (f"{benchmark}, mean tokens", "mean_length", False),
        ):
            series = []
            for run in dict.fromkeys(one.run for one in ones):
                own = sorted((one for one in ones if one.run == run), key=lambda one: one.step or 0)
                figures = [(one.step or 0, one.result.figures[name]) for one in own]
                series.append(
                    Series(
                        run or "",
                        [Point(step, figure["value"], figure["ci95"]) for step, figure in figures if figure],
                    )
                )
            charts.append(_chart(title, series, "step", percent=percent))
    return f'<div class="charts">{"".join(charts)}</div>'


def problems(evaluated: Sequence[Evaluated]) -> str:
    """Render each benchmark's problems, those first that the models solve least, with every model's count and
    what went wrong.
    """
    blocks = []
    found: dict[str, list[Evaluated]] = {}
    for one in evaluated:
        found.setdefault(one.result.benchmark, []).append(one)
    for benchmark, ones in found.items():
        texts = {problem.id: problem.problem for one in ones for problem in one.problems}
        by_id = [{row["id"]: row for row in one.result.problems} for one in ones]
        solved = {
            identity: sum((own[identity]["accuracy"] or 0.0) for own in by_id if identity in own)
            for identity in texts
        }
        shown = sorted(texts, key=lambda identity: solved[identity])[:MAX_PROBLEMS]
        rows = [
            [
                f'<button type="button" class="problem" '
                f'data-benchmark="{escape(benchmark)}">{escape(identity)}</button>'
                f'<div class="text">{escape(_beginning(texts[identity]))}</div>',
                *(_tally(own.get(identity)) for own in by_id),
            ]
            for identity in shown
        ]
        count = (
            f"{len(texts)} problems"
            if len(shown) == len(texts)
            else f"the {len(shown)} hardest of {len(texts)} problems"
        )
        table = _table(["problem", *(escape(one.result.model) for one in ones)], rows, 1)
        blocks.append(f"<details><summary>{escape(f'{benchmark}: {count}')}</summary>{table}</details>")
    note = (
        "Right completions of each problem, and how the others ended. A click on a problem shows its "
        "completions below."
    )
    return _note(note) + "".join(blocks)


def manifests(results: Sequence[Result]) -> str:
    """Render how every score was measured."""
    blocks = []
    for result in results:
        text = yaml.safe_dump(result.manifest, sort_keys=False, allow_unicode=True, width=110)
        title = escape(f"{result.benchmark}, {result.model}")
        blocks.append(f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>")
    return "".join(blocks)


def _tally(row: Mapping[str, Any] | None) -> str:
    """Return "1/4", and below it what the others were: "2 wrong, 1 no answer"."""
    if row is None:
        return "-"
    outcomes = Counter(row["outcomes"])
    others = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in outcomes.items() if name != "correct"
    )
    cut = f"; {row['truncated']} truncated" if row["truncated"] else ""
    return f"{outcomes['correct']}/{outcomes.total()}" + (
        f'<div class="note">{others}{cut}</div>' if others else ""
    )


def _ks(result: Result) -> list[int]:
    return powers_of_two(result.figures["num_samples"])


def _by_benchmark(results: Sequence[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.benchmark, []).append(result)
    return found


def _chart(
    caption: str, series: Sequence[Series], axis: str, logarithmic: bool = False, percent: bool = True
) -> str:
    chart = line_chart(series, axis, logarithmic, percent)
    return f"<figure><figcaption>{escape(caption)}</figcaption>{chart}</figure>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], first_number: int) -> str:
    """Render a table of cells that are HTML already; columns from `first_number` on hold numbers."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if place >= first_number else ''}>{cell}</{tag}>"
            for place, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{line('th', header)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN_PROBLEM else text[:SHOWN_PROBLEM].rstrip() + " \u2026"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
