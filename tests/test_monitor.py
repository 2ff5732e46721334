"""Metrics over processes, the terminal, the curves, the final tables."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from rich.console import Console

from r1rl.monitor import metric_names as metrics
from r1rl.monitor.curves import PANELS, draw_curves, save_curves, smoothed
from r1rl.monitor.metrics import MetricAccumulator
from r1rl.monitor.progress import ProgressDisplay, ShownCompletion, completion_panel, format_seconds, shorten
from r1rl.monitor.summary import Contrast, before_after_table, by_value_table, format_estimate, side_by_side

# --- metrics ---


def test_means_counts_and_maxima() -> None:
    accumulator = MetricAccumulator()
    accumulator.add_values("reward", [1.0, None, 0.0, 0.5])
    accumulator.add("kl", total=3.0, count=12)
    accumulator.add_values("never", [None])
    accumulator.count_all({"grading/timeout": 2})
    accumulator.count("grading/timeout")
    accumulator.maximum("logprob_diff", 0.25)
    accumulator.maximum("logprob_diff", 0.125)
    assert accumulator.collect() == {"reward": 0.5, "kl": 0.25, "grading/timeout": 3, "logprob_diff": 0.25}


def test_two_processes_give_what_one_gives() -> None:
    values = [1.0, 0.0, 0.5, 0.25, 1.0]
    whole = MetricAccumulator()
    whole.add_values("reward", values)
    whole.count("grading/timeout", 1)
    whole.maximum("diff", 0.5)
    shares = [MetricAccumulator(), MetricAccumulator()]
    shares[0].add_values("reward", values[:1])
    shares[1].add_values("reward", values[1:])
    shares[1].count("grading/timeout", 1)  # the first process has seen no timeout: names are united
    shares[0].maximum("diff", -1.0)
    shares[1].maximum("diff", 0.5)
    records: list[Any] = []
    for share in shares:
        share.collect(lambda own: records.extend(own) or own)
    assert all(share.collect(lambda own: records) == whole.collect() for share in shares)
    # (1 + 0 + 0.5 + 0.25 + 1) / 5, not the mean of the shares' means.
    assert whole.collect()["reward"] == 0.55


# --- progress ---

FIGURES = {
    metrics.REWARD: 0.5,
    metrics.ACCURACY: 0.25,
    metrics.MEAN_LENGTH: 88.25,
    metrics.REFLECTION_RATE: 0.125,
    metrics.ENTROPY: 0.75,
    metrics.TIME_ROLLOUT: 1.0,
    metrics.TIME_REWARD: 0.2,
    metrics.TIME_UPDATE: 0.8,
    metrics.TIME_STEP: 2.0,
}


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=140, color_system=None, _environ={})


def output(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def test_one_line_per_step_without_a_terminal() -> None:
    clock, shown = Clock(), console()
    with ProgressDisplay(100, console=shown, clock=clock) as progress:
        progress.phase("rollout", 1, 2)
        clock.now += 2.0
        progress.step(1, FIGURES)
        clock.now += 4.0
        progress.step(2, {metrics.REWARD: 1.0})
    # 98 steps at (2 + 4) / 2 seconds: 294 s
    assert output(shown).splitlines() == [
        "step 1/100  reward 0.500  accuracy 25.0%  length 88.2  reflection 12.5%  entropy 0.750  rollout "
        "50%  rewards 10%  update 40%  "
        "step time 2.00 s  3 min 18 s left",
        "step 2/100  reward 1.000  4 min 54 s left",
    ]


def test_time_left_counts_from_where_a_run_was_resumed() -> None:
    clock = Clock()
    progress = ProgressDisplay(60, first_step=50, console=console(), clock=clock)
    assert math.isnan(progress.seconds_left())
    with progress:
        clock.now += 3.0
        progress.step(51, FIGURES)
    assert progress.seconds_left() == 27.0


def test_live_table() -> None:
    shown = console(terminal=True)
    with ProgressDisplay(100, console=shown, clock=Clock()) as progress:
        for step in range(1, 11):
            progress.step(step, FIGURES)
        progress.phase("evaluation", 3, 256)
        progress.message("Stopping after [this] step.")
        console_of_table = console()
        console_of_table.print(progress._render())
    table = output(console_of_table).splitlines()
    titles = [
        "step",
        "reward",
        "accuracy",
        "length",
        "reflection",
        "entropy",
        "rollout",
        "rewards",
        "update",
        "step",
        "time",
    ]
    assert table[0].split() == titles
    # The last eight steps.
    assert [line.split()[0] for line in table[1:9]] == [str(step) for step in range(3, 11)]
    assert table[1].split()[1:] == [
        "0.500",
        "25.0%",
        "88.2",
        "12.5%",
        "0.750",
        "50%",
        "10%",
        "40%",
        "2.00",
        "s",
    ]
    assert "steps" in table[9] and "10/100" in table[9] and "0 s left" in table[9]
    assert "evaluation" in table[10] and "3/256" in table[10]
    assert "Stopping after [this] step." in output(shown)
    assert "10/100" in output(shown)


def test_live_off_prints_lines_on_a_terminal_too() -> None:
    shown = console(terminal=True)
    with ProgressDisplay(10, console=shown, live=False, clock=Clock()) as progress:
        progress.step(1, FIGURES)
    assert output(shown).startswith("step 1/10  reward 0.500")


def test_other_processes_show_nothing() -> None:
    shown = console()
    with ProgressDisplay(10, console=shown, enabled=False) as progress:
        progress.step(1, FIGURES)
        progress.message("hello")
    assert output(shown) == ""


def test_completions_are_no_markup() -> None:
    shown = console()
    text = "<think> [bold]2 + 3[/bold] [/think] \\boxed{5}"
    progress = ProgressDisplay(10, console=shown)
    progress.show_completions(
        7, [ShownCompletion("Add [red]them", "5", text, "reward 1.100, outcome 1", "eos")]
    )
    assert all(
        part in output(shown)
        for part in ("step 7", "Add [red]them", "answer: 5", text, "reward 1.100, outcome 1, ended by eos")
    )


def test_long_completions_lose_their_middle() -> None:
    text = "a" * 3000 + "answer"
    short = shorten(text, 1500)
    assert short.startswith("a" * 1000 + "\n") and short.endswith("answer")
    assert "1506 characters left out" in short
    assert shorten("short", 5) == "short"
    assert completion_panel("t", ShownCompletion("p", None, text, "reward 0.000", "length")) is not None


def test_durations() -> None:
    expected = {
        0.4: "0 s",
        59.4: "59 s",
        60: "1 min 00 s",
        3599: "59 min 59 s",
        7505: "2 h 05 min",
        float("nan"): "?",
    }
    assert [format_seconds(seconds) for seconds in expected] == list(expected.values())


# --- curves ---


def records(steps: int = 40) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    made = []
    for step in range(1, steps + 1):
        noise = rng.normal(size=6) * 0.03
        made.append(
            {
                "step": step,
                metrics.REWARD: 0.3 + step / 80 + noise[0],
                metrics.ACCURACY: 0.3 + step / 100 + noise[1],
                metrics.MEAN_LENGTH: 60 + step + 10 * noise[2],
                metrics.REFLECTION_RATE: 0.1 + step / 200 + noise[3],
                metrics.ENTROPY: 1 - step / 60 + noise[4],
                metrics.KL: 0.001 * step,
            }
        )
    return made


def evaluation(accuracy: float) -> dict[str, Any]:
    return {
        "accuracy": {"value": accuracy, "ci95": [accuracy - 0.05, accuracy + 0.05]},
        "mean_length": {"value": 70.0, "ci95": [60.0, 80.0]},
        "reflection_rate": {"value": 0.2, "ci95": None},
    }


def drawn(figure: Any) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_curves_have_a_panel_for_every_metric() -> None:
    figure = draw_curves(records(), {0: evaluation(0.3), 40: evaluation(0.75)}, "tiny, seed 0")
    axes = {one.get_title(loc="left"): one for one in figure.axes}
    assert list(axes) == [
        "Reward",
        "Accuracy",
        "Completion length (tokens)",
        "Completions that reflect",
        "Entropy (nats per token)",
        "KL to the reference",
    ]
    for panel, one in zip(PANELS, figure.axes, strict=True):
        raw, trend = one.lines[0].get_ydata(), one.lines[1].get_ydata()
        assert list(raw) == [record[panel.metric] for record in records()]
        if panel.metric != metrics.KL:  # here a straight line, which has nothing to smooth
            assert np.abs(np.diff(trend, 2)).mean() < 0.7 * np.abs(np.diff(raw, 2)).mean()
    (bars,) = axes["Accuracy"].containers  # the held-out points with their 95 % intervals
    assert list(bars.lines[0].get_xdata()) == [0, 40]
    assert list(bars.lines[0].get_ydata()) == [0.3, 0.75]
    assert [tuple(segment[:, 1].round(9)) for segment in bars.lines[2][0].get_segments()] == [
        (0.25, 0.35),
        (0.7, 0.8),
    ]
    assert not axes["Reward"].containers
    figure_texts = [one.get_text() for one in axes["Accuracy"].get_legend().get_texts()]
    assert figure_texts == ["training batches, smoothed", "held out, 95 % interval"]


def test_panels_that_were_not_measured_say_so() -> None:
    without_kl = [
        {name: value for name, value in record.items() if name != metrics.KL} for record in records()
    ]
    kl = draw_curves(without_kl, {}, "t").axes[5]
    assert [text.get_text() for text in kl.texts] == ["not measured: algorithm.beta is 0"] and not kl.lines
    empty = draw_curves([], {}, "a run without a step")
    assert all(len(one.texts) == 1 for one in empty.axes)
    gaps = [{**record, metrics.ACCURACY: None if record["step"] % 2 else 0.5} for record in records()]
    assert len(draw_curves(gaps, {}, "t").axes[1].lines[0].get_xdata()) == 20


def test_curves_are_drawn_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    save_curves(path, records(), {0: evaluation(0.3), 40: evaluation(0.75)}, "tiny")
    image = imread(path)
    assert image.shape == (792, 1440, 4)  # 12 x 6.6 inches at 120 dots
    assert list(tmp_path.iterdir()) == [path]
    blank = drawn(draw_curves([], {}, "tiny")) / 255
    for row in range(2):  # every panel has ink of the training colour that the blank one lacks
        for column in range(3):
            place = (slice(row * 396 + 20, row * 396 + 376), slice(column * 480 + 20, column * 480 + 460))
            blue = lambda pixels: ((pixels[..., 2] - pixels[..., 0]) > 0.3).sum()  # noqa: E731
            assert blue(image[place]) > 300 > blue(blank[place])
    orange = (image[..., 0] - image[..., 2]) > 0.4
    assert orange.sum() > 200


def test_one_step_can_be_drawn() -> None:
    assert drawn(draw_curves(records(1), {1: evaluation(0.5)}, "t")).shape == (792, 1440, 4)


def test_smoothing() -> None:
    # (1 + 5 + 0) / 3 = 2 in the middle of the first three; the ends have no neighbour on one side and stay as
    # they are
    assert smoothed([1.0, 5.0, 0.0, 1.0], 1) == [1.0, 2.0, 2.0, 1.0]
    # A straight line stays where it is.
    assert smoothed([1.0, 2.0, 3.0, 4.0, 5.0], 2) == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0])


# --- final tables ---


def figures(accuracy: float, length: float) -> dict[str, Any]:
    return {
        "num_problems": 256,
        "num_samples": 4,
        "accuracy": {"value": accuracy, "ci95": [accuracy - 0.05, accuracy + 0.05]},
        "pass_at_1": {"value": accuracy, "ci95": None},
        "pass_at_4": {"value": 0.9, "ci95": [0.85, 0.95]},
        "mean_length": {"value": length, "ci95": [length - 2, length + 2]},
        "reflection_rate": {"value": 0.04, "ci95": [0.03, 0.06]},
        "well_formed_rate": None,
        "truncated_rate": {"value": 0.0, "ci95": [0.0, 0.01]},
    }


def test_figures_under_their_former_name_are_shown() -> None:
    """The figures are those of a run that an earlier version began."""
    before, after = (
        figures(0.31, 60.0),
        {**figures(0.78, 90.5), "well_formed_rate": {"value": 0.5, "ci95": None}},
    )
    del before["well_formed_rate"]
    before["format_rate"] = {"value": 0.25, "ci95": None}
    shown = console()
    shown.print(before_after_table(before, after))
    (line,) = (line for line in output(shown).splitlines() if "well-formed" in line)
    assert "25.0 %" in line and "50.0 %" in line


def test_before_after_table() -> None:
    shown = console()
    shown.print(before_after_table(figures(0.31, 60.0), figures(0.78, 90.5)))
    text = output(shown)
    assert "256 problems x 4 samples" in text
    rows = {
        line.split("  ")[0].strip(" │┃"): line
        for line in text.splitlines()
        if "%" in line or "tokens" in line
    }
    assert "31.0 % (26.0\u201336.0)" in rows["accuracy"] and "78.0 % (73.0\u201383.0)" in rows["accuracy"]
    assert (
        "60.0 (58.0\u201362.0)" in rows["length (tokens)"]
        and "90.5 (88.5\u201392.5)" in rows["length (tokens)"]
    )
    assert "90.0 % (85.0\u201395.0)" in rows["pass@4"]
    assert "well-formed" not in text and "pass@1 " not in text  # no such reward; pass@1 is the accuracy
    alone = console()
    alone.print(before_after_table(None, figures(0.78, 90.5)))
    assert "after" in output(alone) and "before" not in output(alone)


def test_rewards_by_the_values_of_a_column() -> None:
    def held_out(rule: float, taste: float) -> dict[str, Any]:
        domains = {
            "reasoning": {"rewards": {"rule": {"value": rule, "ci95": None}, "taste": None}},
            "helpfulness": {"rewards": {"rule": None, "taste": {"value": taste, "ci95": [0.1, 0.2]}}},
        }
        return {**figures(rule, 60.0), "by_value": {"domain": domains}}

    table = by_value_table(held_out(0.25, 0.125), held_out(0.75, 0.5))
    assert table is not None
    shown = console()
    shown.print(table)
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in output(shown).splitlines()
        if "0." in line
    ]
    assert rows == [
        ["domain reasoning", "rule", "0.250", "0.750"],
        ["domain helpfulness", "taste", "0.125", "0.500"],
    ]
    assert by_value_table(figures(0.5, 1.0), figures(0.5, 1.0)) is None


def test_estimates() -> None:
    assert format_estimate(None, percent=True) == "-"
    assert format_estimate({"value": 0.5, "ci95": None}, percent=True) == "50.0 %"


def test_side_by_side() -> None:
    shown = console()
    shown.print(
        side_by_side(
            Contrast("What is [2] + 3?", "5", "It is 6.", "2 + 3 = 5. Check: 5 - 3 = 2. [/x]", False, True)
        )
    )
    text = output(shown)
    assert "What is [2] + 3?" in text and "answer: 5" in text
    answers = next(line for line in text.splitlines() if "It is 6." in line)
    assert answers.index("It is 6.") < 70 < answers.index("2 + 3 = 5.")  # beside each other
    assert "[/x]" in answers
    verdicts = text.splitlines()[-1]
    assert verdicts.index("not correct") < 70 and "correct" in verdicts[70:]
