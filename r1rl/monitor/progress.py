"""The terminal during a run: a live table and bar, or one line per step if there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from r1rl.monitor import metric_names as metrics

TABLE_STEPS = 8
"""The number of steps in the live table."""
TIMED_STEPS = 20
"""The number of steps whose mean duration gives the time left."""
SHOWN_CHARACTERS = 2000
"""The most characters of a shown completion; a longer one loses its middle."""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a step, as it is shown."""

    title: str
    metric: str
    format: str
    share_of: str | None = None
    """The other metric of which the figure is shown as a share."""

    def text(self, values: Mapping[str, float]) -> str:
        """Return the figure, or a dash if the step has none."""
        value = values.get(self.metric)
        if value is None:
            return "-"
        if self.share_of is not None:
            whole = values.get(self.share_of)
            if not whole:
                return "-"
            value /= whole
        return self.format.format(value)


COLUMNS = (
    Column("reward", metrics.REWARD, "{:.3f}"),
    Column("accuracy", metrics.ACCURACY, "{:.1%}"),
    Column("length", metrics.MEAN_LENGTH, "{:.1f}"),
    Column("reflection", metrics.REFLECTION_RATE, "{:.1%}"),
    Column("entropy", metrics.ENTROPY, "{:.3f}"),
    Column("rollout", metrics.TIME_ROLLOUT, "{:.0%}", metrics.TIME_STEP),
    Column("rewards", metrics.TIME_REWARD, "{:.0%}", metrics.TIME_STEP),
    Column("update", metrics.TIME_UPDATE, "{:.0%}", metrics.TIME_STEP),
    Column("step time", metrics.TIME_STEP, "{:.2f} s"),
)


@dataclass(frozen=True, slots=True)
class ShownCompletion:
    """A completion that is printed for people to read."""

    problem: str
    answer: str | None
    text: str
    verdict: str
    """The verdict on it, such as "reward 1.100, outcome 1"."""
    finish_reason: str


class ProgressDisplay:
    """A context manager around the training loop. `enabled=False` (other processes) shows nothing."""

    def __init__(
        self,
        total_steps: int,
        first_step: int = 0,
        *,
        columns: Sequence[Column] = COLUMNS,
        live: bool = True,
        enabled: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the display.

        `first_step` is the number of steps done before, by the run that is resumed. `live` has an effect on a
        terminal only.
        """
        self.total_steps = total_steps
        self.columns = columns
        self.console = (console or Console()) if enabled else Console(quiet=True)
        self._is_live = live and enabled and self.console.is_terminal
        self._clock = clock
        self._done = first_step
        self._rows: deque[tuple[int, Mapping[str, float]]] = deque(maxlen=TABLE_STEPS)
        self._seconds: deque[float] = deque(maxlen=TIMED_STEPS)
        self._last_time = clock()
        parts = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*parts, expand=True)
        self._steps_task: TaskID = self._bar.add_task(
            "steps", total=total_steps, completed=first_step, left=""
        )
        self._phase_task: TaskID = self._bar.add_task("", total=None, visible=False, left="")
        self._live = Live(
            get_renderable=self._render, console=self.console, refresh_per_second=4, transient=False
        )

    def __enter__(self) -> ProgressDisplay:
        self._last_time = self._clock()
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_live:
            self._bar.update(self._phase_task, visible=False)
            self._live.stop()

    def phase(self, name: str, done: int, total: int) -> None:
        """Show the work that the step is at: "rollout" 12 of 32 groups, "evaluation" 100 of 256 problems.

        It is shown live only.
        """
        self._bar.update(
            self._phase_task, description=name, completed=done, total=total, visible=done < total
        )

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Show the figures of a step that is done."""
        now = self._clock()
        self._seconds.append((now - self._last_time) / max(1, step - self._done))
        self._last_time, self._done = now, step
        self._rows.append((step, dict(values)))
        self._bar.update(self._steps_task, completed=step, left=f"{format_seconds(self.seconds_left())} left")
        if not self._is_live:
            self._print_line(step, values)

    def seconds_left(self) -> float:
        """Return the time to the last step at the pace of the last steps, with the evaluations and
        checkpoints between them.
        """
        if not self._seconds:
            return float("nan")
        return (self.total_steps - self._done) * sum(self._seconds) / len(self._seconds)

    def show_completions(self, step: int, completions: Sequence[ShownCompletion]) -> None:
        """Print completions, above the live table if there is one."""
        for shown in completions:
            self.console.print(completion_panel(f"step {step}", shown))

    def message(self, text: str) -> None:
        """Print a sentence, above the live table if there is one."""
        self.console.print(Text(text), soft_wrap=True)

    def _print_line(self, step: int, values: Mapping[str, float]) -> None:
        figures = "  ".join(
            f"{column.title} {column.text(values)}"
            for column in self.columns
            if values.get(column.metric) is not None
        )
        self.console.print(
            Text(f"step {step}/{self.total_steps}  {figures}  {format_seconds(self.seconds_left())} left"),
            soft_wrap=True,
        )

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("step", justify="right")
        for column in self.columns:
            table.add_column(column.title, justify="right")
        for step, values in list(self._rows):
            table.add_row(str(step), *(column.text(values) for column in self.columns))
        return Group(table, self._bar)


def completion_panel(title: str, shown: ShownCompletion) -> Panel:
    """Return a panel of a completion with its problem and its verdict. Nothing in it is taken as markup."""
    body = Text.assemble(
        (shown.problem.strip(), "bold"),
        "\n",
        (f"answer: {shown.answer}\n\n" if shown.answer is not None else "\n", "dim"),
        shorten(shown.text, SHOWN_CHARACTERS),
    )
    subtitle = Text(
        f"{shown.verdict}, ended by {shown.finish_reason}" if shown.finish_reason else shown.verdict
    )
    return Panel(
        body,
        title=Text(title),
        subtitle=subtitle,
        title_align="left",
        subtitle_align="left",
        border_style="dim",
    )


def shorten(text: str, limit: int) -> str:
    """Return the text without its middle if it is longer than `limit` characters; the answer at its end
    stays.
    """
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    end = text[len(text) - (limit - head) :]
    return f"{text[:head]}\n... {len(text) - limit} characters left out ...\n{end}"


def format_seconds(seconds: float) -> str:
    """Return "45 s", "3 min 20 s" or "2 h 05 min", or "?" if the time is not known."""
    if seconds != seconds:
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
