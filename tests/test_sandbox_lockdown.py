"""The system-call filter, run by a small interpreter of its instructions, and the sandbox without
Landlock.
"""

from __future__ import annotations

import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

SANDBOX = Path(__file__).parents[1] / "r1rl" / "sandbox"
MACHINES = ("x86_64", "aarch64")
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
PID = 4321

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="seccomp is Linux's")


@pytest.fixture
def lockdown(monkeypatch):
    """Return the module as the sandbox's process imports it, from its own folder."""
    monkeypatch.syspath_prepend(str(SANDBOX))
    import lockdown

    yield lockdown
    for name in ("lockdown", "syscalls"):
        sys.modules.pop(name, None)


def decide(program, architecture, number, *arguments):
    """Interpret classic BPF: what the kernel would answer to a system call."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack("HBBI", program[at])
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        elif code == 0x06:
            return value
        else:
            true = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[
                code
            ]
            at += if_true if true else if_false


@pytest.fixture(params=MACHINES)
def call(request, lockdown):
    """Decide a system call by name on one machine, with files readable."""
    machine = request.param
    program = lockdown.filter_program(machine, PID, may_open=True)
    numbers = {**lockdown.PLAIN, **lockdown.SPECIAL}

    def answer(name, *arguments):
        return decide(program, lockdown.AUDIT_ARCHITECTURES[machine], numbers[name][machine], *arguments)

    return answer


# Numbers from the kernel's tables (asm/unistd_64.h; asm-generic/unistd.h for 64-bit ARM).
REFUSED = {
    "x86_64": {
        "socket": 41, "connect": 42, "sendmsg": 46, "bind": 49, "fork": 57, "vfork": 58, "execve": 59,
        "kill": 62, "rename": 82, "mkdir": 83, "creat": 85, "link": 86, "unlink": 87, "symlink": 88,
        "chmod": 90, "chown": 92, "ptrace": 101, "setuid": 105, "setsid": 112, "setpriority": 141,
        "chroot": 161, "mount": 165, "setrlimit": 160, "tkill": 200, "unshare": 272, "process_vm_readv": 310,
        "memfd_create": 319, "bpf": 321, "execveat": 322, "pidfd_send_signal": 424, "io_uring_setup": 425,
        "pidfd_open": 434, "prctl": 157, "truncate": 76, "shmget": 29, "open_by_handle_at": 304,
        "keyctl": 250, "rt_sigqueueinfo": 129, "setns": 308, "pidfd_getfd": 438,
    },
    "aarch64": {
        "socket": 198, "connect": 203, "sendmsg": 211, "bind": 200, "execve": 221, "kill": 129,
        "renameat": 38, "mkdirat": 34, "linkat": 37, "unlinkat": 35, "symlinkat": 36, "fchmodat": 53,
        "fchownat": 54, "ptrace": 117, "setuid": 146, "setsid": 157, "setpriority": 140, "chroot": 51,
        "mount": 40, "setrlimit": 164, "tkill": 130, "unshare": 97, "process_vm_readv": 270,
        "memfd_create": 279, "bpf": 280, "execveat": 281, "pidfd_send_signal": 424, "io_uring_setup": 425,
        "pidfd_open": 434, "prctl": 167, "truncate": 45, "shmget": 194, "open_by_handle_at": 265,
        "keyctl": 219, "rt_sigqueueinfo": 138, "setns": 268, "pidfd_getfd": 438,
    },
}  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("may_open", [True, False])
def test_dangerous_calls_are_refused(lockdown, machine, may_open):
    program = lockdown.filter_program(machine, PID, may_open)
    architecture = lockdown.AUDIT_ARCHITECTURES[machine]
    answers = {name: decide(program, architecture, number) for name, number in REFUSED[machine].items()}
    assert set(answers.values()) == {ERRNO | 1}, {
        name for name, answer in answers.items() if answer != ERRNO | 1
    }
    assert len(program) < 4096  # the kernel's limit


@pytest.mark.parametrize("machine", MACHINES)
def test_other_architectures_and_number_ranges_are_refused(lockdown, machine):
    program = lockdown.filter_program(machine, PID, may_open=True)
    assert decide(program, 0x40000003, 0) == KILL  # 32-bit x86, where number 0 is another call
    assert decide(program, lockdown.AUDIT_ARCHITECTURES[machine], 0x40000000) == ERRNO | 1  # x32's read
    assert decide(program, lockdown.AUDIT_ARCHITECTURES[machine], 1000) == ERRNO | 1  # calls of the future


def test_plain_calls_are_allowed(call):
    for name in ("read", "write", "mmap", "brk", "futex", "exit_group", "getrandom", "clock_nanosleep"):
        assert call(name) == ALLOW


def test_calls_that_depend_on_their_arguments(call):
    thread, process = 0x3D0F00, 0x01200011  # what the C library passes for a thread and for fork()
    assert call("clone", thread) == ALLOW and call("clone", process) == ERRNO | 1
    assert call("clone3") == ERRNO | 38 and call("openat2") == ERRNO | 38
    assert call("openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC) == ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND, 0o20000000):
        assert call("openat", 0, 0, flags) == ERRNO | 13
    assert call("tgkill", PID, 1, 6) == ALLOW and call("tgkill", PID + 1, 1, 6) == ERRNO | 1
    assert call("prlimit64", 0, 7, 0, 1) == ALLOW and call("prlimit64", PID, 7, 0, 1) == ALLOW
    assert call("prlimit64", 0, 7, 1, 0) == ERRNO | 1 and call("prlimit64", 0, 7, 1 << 32, 0) == ERRNO | 1
    assert call("prlimit64", 1, 7, 0, 1) == ERRNO | 1
    # TIOCSTI types into a terminal.
    assert call("ioctl", 0, 0x5401) == ALLOW and call("ioctl", 0, 0x5412) == ERRNO | 25
    # F_SETOWN sends signals to others.
    assert call("fcntl", 0, 3) == ALLOW and call("fcntl", 0, 8) == ERRNO | 1
    assert call("sendto", 3, 1, 1, 0, 0) == ALLOW and call("sendto", 3, 1, 1, 0, 1 << 40) == ERRNO | 1


@pytest.mark.parametrize("machine", MACHINES)
def test_no_file_is_opened_without_landlock(lockdown, machine):
    program = lockdown.filter_program(machine, PID, may_open=False)
    number = lockdown.SPECIAL["openat"][machine]
    assert decide(program, lockdown.AUDIT_ARCHITECTURES[machine], number, 0, 0, os.O_RDONLY) == ERRNO | 13


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="no filter for this machine")
def test_without_landlock_a_program_reads_nothing_but_still_runs(tmp_path):
    """The real child process on a kernel that is made to look as if it had no Landlock."""
    patch = (
        f"import runpy, sys\nsys.path.insert(0, {str(SANDBOX)!r})\nimport lockdown\nsyscall = "
        f"lockdown._libc.syscall\n"
        "lockdown._libc.syscall = lambda number, *rest: -1 if number == 444 else syscall(number, *rest)\n"
        f"sys.argv = sys.argv[1:]\nrunpy.run_path({str(SANDBOX / 'child.py')!r}, run_name='__main__')\n"
    )
    secret = tmp_path / "secret"
    secret.write_text("x")
    code = (
        "import heapq, statistics, sys\nprint(statistics.mean([int(line) for line in sys.stdin]))\n"
        f"for path in ({str(secret)!r}, '/etc/passwd', __import__('os').__file__):\n"
        "    try:\n        open(path)\n        print('open')\n    except PermissionError:\n        "
        "print('refused')\n"
    ).encode()
    ready, end = os.pipe()
    child = subprocess.run(
        [sys.executable, "-I", "-S", "-c", patch, "child.py", "program", str(end), "-1"],
        input=f"{len(code)} {256 << 20} 5\n".encode() + code + b"3\n5\n",
        capture_output=True,
        pass_fds=[end],
        timeout=30,
    )
    os.close(end)
    assert child.stdout.decode().split() == ["4", "refused", "refused", "refused"], child.stderr.decode()
    assert os.read(ready, 10) == b"1"
    os.close(ready)
