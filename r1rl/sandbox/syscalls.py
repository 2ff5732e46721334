"""The numbers of the system calls that a sandboxed program may use (Linux, x86-64 and 64-bit ARM).

All other system calls are refused.
"""

from __future__ import annotations

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

PLAIN: dict[str, dict[str, int]] = {
    # Reading and writing files that are open already.
    "read": {"x86_64": 0, "aarch64": 63},
    "write": {"x86_64": 1, "aarch64": 64},
    "close": {"x86_64": 3, "aarch64": 57},
    "readv": {"x86_64": 19, "aarch64": 65},
    "writev": {"x86_64": 20, "aarch64": 66},
    "pread64": {"x86_64": 17, "aarch64": 67},
    "lseek": {"x86_64": 8, "aarch64": 62},
    "fstat": {"x86_64": 5, "aarch64": 80},
    "dup": {"x86_64": 32, "aarch64": 23},
    "dup2": {"x86_64": 33},
    "dup3": {"x86_64": 292, "aarch64": 24},
    "pipe": {"x86_64": 22},
    "pipe2": {"x86_64": 293, "aarch64": 59},
    "close_range": {"x86_64": 436, "aarch64": 436},
    "fadvise64": {"x86_64": 221, "aarch64": 223},
    "getdents64": {"x86_64": 217, "aarch64": 61},
    # Waiting for them.
    "select": {"x86_64": 23},
    "pselect6": {"x86_64": 270, "aarch64": 72},
    "poll": {"x86_64": 7},
    "ppoll": {"x86_64": 271, "aarch64": 73},
    "epoll_create1": {"x86_64": 291, "aarch64": 20},
    "epoll_ctl": {"x86_64": 233, "aarch64": 21},
    "epoll_wait": {"x86_64": 232},
    "epoll_pwait": {"x86_64": 281, "aarch64": 22},
    "eventfd2": {"x86_64": 290, "aarch64": 19},
    "socketpair": {"x86_64": 53, "aarch64": 199},
    "recvfrom": {"x86_64": 45, "aarch64": 207},
    # Metadata by name (Landlock does not cover it: a program can learn that a file exists, not what is in
    # it).
    "stat": {"x86_64": 4},
    "lstat": {"x86_64": 6},
    "newfstatat": {"x86_64": 262, "aarch64": 79},
    "statx": {"x86_64": 332, "aarch64": 291},
    "access": {"x86_64": 21},
    "faccessat": {"x86_64": 269, "aarch64": 48},
    "faccessat2": {"x86_64": 439, "aarch64": 439},
    "readlink": {"x86_64": 89},
    "readlinkat": {"x86_64": 267, "aarch64": 78},
    "getcwd": {"x86_64": 79, "aarch64": 17},
    # Memory.
    "mmap": {"x86_64": 9, "aarch64": 222},
    "mprotect": {"x86_64": 10, "aarch64": 226},
    "munmap": {"x86_64": 11, "aarch64": 215},
    "brk": {"x86_64": 12, "aarch64": 214},
    "mremap": {"x86_64": 25, "aarch64": 216},
    "madvise": {"x86_64": 28, "aarch64": 233},
    "mincore": {"x86_64": 27, "aarch64": 232},
    "membarrier": {"x86_64": 324, "aarch64": 283},
    # Signals to itself, timers, sleeping.
    "rt_sigaction": {"x86_64": 13, "aarch64": 134},
    "rt_sigprocmask": {"x86_64": 14, "aarch64": 135},
    "rt_sigreturn": {"x86_64": 15, "aarch64": 139},
    "rt_sigpending": {"x86_64": 127, "aarch64": 136},
    "rt_sigtimedwait": {"x86_64": 128, "aarch64": 137},
    "rt_sigsuspend": {"x86_64": 130, "aarch64": 133},
    "sigaltstack": {"x86_64": 131, "aarch64": 132},
    "pause": {"x86_64": 34},
    "alarm": {"x86_64": 37},
    "getitimer": {"x86_64": 36, "aarch64": 102},
    "setitimer": {"x86_64": 38, "aarch64": 103},
    "nanosleep": {"x86_64": 35, "aarch64": 101},
    "clock_nanosleep": {"x86_64": 230, "aarch64": 115},
    "restart_syscall": {"x86_64": 219, "aarch64": 128},
    # Threads.
    "futex": {"x86_64": 202, "aarch64": 98},
    "set_tid_address": {"x86_64": 218, "aarch64": 96},
    "set_robust_list": {"x86_64": 273, "aarch64": 99},
    "get_robust_list": {"x86_64": 274, "aarch64": 100},
    "rseq": {"x86_64": 334, "aarch64": 293},
    "sched_yield": {"x86_64": 24, "aarch64": 124},
    "sched_getaffinity": {"x86_64": 204, "aarch64": 123},
    # Identity and time.
    "getpid": {"x86_64": 39, "aarch64": 172},
    "getppid": {"x86_64": 110, "aarch64": 173},
    "gettid": {"x86_64": 186, "aarch64": 178},
    "getuid": {"x86_64": 102, "aarch64": 174},
    "geteuid": {"x86_64": 107, "aarch64": 175},
    "getgid": {"x86_64": 104, "aarch64": 176},
    "getegid": {"x86_64": 108, "aarch64": 177},
    "getpgrp": {"x86_64": 111},
    "getgroups": {"x86_64": 115, "aarch64": 158},
    "umask": {"x86_64": 95, "aarch64": 166},
    "uname": {"x86_64": 63, "aarch64": 160},
    "sysinfo": {"x86_64": 99, "aarch64": 179},
    "times": {"x86_64": 100, "aarch64": 153},
    "time": {"x86_64": 201},
    "gettimeofday": {"x86_64": 96, "aarch64": 169},
    "clock_gettime": {"x86_64": 228, "aarch64": 113},
    "clock_getres": {"x86_64": 229, "aarch64": 114},
    "getrlimit": {"x86_64": 97, "aarch64": 163},
    "getrusage": {"x86_64": 98, "aarch64": 165},
    "getrandom": {"x86_64": 318, "aarch64": 278},
    # The end.
    "exit": {"x86_64": 60, "aarch64": 93},
    "exit_group": {"x86_64": 231, "aarch64": 94},
    "wait4": {"x86_64": 61, "aarch64": 260},
    "waitid": {"x86_64": 247, "aarch64": 95},
}
"""The system calls that are allowed whatever their arguments."""

SPECIAL: dict[str, dict[str, int]] = {
    "clone": {"x86_64": 56, "aarch64": 220},
    "clone3": {"x86_64": 435, "aarch64": 435},
    "open": {"x86_64": 2},
    "openat": {"x86_64": 257, "aarch64": 56},
    "openat2": {"x86_64": 437, "aarch64": 437},
    "tgkill": {"x86_64": 234, "aarch64": 131},
    "prlimit64": {"x86_64": 302, "aarch64": 261},
    "ioctl": {"x86_64": 16, "aarch64": 29},
    "fcntl": {"x86_64": 72, "aarch64": 25},
    "sendto": {"x86_64": 44, "aarch64": 206},
}
"""The system calls that are allowed or refused by their arguments; lockdown.py says how."""
