"""The process behind the symbolic stage: `python -m r1rl.grading.worker FD MEMORY`.

It imports the computer algebra once and then forks a worker for every socket that it is handed over the control socket FD, so
that a worker that had to be killed is replaced in milliseconds. This process itself computes nothing and has one thread, so it
always answers and may always fork. It ends, with every worker, when the control socket closes or its parent is gone.

Messages on the control socket: "S" with a socket attached starts a worker on it, "K" and a process id kills one. On a worker's
socket: the worker greets with its process id; then requests `[gold, answer, seconds]` and replies `[verdict]` or
`[null, error]`, each a line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

POLL_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


def main(control_fd: int, memory_bytes: int) -> None:
    """Serve the control socket until it closes. Workers get at most `memory_bytes` of address space."""
    from r1rl.grading import symbolic

    symbolic.decide("x^{2}", "x \\cdot x")  # loads the grammar, which every worker then shares
    parent = os.getppid()
    workers: set[int] = set()
    with socket.socket(fileno=control_fd) as control:
        while os.getppid() == parent:
            _reap(workers)
            if not select.select([control], [], [], POLL_SECONDS)[0]:
                continue
            message, fds, _, _ = socket.recv_fds(control, 64, 1)
            if not message:
                break
            if message[:1] == b"S" and fds:
                pid = os.fork()
                if pid == 0:
                    control.close()
                    _serve(socket.socket(fileno=fds[0]), memory_bytes)
                workers.add(pid)
                os.close(fds[0])
            elif message[:1] == b"K":
                _kill(int(message[1:]), workers)
        for pid in list(workers):
            _kill(pid, workers)


def _kill(pid: int, workers: set[int]) -> None:
    """Kill a worker that this process started and has not reaped yet: the id can't have been given to another process."""
    if pid in workers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        workers.discard(pid)


def _reap(workers: set[int]) -> None:
    for pid in list(workers):
        if os.waitpid(pid, os.WNOHANG)[0]:
            workers.discard(pid)


def _serve(connection: socket.socket, memory_bytes: int) -> None:
    """The life of one worker: requests until the socket closes. Never returns."""
    status = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        stream = connection.makefile("rw", encoding="utf-8", newline="\n")
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        for line in stream:
            gold, answer, seconds = json.loads(line)
            _limit_cpu(seconds)
            stream.write(json.dumps(_decide(gold, answer)) + "\n")
            stream.flush()
        status = 0
    finally:
        os._exit(status)


def _limit_cpu(seconds: float) -> None:
    """The kernel ends this process when it computes for much longer than its limit, should nobody be left to kill it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _decide(gold: str, answer: str) -> list[Any]:
    from r1rl.grading import symbolic

    try:
        return [symbolic.decide(gold, answer)]
    except MemoryError:
        os._exit(1)
    except Exception as error:  # whatever the algebra trips over is an answer that it can't read
        return [None, type(error).__name__]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
