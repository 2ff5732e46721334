"""A pool of killable processes for the symbolic stage, with a limit per request that holds whatever a request computes.

The limit is kept from outside: the caller waits on the worker's socket and has the worker killed when the time is over, which
neither threads nor signals could do to a computation that holds the interpreter lock. Processes are started through
`subprocess` from a module of their own, so a script needs no `if __name__ == "__main__"` and nothing of the caller (threads,
CUDA, open files) is inherited.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from r1rl.grading.types import Outcome

START_SECONDS = 60.0
"""How long the first worker may take to import the computer algebra; not part of a request's limit."""

Verdict = bool | None | Outcome
"""A reply: equal, not equal, unreadable (None), or `Outcome.TIMEOUT` or `Outcome.CRASHED`."""


class WorkersUnavailableError(RuntimeError):
    """The worker process can't be started at all: a fault of the installation, not of an answer."""


@dataclass
class _Worker:
    connection: socket.socket
    pid: int | None = None
    """Known once the worker has greeted."""
    buffer: bytes = b""
    request: int = -1
    """The index of the request that it works on."""
    deadline: float = 0.0

    def read_line(self) -> bytes | None:
        """The next line when it has come whole, b"" when not, None when the worker is gone."""
        try:
            received = self.connection.recv(1 << 16)
        except (ConnectionError, OSError):
            return None
        if not received:
            return None
        self.buffer += received
        line, newline, rest = self.buffer.partition(b"\n")
        if not newline:
            return b""
        self.buffer = rest
        return line


class WorkerPool:
    """At most `max_workers` processes, each with at most `memory_bytes` of address space; started when first needed.

    Safe to use from several threads. Not usable in another process than the one that made it (see `Grader`).
    """

    def __init__(self, max_workers: int, memory_bytes: int) -> None:
        self.max_workers = max_workers
        self.memory_bytes = memory_bytes
        self._condition = threading.Condition()
        self._idle: list[_Worker] = []
        self._busy = 0
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def run(self, requests: Sequence[tuple[str, str]], seconds: float) -> list[Verdict]:
        """The verdicts for pairs (gold, answer), in their order, each within `seconds` of its start."""
        verdicts: list[Verdict] = [None] * len(requests)
        waiting = deque(range(len(requests)))
        active: dict[socket.socket, _Worker] = {}
        with selectors.DefaultSelector() as selector:
            try:
                while waiting or active:
                    while waiting:
                        worker = self._take(wait=not active)
                        if worker is None:
                            break
                        worker.request = waiting.popleft()
                        active[worker.connection] = worker
                        selector.register(worker.connection, selectors.EVENT_READ, worker)
                        worker.deadline = time.monotonic() + START_SECONDS
                        if worker.pid is not None:
                            self._send(worker, requests[worker.request], seconds)
                    first = min(worker.deadline for worker in active.values())
                    for key, _ in selector.select(max(0.0, first - time.monotonic())):
                        worker = key.data
                        line = worker.read_line()
                        if line == b"":
                            continue
                        if line is not None and worker.pid is None:
                            worker.pid = int(line)
                            self._send(worker, requests[worker.request], seconds)
                            continue
                        verdicts[worker.request] = Outcome.CRASHED if line is None else json.loads(line)[0]
                        self._release(active, selector, worker, alive=line is not None)
                    now = time.monotonic()
                    for worker in [worker for worker in active.values() if worker.deadline <= now]:
                        verdicts[worker.request] = Outcome.TIMEOUT
                        self._release(active, selector, worker, alive=False)
            finally:
                for worker in list(active.values()):  # only after an exception, such as a keyboard interrupt
                    self._release(active, selector, worker, alive=False)
        return verdicts

    def warm_up(self) -> None:
        """Start the process that imports the computer algebra, without waiting for it."""
        with self._condition:
            self._start()

    def close(self) -> None:
        """End all processes and wait for them."""
        with self._condition:
            for worker in self._idle:
                worker.connection.close()
            self._idle.clear()
            if self._control is not None:
                self._control.close()
            if self._process is not None:
                self._process.wait()
            if self._errors is not None:
                self._errors.close()
            self._control = self._process = self._errors = None

    def abandon(self) -> None:
        """Let go of what was inherited by a fork, without touching the processes: they belong to the parent."""
        for connection in [worker.connection for worker in self._idle] + ([self._control] if self._control else []):
            connection.close()
        if self._process is not None:
            self._process.returncode = 0  # not a child of this process: nothing to wait for
        self._control = self._process = None

    def _send(self, worker: _Worker, request: tuple[str, str], seconds: float) -> None:
        worker.deadline = time.monotonic() + seconds
        try:
            worker.connection.sendall(json.dumps([*request, seconds]).encode() + b"\n")
        except OSError:
            pass  # it died while idle; reading from it says so

    def _take(self, wait: bool) -> _Worker | None:
        """An idle worker or a new one; None when all are busy (`wait`: wait for one instead)."""
        with self._condition:
            while not self._idle and self._busy >= self.max_workers:
                if not wait:
                    return None
                self._condition.wait()
            worker = self._idle.pop() if self._idle else self._spawn()
            self._busy += 1
            return worker

    def _release(self, active: dict[socket.socket, _Worker], selector: selectors.BaseSelector, worker: _Worker, alive: bool) -> None:
        del active[worker.connection]
        selector.unregister(worker.connection)
        worker.request = -1
        with self._condition:
            self._busy -= 1
            if alive:
                self._idle.append(worker)
            else:
                self._kill(worker)
            self._condition.notify()

    def _kill(self, worker: _Worker) -> None:
        worker.connection.close()
        if self._control is not None and worker.pid is not None:
            try:
                self._control.send(b"K%d" % worker.pid)
            except OSError:
                self._stop_process()

    def _spawn(self) -> _Worker:
        """A new worker; it greets when it is ready."""
        for attempt in range(2):
            control = self._start()
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    socket.send_fds(control, [b"S"], [theirs.fileno()])
                    return _Worker(ours)
                except OSError:
                    ours.close()
                    message = self._stop_process()
                    if attempt:
                        raise WorkersUnavailableError(f"The grading worker can't be started: {message}") from None
        raise AssertionError("unreachable")

    def _start(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._stop_process()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package_root = str(Path(__file__).resolve().parents[2])
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")])))
        self._errors = tempfile.TemporaryFile()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "r1rl.grading.worker", str(theirs.fileno()), str(self.memory_bytes)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )
        self._control = ours
        return ours

    def _stop_process(self) -> str:
        """Forget a process that is gone or no longer answers; returns the end of what it wrote to its error output."""
        message = ""
        for worker in self._idle:
            worker.connection.close()
        self._idle.clear()
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._errors is not None:
            self._errors.seek(0)
            message = self._errors.read()[-500:].decode(errors="replace").strip()
            self._errors.close()
        self._control = self._process = self._errors = None
        return message
