"""The processes of a pipeline: output, signals, kill -9 at any moment, and what a killed pipeline leaves
behind.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from r1rl.config.bundled import PACKAGE
from r1rl.pipeline.processes import MARK, clear_survivors, mark_of, run_process

PIPELINE = """\
run_name: chain
stages:
  - {name: first, command: grpo, recipe: grpo.yaml}
  - {name: second, command: grpo, recipe: grpo.yaml, set: {model.path: "${first.model}"}}
  - name: scores
    command: evaluate
    recipe: evaluate.yaml
    set: {models: [{name: a, path: "${first.model}"}, {name: b, path: "${second.model}"}]}
  - {name: third, command: grpo, recipe: grpo.yaml, set: {model.path: "${second.model}"}}
"""
GRPO = "run_name: x\nmax_steps: 6\ndata: {source: countdown}\nrewards: [{function: countdown}]\n"
EVALUATE = "run_name: x\nmodels: [{path: embedded}]\nbenchmarks: [countdown]\nnum_problems: 5\n"

DRIVER = """\
import sys
from r1rl.cli.main import main
from r1rl.pipeline import runner
real = runner.command_line
runner.command_line = lambda *rest, **flags: [sys.executable, STAND_IN, "0.03", *real(*rest, **flags)[2:]]
sys.exit(main(["pipeline", "pipeline.yaml"]))
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def start(folder: Path) -> subprocess.Popen[bytes]:
    code = DRIVER.replace("STAND_IN", repr(str(Path(__file__).with_name("pipeline_stage.py"))))
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.Popen(
        python(code), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("pipeline.yaml", PIPELINE), ("grpo.yaml", GRPO), ("evaluate.yaml", EVALUATE)):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments_it_finishes_and_runs_no_finished_stage_twice(
    folder: Path, seed: int
) -> None:
    chance = random.Random(seed)
    # One kill while the pipeline starts, the others once so many steps and samples are done and up to 0.15 s
    # later: a slow machine and a
    # fast one are hit in the same places.
    moments = [0, *sorted(chance.sample(range(1, 23), 5))]
    kills = 0
    while True:
        process = start(folder)
        if kills < len(moments):
            while work_done(folder) < moments[kills] and process.poll() is None:
                time.sleep(0.005)
            time.sleep(chance.uniform(0.0, 0.15))
            if process.poll() is None:
                process.kill()
                kills += 1
        output = process.communicate(timeout=120)[0].decode()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
    assert kills >= 4
    chain = folder / "runs" / "chain"
    assert Counter((chain / "ended.log").read_text().split()) == {
        "first": 1,
        "second": 1,
        "scores": 1,
        "third": 1,
    }
    # A training repeats at most the steps since its last checkpoint, of which there is one per step; an
    # evaluation nothing.
    for name in ("first", "second", "third"):
        steps = [
            int(line)
            for path in (chain / name, *chain.glob(f"set-aside/{name}-*"))
            for line in log_lines(path / "steps.log")
        ]
        assert set(steps) == {1, 2, 3, 4, 5, 6}
        assert len(steps) <= 6 + kills
    assert sorted(log_lines(chain / "scores" / "samples.log")) == [
        f"{model} {number}" for model in "ab" for number in range(5)
    ]
    assert (chain / "report.md").read_text().count("| finished |") == 4


def work_done(folder: Path) -> int:
    """Return the steps and samples of all stages so far, those done again included."""
    return sum(
        len(log_lines(path))
        for name in ("steps.log", "samples.log")
        for path in folder.glob(f"runs/chain/**/{name}")
    )


def log_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def test_ctrl_c_reaches_the_stage_once_and_ends_the_pipeline(folder: Path) -> None:
    process = start(folder)
    deadline = time.monotonic() + 60
    while not (folder / "runs/chain/first/checkpoints/step-000001").is_dir():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130
    assert "Stopped; what is finished is kept in runs/chain. The same command goes on." in output
    assert "interrupted" in output
    process = start(folder)
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 0, output
    assert "was stopped; goes on from step-" in output
    assert log_lines(folder / "runs/chain/ended.log") == ["first", "second", "scores", "third"]


def test_output_is_shown_and_kept_and_the_exit_code_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "stage.log"
    log.write_text("earlier\n")
    code = "import sys; print('zwölf'); print('wrong', file=sys.stderr); sys.exit(3)"
    assert run_process(python(code), tmp_path / "stage", log) == 3
    assert log.read_text(encoding="utf-8").splitlines()[0] == "earlier"
    assert set(log.read_text(encoding="utf-8").splitlines()) == {"earlier", "zwölf", "wrong"}
    assert "zwölf" in capsys.readouterr().out
    assert (
        run_process(
            python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), tmp_path / "stage", log
        )
        == -signal.SIGKILL
    )


def test_a_signal_is_passed_on_once_and_then_raised(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    code = (
        "import signal, sys, time\ncount = 0\n"
        "def note(*_):\n    global count\n    count += 1\n    print('told', count, flush=True)\n"
        "signal.signal(signal.SIGTERM, note)\nprint('ready', flush=True)\n"
        "while not count: time.sleep(0.01)\ntime.sleep(0.3)\nprint('saved', flush=True)\n"
    )

    def tell() -> None:
        while not log.is_file() or "ready\n" not in log.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_process(python(code), tmp_path / "stage", log)
    assert log.read_text() == "ready\ntold 1\nsaved\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_processes_that_outlive_their_pipeline_are_waited_for_then_ended(tmp_path: Path) -> None:
    chain = tmp_path / "chain"
    marked = {**os.environ, MARK: mark_of(chain / "stage")}
    other = subprocess.Popen(
        python("import time; time.sleep(60)"),
        env={**os.environ, MARK: mark_of(tmp_path / "chain-2" / "stage")},
    )
    ending = "import pathlib, time; time.sleep({}); pathlib.Path({!r}).touch()"
    brief, stubborn = (
        subprocess.Popen(python(ending.format(seconds, str(tmp_path / f"ended-{seconds}"))), env=marked)
        for seconds in (0.5, 60)
    )
    told: list[str] = []
    try:
        clear_survivors(chain, told.append, patience=2.0)
        assert not psutil.pid_exists(brief.pid)
        assert not psutil.pid_exists(stubborn.pid)
        assert [path.name for path in tmp_path.glob("ended-*")] == ["ended-0.5"]  # one could end by itself
        assert other.poll() is None  # of another pipeline, whose folder's name starts in the same way
        assert told == [
            "2 process(es) of this pipeline, which was killed, are still at work; waiting up to 2 s for them."
        ]
        clear_survivors(chain, told.append)
        assert len(told) == 1
    finally:
        other.kill()
        other.wait()


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells a process of its parent's death"
)
def test_a_stage_is_told_when_its_pipeline_is_killed(folder: Path) -> None:
    process = start(folder)
    deadline = time.monotonic() + 60
    stages: list[psutil.Process] = []
    while not stages:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        stages = psutil.Process(process.pid).children()
        stages = [one for one in stages if any("pipeline_stage.py" in word for word in one.cmdline())]
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(stages, timeout=20)
    assert not alive
