"""The processes of a stage: started in a session of their own, heard, told once of Ctrl-C, and never left
behind by a pipeline that is gone.

Every process of a stage carries a mark in its environment. A pipeline that was killed leaves them to end by
themselves; on Linux they get SIGTERM at that moment, on which a training saves. The next pipeline waits for
those that are still there, and ends them if need be, before it touches the stage's folder.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import psutil

MARK = "R1RL_PIPELINE_STAGE"
PATIENCE = 60.0
"""Seconds that the processes of a killed pipeline get to end by themselves."""
PR_SET_PDEATHSIG = 1
CHUNK = 65536
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_process(words: Sequence[str], folder: Path, log: Path) -> int:
    """Run a command until it ends, its output shown and added to `log`, and return its exit code (minus the
    signal that ended it).

    SIGINT, SIGTERM and SIGHUP are passed on, each once; then KeyboardInterrupt is raised as soon as the
    command has ended.
    """
    environment = {**os.environ, MARK: mark_of(folder), "PYTHONUNBUFFERED": "1"}
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if process is not None:
            process.send_signal(number)

    process: subprocess.Popen[bytes] | None = None
    former: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        with log.open("ab") as file:
            process = subprocess.Popen(
                list(words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_ends_with(os.getpid()),
            )
            if received:  # a signal that came before there was a process to pass it on to
                process.send_signal(received[-1])
            assert process.stdout is not None
            reader = threading.Thread(target=_copy, args=(process.stdout, file), daemon=True)
            reader.start()
            code = process.wait()
            reader.join(
                timeout=5.0
            )  # a process of the stage that outlives its main one may hold the pipe open
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
    return code


def mark_of(folder: Path) -> str:
    """Return the mark that the processes of a stage carry in their environment."""
    return str(folder.resolve())


def clear_survivors(pipeline: Path, tell: Callable[[str], None], patience: float = PATIENCE) -> None:
    """Wait until no process of any stage is left from a pipeline that was killed, and end those that stay
    longer than `patience`.
    """
    found = _marked(pipeline)
    if not found:
        return
    tell(
        f"{len(found)} process(es) of this pipeline, which was killed, are still at work; waiting up to "
        f"{patience:g} s for them."
    )
    _, alive = psutil.wait_procs(found, timeout=patience)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=10.0)


def _marked(pipeline: Path) -> list[psutil.Process]:
    found, prefix = [], f"{mark_of(pipeline)}/"
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(prefix):
                found.append(process)
        except (psutil.Error, OSError):  # another user's, or gone meanwhile
            continue
    return found


def _ends_with(parent: int) -> Callable[[], None] | None:
    """Return a function that a new process calls so that it gets SIGTERM when `parent` dies, however that
    happens; None where the system is not Linux.
    """
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before it could be said
            os._exit(1)

    return prepare


def _copy(source: BinaryIO, log: BinaryIO) -> None:
    """Copy everything to the log at once, and to the terminal as far as there is one that listens."""
    shown, decoder = True, codecs.getincrementaldecoder("utf-8")(errors="replace")
    while chunk := os.read(source.fileno(), CHUNK):
        log.write(chunk)
        log.flush()
        if shown:
            try:
                sys.stdout.write(decoder.decode(chunk))
                sys.stdout.flush()
            except (OSError, ValueError):  # a closed pipe or terminal ends the showing, not the stage
                shown = False
