"""The sandbox: it runs a program that nobody has read, against input and expected output or against
assertions.

The expected output and the test code never enter the program's process, and verdicts never come from it.
docs/rewards.md says what the sandbox withstands and what it does not.
"""

from __future__ import annotations

import functools
import math
import signal
import socket
import sys
from enum import StrEnum

from r1rl.errors import RewardError
from r1rl.sandbox.process import Limits, SandboxedProcess, exchange

__all__ = ["Limits", "TestResult", "require_sandbox", "run_assert_test", "run_stdin_test", "same_output"]

_SYNTAX_ERROR, _OUT_OF_MEMORY = 3, 4  # exit codes of child.py


class TestResult(StrEnum):
    """The result of one test."""

    __test__ = False  # its name looks like a class of tests to pytest

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    SYNTAX_ERROR = "syntax_error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    UNSUPPORTED_TEST = "unsupported_test"  # the test itself can't be run here: says nothing about the program
    SANDBOX_ERROR = "sandbox_error"  # neither does this


def run_stdin_test(
    program: str, stdin: str, expected: str, limits: Limits, tolerance: float = 0.0
) -> TestResult:
    """Run a program on an input and compare all that it prints with `expected` (`same_output`).

    The program must also end in time and without an error.
    """
    with SandboxedProcess("program", _bytes(program), _bytes(stdin), limits) as process:
        result = _ending(process, exchange([process], process, limits.seconds))
    if result is TestResult.PASSED and not same_output(
        process.output.decode(errors="replace"), expected, tolerance
    ):
        return TestResult.WRONG_ANSWER
    return result


def run_assert_test(program: str, test: str, limits: Limits) -> TestResult:
    """Run test code (assertions) against the functions that a program defines, in a process of its own.

    Values must be plain data to be compared. A test that hands the program a function of its own is
    UNSUPPORTED_TEST.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, SandboxedProcess("serve", _bytes(program), b"", limits, theirs.fileno()) as process:
        with SandboxedProcess("test", _bytes(test), b"", limits, ours.fileno()) as judge:
            ours.close()
            theirs.close()
            left = exchange([process, judge], judge, limits.seconds)
            verdict = judge.output.decode(errors="replace").strip()
        if judge.ready[:1] != "1" or process.ready[:1] != "1":
            return TestResult.SANDBOX_ERROR
        if left == 0:
            return TestResult.TIMEOUT
        if verdict == "gone":
            ending = _ending(process, left)
            return TestResult.RUNTIME_ERROR if ending is TestResult.PASSED else ending
    # No verdict: what the program returned was too much for the test.
    return _VERDICTS.get(verdict, TestResult.RUNTIME_ERROR)


def same_output(printed: str, expected: str, tolerance: float = 0.0) -> bool:
    """Return whether all lines are equal, apart from white space at their ends and empty lines at the end.

    With a `tolerance`, words that are numbers may differ by that much, absolutely or relatively, if the
    expected one has a decimal point. The white space between words does not matter then either.
    """
    printed_lines, expected_lines = (
        [line.rstrip() for line in text.replace("\r\n", "\n").rstrip().split("\n")]
        for text in (printed, expected)
    )
    if printed_lines == expected_lines:
        return True
    words, wanted = printed.split(), expected.split()
    return (
        tolerance > 0
        and len(words) == len(wanted)
        and all(map(functools.partial(_same_word, tolerance), words, wanted))
    )


@functools.cache
def require_sandbox() -> dict[str, int]:
    """Return the protections that this machine has (lockdown.py).

    Raise `RewardError` if programs can't be run safely here.
    """
    if not sys.platform.startswith("linux"):
        raise RewardError(
            "rewards: code_execution runs programs only on Linux: it needs the kernel's seccomp filter."
        )
    limits = Limits()
    with SandboxedProcess("probe", b"", b"", limits) as process:
        ending = _ending(process, exchange([process], process, limits.seconds))
    if ending is not TestResult.PASSED:
        reason = process.ready[1:] or f"the sandbox's process ended with {ending.value}"
        raise RewardError(f"rewards: code_execution can't run programs safely on this machine: {reason}.")
    return {name: int(value) for name, value in (pair.split("=") for pair in process.output.decode().split())}


_VERDICTS = {
    "passed": TestResult.PASSED,
    "failed": TestResult.WRONG_ANSWER,
    "error": TestResult.RUNTIME_ERROR,
    "unsupported": TestResult.UNSUPPORTED_TEST,
}


def _ending(process: SandboxedProcess, seconds_left: float) -> TestResult:
    """Return the result of a program whose process ended, given the time that it has left to end."""
    if process.has_too_much_output:
        process.kill()
    code = process.wait(seconds_left)
    if process.ready[:1] != "1":
        return TestResult.SANDBOX_ERROR
    if process.has_too_much_output:
        return TestResult.OUTPUT_LIMIT
    if code is None or code in (-signal.SIGXCPU, -signal.SIGKILL):
        return TestResult.TIMEOUT
    known = {0: TestResult.PASSED, _SYNTAX_ERROR: TestResult.SYNTAX_ERROR, _OUT_OF_MEMORY: TestResult.MEMORY}
    return known.get(code, TestResult.RUNTIME_ERROR)


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")


def _same_word(tolerance: float, word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    try:
        return "." in wanted and math.isclose(
            float(word), float(wanted), rel_tol=tolerance, abs_tol=tolerance
        )
    except ValueError:
        return False
