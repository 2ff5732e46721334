"""The progress of an evaluation and the time that is left: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from r1rl.monitor.progress import format_seconds

LINE_SECONDS = 30.0
"""The seconds between two lines where there is no terminal."""


class EvaluationProgress:
    """A context manager around the sampling of one model on one benchmark. `enabled=False` (other processes)
    shows nothing.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        done: int,
        total: int,
        enabled: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at `done` of `total` completions: those were sampled by an earlier run, and say nothing about
        the pace.
        """
        self.console = console
        self.title = title
        self.done = self.done_before = done
        self.total = total
        self._enabled = enabled
        self._clock = clock
        self._started = self._last_line = clock()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(
            *columns, console=console, disable=not (enabled and console.is_terminal), transient=True
        )
        self._task = self._bar.add_task(title, total=total, completed=done, left="")

    def __enter__(self) -> EvaluationProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._enabled and kind is None:
            seconds = format_seconds(self._clock() - self._started)
            kept = f", {self.done_before} of them from before" if self.done_before else ""
            self.console.print(
                Text(f"{self.title}: {self.done} completions{kept}, {seconds}"), soft_wrap=True
            )

    def advance(self) -> None:
        """Count one more finished completion."""
        self.done += 1
        left = f"{format_seconds(self.seconds_left())} left"
        self._bar.update(self._task, completed=self.done, left=left)
        if self._enabled and not self.console.is_terminal and self._clock() - self._last_line >= LINE_SECONDS:
            self._last_line = self._clock()
            self.console.print(
                Text(f"{self.title}: {self.done} of {self.total} completions, {left}"), soft_wrap=True
            )

    def seconds_left(self) -> float:
        """Return the seconds that are left at the pace of this run so far. Short completions finish first, so
        it is a lower estimate at the start.
        """
        fresh = self.done - self.done_before
        return (self.total - self.done) * (self._clock() - self._started) / fresh if fresh else float("nan")
