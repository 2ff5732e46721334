"""Sandboxed processes from the parent's side: starting them and waiting for them, with bounds on time and
output.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).parent / "child.py"
START_UP = 15.0
"""The seconds that processes may take to start on a busy machine."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on one program in one test."""

    seconds: float = 5.0
    """The wall-clock time; processor time is limited to about the same."""
    memory_mb: int = 512
    """The address space, of which the interpreter itself takes about 30 MB."""
    output_bytes: int = 1 << 20


class SandboxedProcess:
    """One child.py process in a session of its own, with an empty environment.

    It is a context manager, which kills the process at the end.
    """

    def __init__(self, mode: str, code: bytes, stdin: bytes, limits: Limits, link: int = -1) -> None:
        self.ready_end, child_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", str(CHILD), mode, str(child_end), str(link)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={"MALLOC_ARENA_MAX": "1"}, cwd="/", start_new_session=True,
                pass_fds=[child_end] if link < 0 else [child_end, link],
            )  # fmt: skip
        except BaseException:
            os.close(self.ready_end)
            raise
        finally:
            os.close(child_end)
        assert self._process.stdin is not None and self._process.stdout is not None
        self.stdin, self.stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self.stdin.fileno(), False)
        header = f"{len(code)} {limits.memory_mb << 20} {math.ceil(limits.seconds) + 1}\n".encode()
        self._input = memoryview(header + code + stdin)
        self._max_output = limits.output_bytes
        self.output = bytearray()
        self.ready = ""
        """The string "1" once the process has given up its rights, or "0" and the reason if it could not."""

    def __enter__(self) -> SandboxedProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        os.close(self.ready_end)
        self.stdin.close()
        self.stdout.close()

    def kill(self) -> None:
        """End the process and everything in its session."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait(self, seconds: float) -> int | None:
        """Return the exit code (negative: the signal), or None if the process was still running after
        `seconds` and has been killed.
        """
        try:
            return self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    @property
    def has_too_much_output(self) -> bool:
        """Return whether the process wrote more than it may; the rest was not read."""
        return len(self.output) > self._max_output

    def write_some(self) -> bool:
        """Write as much as fits into the standard input, and return False if all is written or nobody reads
        any more.
        """
        try:
            written = os.write(self.stdin.fileno(), self._input[:65536])
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        self._input = self._input[written:]
        return len(self._input) > 0


def exchange(processes: Sequence[SandboxedProcess], until: SandboxedProcess, seconds: float) -> float:
    """Feed all processes their input and collect their output until `until` closes its output or writes too
    much.

    The `seconds` start when all processes are ready; starting may take START_UP seconds more. Return the time
    that is left, 0 if it ran out. Input that a process does not read is dropped.
    """
    deadline = time.monotonic() + START_UP
    starting = set(processes)
    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process.ready_end, selectors.EVENT_READ, ("ready", process))
            selector.register(process.stdin, selectors.EVENT_WRITE, ("stdin", process))
            selector.register(process.stdout, selectors.EVENT_READ, ("stdout", process))
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                pipe, process = key.data
                if pipe == "stdin":
                    if not process.write_some():
                        selector.unregister(process.stdin)
                        process.stdin.close()
                elif pipe == "ready":
                    process.ready = os.read(process.ready_end, 1000).decode(errors="replace")
                    selector.unregister(process.ready_end)
                    starting.discard(process)
                    if not starting:
                        deadline = time.monotonic() + seconds
                else:
                    chunk = os.read(process.stdout.fileno(), 65536)
                    process.output += chunk
                    if not chunk or process.has_too_much_output:
                        selector.unregister(process.stdout)
                        if process is until:
                            return max(0.0, deadline - time.monotonic())
        return 0.0
