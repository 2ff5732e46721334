"""The tables of a pipeline: plan, state of its stages and scores, on the terminal and in report.md."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from rich.table import Table
from rich.text import Text

from r1rl.monitor.progress import format_seconds
from r1rl.monitor.summary import format_estimate
from r1rl.pipeline.figures import Score, key_figures, scores
from r1rl.pipeline.plan import Action, Decision
from r1rl.pipeline.stage import Stage
from r1rl.pipeline.state import PipelineState, Record

COLOURS = {
    "run": "cyan", "resume": "yellow", "note": "green", "skip": "dim",
    "finished": "green", "failed": "red", "interrupted": "yellow", "outdated": "yellow",
}  # fmt: skip
"""The colours of a stage's planned action and of its state."""
STATUS_COLUMNS = ("stage", "command", "state", "why", "time", "key figures")
SCORE_COLUMNS = (
    "benchmark",
    "model",
    "problems",
    "accuracy (95 % interval)",
    "tokens",
    "no answer",
    "main language",
)
Row = tuple[str, ...]


def plan_table(plan: Sequence[Decision], state: PipelineState) -> Table:
    """Return the table of what would be done with each stage, the reason, and the expected cost."""
    table = _table("Plan", ("stage", "command", "plan", "why", "expected cost", "last time"))
    for decision in plan:
        record = state.records.get(decision.stage.name)
        is_done = decision.action in (Action.SKIP, Action.NOTE)
        cost = "" if is_done else str(decision.stage.record.cost(decision.recipe))
        last = _last_seconds(record)
        cells = (decision.stage.name, decision.stage.command, decision.action.value, decision.why, cost)
        table.add_row(*_cells((*cells, "" if last is None else format_seconds(last)), coloured=2))
    return table


def _last_seconds(record: Record | None) -> float | None:
    """Return the seconds that the stage took when it was finished last."""
    if record is None:
        return None
    return record.seconds if record.state == "finished" else record.former_seconds


def status_rows(plan: Sequence[Decision], state: PipelineState, reached: Container[str]) -> list[Row]:
    """Return a row of STATUS_COLUMNS for each stage. `reached`: the stages whose turn has come since the plan
    was made.
    """
    rows: list[Row] = []
    for decision in plan:
        record = state.records.get(decision.stage.name)
        current = decision.action is Action.SKIP or decision.stage.name in reached
        name = "waiting" if record is None else record.state if current else "outdated"
        seconds = "" if record is None else format_seconds(record.seconds)
        figures = key_figures(record.summary) if record is not None and name == "finished" else ""
        rows.append((decision.stage.name, decision.stage.command, name, decision.why, seconds, figures))
    return rows


def status_table(rows: Iterable[Row]) -> Table:
    """Return the table of the stages' states."""
    table = _table("Stages", STATUS_COLUMNS)
    for row in rows:
        table.add_row(*_cells(row, coloured=2))
    return table


def all_scores(stages: Sequence[Stage], state: PipelineState) -> list[Score]:
    """Return the scores of all finished evaluate stages, in the order of the stages."""
    finished = [(stage.name, state.records[stage.name]) for stage in stages if stage.name in state.records]
    return [
        score
        for name, record in finished
        if record.state == "finished"
        for score in scores(name, record.summary)
    ]


def score_rows(found: Sequence[Score]) -> list[Row]:
    """Return a row of SCORE_COLUMNS for each score, benchmark by benchmark."""
    benchmarks = list(dict.fromkeys(score.benchmark for score in found))
    return [
        (
            score.benchmark,
            score.model,
            score.problems,
            format_estimate(score.accuracy, percent=True),
            format_estimate(score.tokens, percent=False),
            _share(score.no_answer),
            _share(score.main_language),
        )
        for benchmark in benchmarks
        for score in found
        if score.benchmark == benchmark
    ]


def score_table(rows: Iterable[Row]) -> Table:
    """Return the table of every evaluated model's scores."""
    table = _table("Scores", SCORE_COLUMNS, right=range(2, len(SCORE_COLUMNS)))
    for row in rows:
        table.add_row(*_cells(row))
    return table


def report_page(name: str, stages: Sequence[Row], found: Sequence[Row]) -> str:
    """Return the text of report.md."""
    lines = [f"# {name}", ""]
    if found:
        lines += ["## Scores", "", *_markdown(SCORE_COLUMNS, found), "", "Intervals are over problems.", ""]
    lines += ["## Stages", "", *_markdown(STATUS_COLUMNS, stages), ""]
    lines += [
        "`provenance.json` in each stage's folder says what the stage was made from, `stage.log` what it "
        "said.",
        "",
    ]
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _table(title: str, columns: Sequence[str], right: Iterable[int] = ()) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    right = set(right)
    for number, name in enumerate(columns):
        table.add_column(name, overflow="fold", justify="right" if number in right else "left")
    return table


def _cells(row: Row, coloured: int | None = None) -> list[Text]:
    return [
        Text(cell, style=COLOURS.get(cell, "") if number == coloured else "")
        for number, cell in enumerate(row)
    ]


def _markdown(columns: Sequence[str], rows: Iterable[Row]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
