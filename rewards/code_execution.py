"""The reward for a program that passes its tests, run in a sandbox, one process per test (r1rl.sandbox)."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial as bind
from typing import Any

from r1rl.errors import RewardError
from r1rl.grading.extract import answer_region, answer_tag
from r1rl.sandbox import Limits, TestResult, require_sandbox, run_assert_test, run_stdin_test

_FENCED = re.compile(
    r"^[ \t]*```[ \t]*(?:python|python3|py)?[ \t]*\n(.*?)^[ \t]*```[ \t]*$",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_SAYS_NOTHING = (TestResult.UNSUPPORTED_TEST, TestResult.SANDBOX_ERROR)
Check = Callable[[str], TestResult]


def code_execution(
    completions: list[str],
    tests: list[Any],
    prefill: str = "",
    *,
    partial: bool = False,
    timeout: float = 5.0,
    memory_mb: int = 512,
    tolerance: float = 0.0,
    events: Counter[str] | None = None,
) -> list[float | None]:
    r"""Return 1 if the Python program of the answer passes all of its tests, else 0.

    With `partial`, return the share that it passes. The program is the last fenced code block of the
    `<answer>` block, or of the text after the thoughts if there is none; an `<answer>` block without a fence
    is the program itself. `tests` is, for each row (also as a JSON string):

    - `[{"input": "3\n", "output": "9\n"}, ...]` or `{"inputs": [...], "outputs": [...]}`: standard input and
      output;
      numbers with a decimal point may differ by `tolerance`;
    - `["assert square(3) == 9", ...]`: test code, each entry run by itself against the functions of the
      program.

    `timeout` (seconds) and `memory_mb` hold for one test. Without `partial` the first failed test ends a row.
    The value is None if the tests can't be read or run. Rows are counted as
    `grading/<correct|wrong|no_answer|unparseable_gold>` and `code/<result of a test>`. Raise `RewardError` if
    this machine has no safe sandbox.
    """
    if timeout <= 0 or memory_mb < 64:
        raise RewardError(
            f"rewards: code_execution: timeout must be positive and memory_mb at least 64, not {timeout} "
            f"and {memory_mb}."
        )
    require_sandbox()
    events = Counter() if events is None else events
    limits = Limits(seconds=timeout, memory_mb=memory_mb)

    def score(row: int) -> tuple[str, list[TestResult]]:
        checks = _checks(tests[row], limits, tolerance)
        program = _program(completions[row], prefill)
        if not checks:
            return "unparseable_gold", []
        return _run(program, checks, stop_at_failure=not partial) if program else ("no_answer", [])

    with ThreadPoolExecutor(max_workers=_processors()) as pool:
        graded = list(pool.map(score, range(len(completions))))
    rewards: list[float | None] = []
    for outcome, results in graded:
        events[f"grading/{outcome}"] += 1
        events.update(f"code/{result.value}" for result in results)
        if outcome == "wrong" and partial:
            rewards.append(results.count(TestResult.PASSED) / len(results))
        else:
            rewards.append({"correct": 1.0, "wrong": 0.0, "no_answer": 0.0}.get(outcome))
    return rewards


def _run(program: str, checks: list[Check], stop_at_failure: bool) -> tuple[str, list[TestResult]]:
    results: list[TestResult] = []
    for check in checks:
        results.append(check(program))
        if results[-1] in _SAYS_NOTHING:
            return "unparseable_gold" if results[-1] is TestResult.UNSUPPORTED_TEST else "crashed", results
        if stop_at_failure and results[-1] is not TestResult.PASSED:
            break
    return ("correct" if all(result is TestResult.PASSED for result in results) else "wrong"), results


def _program(completion: str, prefill: str) -> str | None:
    region = answer_region(completion, prefill) or ""
    answer = answer_tag(region, prefill)
    fenced = _FENCED.findall(region if answer is None else answer)
    return fenced[-1] if fenced else (answer or "").strip() or None


def _checks(tests: Any, limits: Limits, tolerance: float) -> list[Check]:
    """Return one function of the program for each test, or none if the tests can't be read."""
    if isinstance(tests, str) and tests.lstrip()[:1] in ("[", "{"):
        try:
            tests = json.loads(tests)
        except ValueError:
            return []
    if isinstance(tests, str):
        tests = [tests]
    if isinstance(tests, dict):
        inputs, outputs = tests.get("inputs"), tests.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            return []
        tests = [{"input": given, "output": wanted} for given, wanted in zip(inputs, outputs, strict=True)]
    checks = [_check(test, limits, tolerance) for test in tests or []]
    return [check for check in checks if check] if all(checks) else []


def _check(test: Any, limits: Limits, tolerance: float) -> Check | None:
    if isinstance(test, str) and test.strip():
        return bind(run_assert_test, test=test, limits=limits)
    if isinstance(test, dict) and isinstance(test.get("input"), str) and isinstance(test.get("output"), str):
        return bind(
            run_stdin_test, stdin=test["input"], expected=test["output"], limits=limits, tolerance=tolerance
        )
    return None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
