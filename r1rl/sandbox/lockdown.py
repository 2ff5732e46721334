"""The removal of a process's rights, from inside it: limits, user, Landlock (files, network), seccomp (system
calls).

It runs in the sandbox's child process before that looks at the program, with the standard library only. Every
step is an interface of Linux itself: setrlimit(2), capset(2), landlock(7), seccomp(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct

from syscalls import (  # beside this file; the child puts this folder on its path
    AUDIT_ARCHITECTURES,
    PLAIN,
    SPECIAL,
)

TYPE_CHECKING = False  # importing typing takes longer than a small test
if TYPE_CHECKING:
    from collections.abc import Iterable

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 8, 22, 38
SIGKILL = 9
CAP_DAC_READ_SEARCH = 2
CLONE_NEWUSER = 0x10000000
MAX_TASKS = 64
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
CAPSET = {"x86_64": 126, "aarch64": 91}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def lock_down(memory_bytes: int, cpu_seconds: int, readable: Iterable[str]) -> dict[str, int]:
    """Give up every right but computing, reading `readable` and using the open files, and return the layers
    that hold.

    In the result, `landlock` is the kernel's Landlock version (0 if it is absent, so that no file can be
    opened at all). `tasks` is 1 if the number of threads is limited. Raise `OSError` if system calls can't be
    filtered, because nothing may be run then.
    """
    _prctl(PR_SET_PDEATHSIG, SIGKILL)
    version = max(0, _libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1))
    tasks = _leave_user(keep_reading=version > 0)
    _prctl(PR_SET_PDEATHSIG, SIGKILL)  # a change of user has cleared it
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(limit, (value, value))
    if tasks:
        resource.setrlimit(resource.RLIMIT_NPROC, (MAX_TASKS, MAX_TASKS))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if version:
        _restrict_files(version, readable)
    _filter_system_calls(may_open=version > 0)
    return {"landlock": version, "tasks": int(tasks)}


def _leave_user(keep_reading: bool) -> bool:
    """Become a user with no rights, and return whether the limit on tasks then counts this process's own
    tasks only.

    Root takes a user id that nothing else has. It keeps the right to read files (Landlock says which), as the
    standard library may lie in a folder that only root can enter. Other users take a user namespace, if the
    kernel allows it.
    """
    if os.geteuid() != 0:
        return _libc.unshare(CLONE_NEWUSER) == 0 and _set_capabilities(0)
    _prctl(PR_SET_KEEPCAPS, 1)
    user = 60_000 + os.getpid() % 5_000
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError:  # a container without the right to change users
        _set_capabilities(0)
        return False
    _set_capabilities(1 << CAP_DAC_READ_SEARCH if keep_reading else 0)
    return True


def _set_capabilities(effective: int) -> bool:
    header = struct.pack("Ii", 0x20080522, 0)
    sets = struct.pack("6I", effective, effective, 0, 0, 0, 0)
    return _libc.syscall(CAPSET[os.uname().machine], header, sets) == 0


def _restrict_files(version: int, readable: Iterable[str]) -> None:
    """Restrict files by Landlock to reading below `readable`.

    It also forbids TCP (from version 4) and signals to other processes (from version 6).
    """
    read_file, read_dir = 1 << 2, 1 << 3
    rights = (1 << (13 + (version >= 2) + (version >= 3))) - 1 | ((1 << 15) if version >= 5 else 0)
    rules = struct.pack("QQQ", rights, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _checked(
        "landlock_create_ruleset", _libc.syscall(LANDLOCK_CREATE_RULESET, rules[:size], size, 0)
    )
    for path in readable:
        if not os.path.exists(path):
            continue
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = read_file | read_dir if os.path.isdir(path) else read_file
        _checked(
            "landlock_add_rule",
            _libc.syscall(LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed, folder), 0),
        )
        os.close(folder)
    _checked("landlock_restrict_self", _libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _filter_system_calls(may_open: bool) -> None:
    """Install the filter: a call that is not listed in syscalls.py fails with "operation not permitted"."""
    program = b"".join(filter_program(os.uname().machine, os.getpid(), may_open))
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    bpf = Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _checked("seccomp", _libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(bpf), 0, 0))


LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, EACCES, ENOTTY, ENOSYS = 1, 13, 25, 38
WRITING = 0o3 | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000  # the last one: O_TMPFILE


def filter_program(machine: str, pid: int, may_open: bool) -> list[bytes]:
    """Return the seccomp filter as classic BPF instructions (8 bytes each)."""
    plain = [numbers[machine] for numbers in PLAIN.values() if machine in numbers]
    code = [_op(LOAD, 4), _op(EQUAL, AUDIT_ARCHITECTURES[machine], 1, 0), _op(RETURN, KILL), _op(LOAD, 0)]
    # These are the second set of numbers of x86-64 (x32).
    code += [_op(AT_LEAST, 0x40000000, 0, 1), _op(RETURN, ERRNO | EPERM)]
    for number in plain:
        code += [_op(EQUAL, number, 0, 1), _op(RETURN, ALLOW)]
    for name, check in _special_checks(pid, may_open).items():
        if machine in SPECIAL[name]:
            code += [_op(EQUAL, SPECIAL[name][machine], 0, len(check)), *check]
    return [*code, _op(RETURN, ERRNO | EPERM)]


def _special_checks(pid: int, may_open: bool) -> dict[str, list[bytes]]:
    """Return the checks of the system calls whose arguments decide; each check ends in a return."""
    allow, refuse, no_such_call = _op(RETURN, ALLOW), _op(RETURN, ERRNO | EPERM), _op(RETURN, ERRNO | ENOSYS)

    def opening(argument: int) -> list[bytes]:
        if not may_open:
            return [_op(RETURN, ERRNO | EACCES)]
        return [_load(argument), _op(AND, WRITING), _op(EQUAL, 0, 0, 1), allow, _op(RETURN, ERRNO | EACCES)]

    def one_of(argument: int, values: tuple[int, ...], error: int) -> list[bytes]:
        tests = [instruction for value in values for instruction in (_op(EQUAL, value, 0, 1), allow)]
        return [_load(argument), *tests, _op(RETURN, ERRNO | error)]

    def null_pointer(argument: int, then: list[bytes]) -> list[bytes]:
        return [
            _load(argument),
            _op(EQUAL, 0, 1, 0),
            refuse,
            _load(argument, high=True),
            _op(EQUAL, 0, 1, 0),
            refuse,
            *then,
        ]

    return {
        # CLONE_THREAD: threads, not processes.
        "clone": [_load(0), _op(ANY_BIT, 0x10000, 0, 1), allow, refuse],
        "clone3": [no_such_call],  # its flags are behind a pointer; the C library falls back to clone
        "openat2": [no_such_call],
        "open": opening(1),
        "openat": opening(2),
        "tgkill": one_of(0, (pid,), EPERM),  # abort()
        "prlimit64": null_pointer(2, one_of(0, (0, pid), EPERM)),  # reading its own limits
        # TCGETS FIONREAD FIONBIO FIONCLEX FIOCLEX
        "ioctl": one_of(1, (0x5401, 0x541B, 0x5421, 0x5450, 0x5451), ENOTTY),
        # Duplicate, get and set flags; no signals to an owner.
        "fcntl": one_of(1, (0, 1, 2, 3, 4, 1030), EPERM),
        "sendto": null_pointer(4, [allow]),  # within a socketpair (asyncio's wake-up), to no address
    }


def _load(argument: int, high: bool = False) -> bytes:
    return _op(LOAD, 16 + 8 * argument + 4 * high)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _prctl(option: int, value: int) -> None:
    _checked("prctl", _libc.prctl(option, value, 0, 0, 0))


def _checked(what: str, result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
