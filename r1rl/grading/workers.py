"""A pool of killable processes for the symbolic stage, with a time limit per request that holds whatever a
request computes.

The limit is kept from outside: the caller waits on the worker's socket and has the worker killed when the
time is over. Neither threads nor signals could do that to a computation that holds the interpreter lock.
Processes are started through `subprocess` from a module of their own. So a script needs no `if __name__ ==
"__main__"`, and nothing of the caller (threads, CUDA, open files) is inherited.
"""

from __future__ import annotations

import contextlib
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
"""The most seconds that the first worker may take to import the computer algebra. They are not part of a
request's limit.
"""

Verdict = bool | None | Outcome
"""A reply: equal, not equal, unreadable (None), or `Outcome.TIMEOUT` or `Outcome.CRASHED`."""


class WorkersUnavailableError(RuntimeError):
    """The worker process can't be started at all: a fault of the installation, not of an answer."""


@dataclass(eq=False)
class _Worker:
    connection: socket.socket
    pid: int | None = None
    """The process id, known once the worker has greeted."""
    buffer: bytes = b""
    request: int = -1
    """The index of the request that the worker computes."""
    deadline: float = 0.0

    def send(self, batch: _Batch) -> None:
        """Send the worker its request. The limit counts from now on."""
        self.deadline = time.monotonic() + batch.seconds
        with contextlib.suppress(OSError):  # it died while idle; reading from it says so
            self.connection.sendall(
                json.dumps([*batch.requests[self.request], batch.seconds]).encode() + b"\n"
            )

    def read_line(self) -> bytes | None:
        """Return the next line if it has arrived whole, b"" if not, and None if the worker is gone."""
        try:
            received = self.connection.recv(1 << 16)
        except OSError:
            return None
        if not received:
            return None
        self.buffer += received
        line, newline, rest = self.buffer.partition(b"\n")
        if not newline:
            return b""
        self.buffer = rest
        return line


@dataclass
class _Batch:
    """The requests of one call of `run`, and their progress."""

    requests: Sequence[tuple[str, str]]
    seconds: float
    starts_left: int = 1
    """The number of times that a worker may still fail to start before the call gives up."""

    def __post_init__(self) -> None:
        self.verdicts: list[Verdict] = [None] * len(self.requests)
        self.waiting = deque(range(len(self.requests)))
        self.active: list[_Worker] = []


class WorkerPool:
    """A pool of at most `max_workers` processes, each with at most `memory_bytes` of address space, started
    when first needed.

    It may be used from several threads, but only in the process that made it (see `Grader`).
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
        """Return the verdicts for pairs (gold, answer), in their order, each within `seconds` of its start.

        Raise `WorkersUnavailableError` if no worker can be started at all.
        """
        batch = _Batch(requests, seconds)
        with selectors.DefaultSelector() as selector:
            try:
                while batch.waiting or batch.active:
                    self._hand_out(batch, selector)
                    first = min(worker.deadline for worker in batch.active)
                    for key, _ in selector.select(max(0.0, first - time.monotonic())):
                        self._hear(key.data, batch, selector)
                    now = time.monotonic()
                    for worker in [worker for worker in batch.active if worker.deadline <= now]:
                        self._lose(worker, Outcome.TIMEOUT, batch, selector)
            finally:
                for worker in list(batch.active):  # only after an exception, such as a keyboard interrupt
                    self._release(worker, batch, selector, alive=False)
        return batch.verdicts

    def _hand_out(self, batch: _Batch, selector: selectors.BaseSelector) -> None:
        """Give waiting requests to workers, to as many as there may be, and wait for one if the batch has
        none.
        """
        while batch.waiting:
            worker = self._take(wait=not batch.active)
            if worker is None:
                return
            worker.request = batch.waiting.popleft()
            batch.active.append(worker)
            selector.register(worker.connection, selectors.EVENT_READ, worker)
            worker.deadline = time.monotonic() + START_SECONDS
            if worker.pid is not None:
                worker.send(batch)

    def _hear(self, worker: _Worker, batch: _Batch, selector: selectors.BaseSelector) -> None:
        """Read a worker's message: its greeting, a verdict, or that it is gone."""
        line = worker.read_line()
        if line is None:
            self._lose(worker, Outcome.CRASHED, batch, selector)
        elif line and worker.pid is None:
            worker.pid = int(line)
            worker.send(batch)
        elif line:
            batch.verdicts[worker.request] = json.loads(line)[0]
            self._release(worker, batch, selector, alive=True)

    def _lose(
        self, worker: _Worker, outcome: Outcome, batch: _Batch, selector: selectors.BaseSelector
    ) -> None:
        """Handle a worker that died or ran out of time.

        One that never greeted says nothing about its request, which is tried again once.
        """
        if worker.pid is None:
            with self._condition:
                message = self._stop_process()
            if batch.starts_left == 0:
                raise WorkersUnavailableError(
                    f"The grading workers can't be started: {message or 'they did not answer'}"
                )
            batch.starts_left -= 1
            batch.waiting.appendleft(worker.request)
        else:
            batch.verdicts[worker.request] = outcome
        self._release(worker, batch, selector, alive=False)

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
        """Let go of everything inherited by a fork, without touching the processes, which belong to the
        parent.
        """
        for connection in [worker.connection for worker in self._idle] + (
            [self._control] if self._control else []
        ):
            connection.close()
        if self._process is not None:
            self._process.returncode = 0  # not a child of this process: nothing to wait for
        self._control = self._process = None

    def _take(self, wait: bool) -> _Worker | None:
        """Return an idle worker or a new one, or None if all are busy; with `wait`, wait for one instead."""
        with self._condition:
            while not self._idle and self._busy >= self.max_workers:
                if not wait:
                    return None
                self._condition.wait()
            worker = self._idle.pop() if self._idle else self._spawn()
            self._busy += 1
            return worker

    def _release(self, worker: _Worker, batch: _Batch, selector: selectors.BaseSelector, alive: bool) -> None:
        batch.active.remove(worker)
        selector.unregister(worker.connection)
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
                self._control.sendall(b"K%d\n" % worker.pid)
            except OSError:
                self._stop_process()

    def _spawn(self) -> _Worker:
        """Start a new worker, which greets when it is ready. A process that is gone is started again."""
        self._start()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                assert self._control is not None
                socket.send_fds(self._control, [b"S\n"], [theirs.fileno()])
            except OSError:  # it died this moment: without its greeting the request is tried again
                theirs.close()
        return _Worker(ours)

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._stop_process()
        ours, theirs = socket.socketpair()
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(filter(None, paths)))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process lives
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "ignore",
                    "-m",
                    "r1rl.grading.worker",
                    str(theirs.fileno()),
                    str(self.memory_bytes),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )
        self._control = ours

    def _stop_process(self) -> str:
        """Forget a process that is gone or no longer answers, and return the end of its error output."""
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
