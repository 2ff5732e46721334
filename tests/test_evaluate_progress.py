"""The time left of an evaluation, and the lines that are printed without a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from r1rl.sampling_jobs.progress import EvaluationProgress


def test_the_pace_is_that_of_this_run() -> None:
    now = [100.0]
    out = io.StringIO()
    with EvaluationProgress(
        Console(file=out, width=200), "m, b", 40, 100, enabled=True, clock=lambda: now[0]
    ) as progress:
        assert progress.seconds_left() != progress.seconds_left()  # not known
        for _ in range(20):
            now[0] += 2.0
            progress.advance()
        # 20 in 40 s, 40 are left: 80 s; the 40 of an earlier run took no time
        assert progress.seconds_left() == 80.0
    assert out.getvalue().splitlines() == [
        "m, b: 55 of 100 completions, 1 min 30 s left",  # after 30 s
        "m, b: 60 completions, 40 of them from before, 40 s",
    ]


def test_other_processes_are_silent() -> None:
    out = io.StringIO()
    with EvaluationProgress(Console(file=out), "m, b", 0, 1, enabled=False) as progress:
        progress.advance()
    assert out.getvalue() == "" and progress.done == 1
