"""The start of several processes on a CPU, as `accelerate launch --cpu --num_processes N` asks for.

accelerate leaves the starting of CPU processes to MPI: without a host file its launcher starts one process
only, and a run that was meant for N would quietly use one. This module notices that and starts the N
processes with torch's launcher.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType

import psutil

SECONDS_TO_SAVE = 3600
"""Seconds that the launcher waits after Ctrl-C before it kills: a run ends its step and saves first. The
launcher's own default is 30.
"""


def missing_cpu_processes() -> int:
    """Return the number of processes that accelerate's launcher was asked for but did not start; 0 when
    nothing is missing.
    """
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("true", "1") or "WORLD_SIZE" in os.environ:
        return 0
    try:
        arguments = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return 0
    # `accelerate launch`, `python -m accelerate.commands.launch`
    if not any("accelerate" in argument for argument in arguments[:4]):
        return 0
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in ("--num_processes", "--num-processes"):
            value = value or arguments[position + 1]
            return int(value) if value.isdigit() and int(value) > 1 else 0
    return 0


def start_processes(count: int, arguments: list[str]) -> int:
    """Run `python -m r1rl ARGUMENTS` in `count` processes that find each other, and return the exit code.

    Each process gets its share of the cores: without that, the processes' threads would wait for each other.
    They are a session of their own and get each Ctrl-C or SIGTERM once, from here; this process waits until
    they have saved.
    """
    threads = max(1, (os.cpu_count() or 1) // count)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SECONDS_TO_SAVE),
        **os.environ,
    }
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(count),
        "-m",
        "r1rl",
        *arguments,
    ]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    received = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    former = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if received:  # torch's launcher ends with an error of its own then
        raise KeyboardInterrupt
    return code
