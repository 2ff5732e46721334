"""The process behind the symbolic stage: `python -m r1rl.grading.worker FD MEMORY`.

It imports the computer algebra once and then forks a worker for every socket that it is handed over the
control socket FD, so that a worker that had to be killed is replaced in milliseconds. This process itself
computes nothing and has one thread, so it always answers and may always fork. It ends, with every worker,
when the control socket closes or its parent is gone.

Messages on the control socket are lines: "S", with a socket attached, starts a worker on it; "K" and a
process id kill one. On a worker's socket the worker first greets with its process id. Requests are then
`[gold, answer, seconds]` and replies `[verdict]`, each a line of JSON.
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

from r1rl.grading import symbolic

POLL_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


def main(control_fd: int, memory_bytes: int) -> None:
    """Serve the control socket until it closes. Workers get at most `memory_bytes` of address space."""
    symbolic.warm_up()
    parent = os.getppid()
    workers: set[int] = set()
    buffer = b""
    sockets: list[int] = []
    with socket.socket(fileno=control_fd) as control:
        while os.getppid() == parent:
            _reap(workers)
            if not select.select([control], [], [], POLL_SECONDS)[0]:
                continue
            data, fds, _, _ = socket.recv_fds(control, 4096, 16)
            if not data:
                break
            sockets += fds
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                if line == b"S":
                    workers.add(_fork(control, sockets.pop(0), memory_bytes))
                else:
                    _kill(int(line[1:]), workers)
        for pid in list(workers):
            _kill(pid, workers)


def _fork(control: socket.socket, fd: int, memory_bytes: int) -> int:
    """Start a worker that serves the socket `fd`, and return its process id."""
    pid = os.fork()
    if pid == 0:
        control.close()
        _serve(socket.socket(fileno=fd), memory_bytes)
    os.close(fd)
    return pid


def _kill(pid: int, workers: set[int]) -> None:
    """Kill a worker that this process started and has not reaped yet.

    Because it is not reaped, its id can't have been given to another process.
    """
    if pid in workers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        workers.discard(pid)


def _reap(workers: set[int]) -> None:
    for pid in list(workers):
        if os.waitpid(pid, os.WNOHANG)[0]:
            workers.discard(pid)


def _serve(connection: socket.socket, memory_bytes: int) -> None:
    """Serve the requests of one worker until the socket closes, then end the process."""
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
            stream.write(json.dumps([_decide(gold, answer)]) + "\n")
            stream.flush()
        status = 0
    finally:
        os._exit(status)


def _limit_cpu(seconds: float) -> None:
    """Make the kernel end this process if it computes for much longer than its limit.

    This is for the case that nobody is left to kill it.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _decide(gold: str, answer: str) -> bool | None:
    try:
        return symbolic.decide(gold, answer)
    except MemoryError:
        os._exit(1)  # reported as a crash; the memory of this process can't be trusted any more
    except Exception:
        return None  # whatever the algebra trips over is an answer that it can't read


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
