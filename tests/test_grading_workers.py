"""The worker pool: limits that hold, workers that die, and every context that a grader is called from."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from r1rl.grading import Grader, Outcome, Stage, grade
from r1rl.grading.grade import default_grader
from r1rl.grading.workers import WorkerPool, WorkersUnavailableError

ROOT = Path(__file__).resolve().parents[1]
INTEGRAL = ("\\int_0^1 2x dx", "1")  # no rule of the package reads an integral: computer algebra decides
# passes the gate and would run for hours
SLOW = "\\sum_{k=1}^{9999} \\sum_{j=1}^{9999} \\frac{\\sin(jk)}{k^2+j}"


def boxed(answer: str) -> str:
    return "So it is \\boxed{" + answer + "}."


@pytest.fixture(scope="module")
def grader():
    grader = Grader(seconds=20.0, max_workers=4)
    yield grader
    grader.close()


def process_exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(pids: list[int], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(process_exists(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def idle_pids(grader: Grader) -> list[int]:
    return [worker.pid for worker in grader._state().pool._idle]


def test_symbolic_stage_decides_what_no_rule_reads(grader):
    right = grader.grade(boxed(INTEGRAL[0]), INTEGRAL[1])
    wrong = grader.grade(boxed(INTEGRAL[0]), "2")
    assert (right.outcome, right.stage) == (Outcome.CORRECT, Stage.SYMBOLIC)
    assert (wrong.outcome, wrong.stage) == (Outcome.WRONG, Stage.SYMBOLIC)


@pytest.mark.parametrize(
    "bomb",
    [
        "9^{9^{9^{9}}}",
        "2^{2^{2^{2^{2^{2}}}}}",
        "(10^{10})!",
        "\\sum_{k=1}^{10^{12}} \\frac{1}{k^2}",
        "99999!",
    ],
)
def test_gate_refuses_bombs_at_once_as_timeouts(bomb):
    start = time.monotonic()
    result = grade(boxed(bomb), "5")
    assert (result.outcome, result.stage) == (Outcome.TIMEOUT, Stage.GATE)
    assert time.monotonic() - start < 0.2


def test_identical_bombs_are_equal_as_text():
    assert grade(boxed("10^{10^{10}}"), "10^{10^{10}}").stage is Stage.TEXT


def test_limit_holds_and_next_call_works(grader):
    grader.grade(boxed(INTEGRAL[0]), INTEGRAL[1])  # the computer algebra is loaded
    start = time.monotonic()
    result = grader.grade(boxed(SLOW), "5", timeout=0.5)
    seconds = time.monotonic() - start
    assert (result.outcome, result.stage) == (Outcome.TIMEOUT, Stage.SYMBOLIC)
    assert seconds < 1.0  # the limit plus 0.5 s
    assert grader.grade(boxed("\\int_0^2 2x dx"), "4").correct


def test_batch_with_bombs_is_bounded_and_they_are_timeouts():
    # 96 completions, 8 of them different bombs that pass the gate, at 1 s a call: eight workers take them all
    # at once.
    grader = Grader(max_workers=8)
    try:
        grader.grade(boxed(INTEGRAL[0]), INTEGRAL[1], timeout=20)
        completions = [boxed(str(k)) for k in range(88)] + [
            boxed(SLOW.replace("9999", str(9000 + k))) for k in range(8)
        ]
        start = time.monotonic()
        grades = grader.grade_many(completions, ["7"] * 96, timeout=1.0)
        seconds = time.monotonic() - start
    finally:
        grader.close()
    assert [g.outcome for g in grades[88:]] == [Outcome.TIMEOUT] * 8
    assert [g.correct for g in grades[:88]] == [k == 7 for k in range(88)]
    assert seconds < 3.0


def test_dead_worker_costs_one_call(grader):
    grader.grade(boxed(INTEGRAL[0]), INTEGRAL[1])
    for pid in idle_pids(grader):
        os.kill(pid, signal.SIGKILL)
    assert wait_until_gone(idle_pids(grader))
    outcomes = [grader.grade(boxed(f"\\int_0^{k} 2x dx"), str(k * k)).outcome for k in range(3, 8)]
    assert outcomes.count(Outcome.CRASHED) <= 4  # the four idle workers, at most one call each
    assert outcomes[-1] is Outcome.CORRECT


FAKE_ALGEBRA = """
import os, sympy
class LatexExtractionConfig:
    def __init__(self, **options): pass
def parse(text, **options):
    if "memory" in text: bytearray(4 << 30)
    if "exit" in text: os._exit(3)
    while "spin" in text: pass
    return [sympy.Integer(5), "5"]
def verify(gold, answer, **options):
    return True
"""


def test_memory_limit_and_exits_are_crashes_of_one_call_each(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text(FAKE_ALGEBRA)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = WorkerPool(2, 2 << 30)  # a request for 4 GiB can't be served within 2 GiB of address space
    try:
        verdicts = pool.run([("5", "memory"), ("5", "5"), ("5", "exit"), ("5", "spin"), ("5", "6")], 0.5)
    finally:
        pool.close()
    assert verdicts == [Outcome.CRASHED, True, Outcome.CRASHED, Outcome.TIMEOUT, True]


def test_process_that_ends_is_started_again(grader):
    grader.grade(boxed(INTEGRAL[0]), INTEGRAL[1])
    process = grader._state().pool._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    results = [grader.grade(boxed(f"\\int_0^{k} 4x dx"), str(2 * k * k)).outcome for k in range(1, 7)]
    assert results[-1] is Outcome.CORRECT


def test_a_process_that_cannot_start_is_an_error_with_its_reason(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no computer algebra here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = WorkerPool(1, 1 << 30)
    with pytest.raises(WorkersUnavailableError, match="no computer algebra here"):
        pool.run([INTEGRAL], 5.0)
    pool.close()


def test_same_verdicts_from_threads(grader):
    cases = [
        ("\\frac{1}{2}", "0.5", True),
        ("\\int_0^3 2x dx", "9", True),
        ("9^{9^{9^9}}", "5", False),
        ("x+1", "1+x", True),
    ]
    results: dict[int, list[bool]] = {}

    def work(index: int) -> None:
        results[index] = [grader.grade(boxed(answer), gold).correct for answer, gold, _ in cases]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {k: [expected for _, _, expected in cases] for k in range(6)}


def test_more_threads_than_workers():
    grader = Grader(seconds=20.0, max_workers=1)
    correct: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda k=k: correct.append(
                grader.grade(boxed(f"\\int_0^{k} 6x dx"), str(3 * k * k)).correct
            )
        )
        for k in range(1, 6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    grader.close()
    assert correct == [True] * 5


def _grade_in_fork(connection) -> None:
    results = [
        grade(boxed("\\int_0^5 2x dx"), "25"),
        grade(boxed("\\frac{2}{4}"), "0.5"),
        grade(boxed("9^{9^{9^9}}"), "5"),
    ]
    connection.send([result.outcome.value for result in results])
    default_grader().close()


def test_same_verdicts_after_a_fork():
    assert grade(boxed("\\int_0^4 2x dx"), "16", timeout=20).correct  # the parent has a pool of its own
    parent_process = default_grader()._state().pool._process
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_grade_in_fork, args=(theirs,))
    child.start()
    assert ours.poll(60)
    assert ours.recv() == ["correct", "correct", "timeout"]
    child.join(10)
    assert child.exitcode == 0
    assert parent_process.poll() is None  # the child left the parent's workers alone
    assert grade(boxed("\\int_0^6 2x dx"), "36", timeout=20).correct


def test_same_verdicts_in_datasets_map():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict(
        {"completion": [boxed("\\int_0^7 2x dx"), boxed("7^2"), boxed("7")], "answer": ["49"] * 3}
    )
    graded = rows.map(
        lambda row: {"outcome": grade(row["completion"], row["answer"], timeout=30).outcome.value}, num_proc=2
    )
    assert graded["outcome"] == ["correct", "correct", "wrong"]


def test_same_verdicts_in_two_accelerate_processes(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            from accelerate import Accelerator
            from accelerate.utils import gather_object
            from r1rl.grading import grade

            accelerator = Accelerator(cpu=True)
            cases = [({INTEGRAL[0]!r}, "1", 60), ("7^2", "49", 60), ("7", "49", 60), ({SLOW!r}, "3", 1)]
            own = [
                grade("So it is \\\\boxed{{" + answer + "}}.", gold, timeout=limit).outcome.value
                for answer, gold, limit in cases
            ]
            outcomes = gather_object([own])
            if accelerator.is_main_process:
                print(outcomes)
            accelerator.wait_for_everyone()
            # A process that just exits can tear the other's connection down with it.
            accelerator.end_training()
            """
        )
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str([["correct", "correct", "wrong", "timeout"]] * 2)


def run_script(source: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )


def test_script_without_main_guard_and_no_process_left(tmp_path):
    done = run_script(
        """
        from r1rl.grading import default_grader, grade
        print(grade("\\\\boxed{\\\\int_0^8 2x dx}", "64", timeout=60).outcome.value)
        pool = default_grader()._state().pool
        print(pool._process.pid, *[worker.pid for worker in pool._idle])
        """,
        tmp_path,
    )
    lines = done.stdout.split("\n")
    assert done.returncode == 0 and lines[0] == "correct", done.stderr
    assert done.stderr == ""
    assert wait_until_gone([int(pid) for pid in lines[1].split()])


def test_workers_die_with_a_killed_parent_even_while_they_compute(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, threading, time\n"
        "from r1rl.grading import default_grader, grade\n"
        "grade('\\\\boxed{\\\\int_0^8 2x dx}', '64', timeout=60)\n"
        "pool = default_grader()._state().pool\n"
        "print(pool._process.pid, *[worker.pid for worker in pool._idle], flush=True)\n"
        f"grade('\\\\boxed{{' + {SLOW!r} + '}}', '5', timeout=600)\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    time.sleep(0.5)
    process.kill()
    process.wait()
    process.stdout.close()
    assert wait_until_gone(pids)


def test_import_starts_nothing(tmp_path):
    done = run_script(
        """
        import sys, threading
        import r1rl.grading
        assert "sympy" not in sys.modules and "math_verify" not in sys.modules and "torch" not in sys.modules
        assert threading.active_count() == 1
        assert r1rl.grading.grade("\\\\boxed{0.5}", "1/2").correct
        assert r1rl.grading.default_grader()._state().pool._process is None
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_verdicts_are_cached_and_timeouts_are_not(grader):
    first = grader.grade(boxed("\\int_0^9 2x dx"), "81")
    second = grader.grade(boxed("\\int_0^9 2x dx"), "81")
    assert second.correct and second.stage is Stage.SYMBOLIC
    assert second.seconds < 0.01 < first.seconds
    slow = boxed(SLOW.replace("9999", "9876"))
    assert grader.grade(slow, "5", timeout=0.2).outcome is Outcome.TIMEOUT
    assert ("5", SLOW.replace("9999", "9876")) not in grader._state().cache
