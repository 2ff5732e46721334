"""The code reward: honest programs score, others don't, and hostile ones reach nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from r1rl.errors import RewardError
from r1rl.sandbox import Limits, TestResult, require_sandbox, run_assert_test, run_stdin_test, same_output
from tests.reward_helpers import load_built_in

try:
    require_sandbox()
except RewardError as error:
    pytest.skip(str(error), allow_module_level=True)

has_landlock = pytest.mark.skipif(not require_sandbox()["landlock"], reason="this kernel has no Landlock")
LIMITS = Limits(seconds=3.0, memory_mb=256, output_bytes=100_000)
SQUARE = "print(int(input()) ** 2)"


def fenced(code):
    return f"<think>Let me write it.</think>\nHere it is:\n```python\n{code}\n```"


def reward(completions, tests, **settings):
    return load_built_in("code_execution")(completions, tests, **settings)


def test_programs_that_read_and_print():
    tests = [{"input": "3\n", "output": "9\n"}, {"input": "-4\n", "output": "16"}]
    events = Counter()
    assert reward(
        [fenced(SQUARE), fenced("print(9)"), fenced("print(int(input()) ** 3)")], [tests] * 3, events=events
    ) == [1.0, 0.0, 0.0]
    assert events == {"grading/correct": 1, "grading/wrong": 2, "code/passed": 3, "code/wrong_answer": 2}


def test_functions_and_assertions():
    tests = ["assert square(3) == 9", "assert square(-4) == 16"]
    programs = ["def square(x): return x * x", "def square(x): return 9", "def sq(x): return x * x"]
    assert reward([fenced(program) for program in programs], [tests] * 3) == [1.0, 0.0, 0.0]


def test_partial_credit_is_the_share_of_the_tests():
    tests = ["assert f(1) == 1", "assert f(2) == 4", "assert f(3) == 9", "assert f(0) == 0"]
    # x ** 2 if x < 2: right for 1 and 0; wrong for 2 and 3
    assert reward([fenced("def f(x): return x ** 2 if x < 2 else 7")], [tests], partial=True) == [0.5]
    assert reward([fenced("def f(x): return x ** 2 if x < 2 else 7")], [tests]) == [0.0]


@pytest.mark.parametrize("form", ["list", "json", "columns", "script"])
def test_forms_of_the_tests_column(form):
    pairs = [{"input": "3", "output": "9"}, {"input": "2", "output": "4"}]
    forms = {
        "list": pairs,
        "json": json.dumps(pairs),
        "columns": {"inputs": ["3", "2"], "outputs": ["9", "4"]},
    }
    if form == "script":
        script = "def check(g):\n    assert g(1) == 1\n    assert abs(g(2) - 2) < 1e-6\ncheck(f)"
        assert reward([fenced("def f(x): return x")], [script]) == [1.0]
    else:
        assert reward([fenced(SQUARE)], [forms[form]]) == [1.0]


@pytest.mark.parametrize(
    "tests", [None, [], "", "[1, 2", [{"input": "3"}], {"inputs": ["3"], "outputs": []}, [3]]
)
def test_unreadable_tests_are_not_applicable(tests):
    events = Counter()
    assert reward([fenced(SQUARE)], [tests], events=events) == [None]
    assert events == {"grading/unparseable_gold": 1}


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("<think>a</think> <answer>\n```python\nprint(int(input()) ** 2)\n```\n</answer>", 1.0),
        ("<think>a</think> <answer>print(int(input()) ** 2)</answer>", 1.0),
        ("```python\nprint(0)\n```\nNo, better:\n```py\nprint(int(input()) ** 2)\n```", 1.0),
        ("```python\nprint(int(input()) ** 2)\n```\nNo, better:\n```python\nprint(0)\n```", 0.0),
        ("<think>```python\nprint(int(input()) ** 2)\n```", 0.0),
        ("<think>```python\nprint(int(input()) ** 2)\n```</think> Done.", 0.0),
        ("```python\nprint(int(input()) ** 2)", 0.0),
        ("It is n squared.", 0.0),
        (fenced("print(int(input() ** 2"), 0.0),
        (fenced("print(int(input()) ** 2)\nraise SystemExit(1)"), 0.0),
    ],
)
def test_where_the_program_is_read(completion, value):
    assert reward([completion], [[{"input": "3", "output": "9"}]]) == [value]


@pytest.mark.parametrize(
    ("printed", "expected", "tolerance", "same"),
    [
        ("1 2\n3\n", "1 2\n3", 0.0, True),
        ("1 2  \r\n3\n\n", "1 2\n3", 0.0, True),
        ("1 2\n", "1 2\n3", 0.0, False),  # a shorter output is not a part that matches
        ("1 2\n3\n4", "1 2\n3", 0.0, False),
        ("", "1", 0.0, False),
        ("0.3333333", "0.333333333", 1e-6, True),
        ("0.3333333", "0.333333333", 0.0, False),
        ("0.34", "0.333333333", 1e-6, False),
        ("1000001", "1000000", 1e-3, False),  # whole numbers must be equal
        ("nan", "0.5", 1e-6, False),
    ],
)
def test_comparison_of_outputs(printed, expected, tolerance, same):
    assert same_output(printed, expected, tolerance) is same


@pytest.mark.parametrize(
    ("program", "test"),
    [
        (
            "def f(x): return [x, (x, {x: 1}), {x}, 1.5, None, 'é', b'a', 2j]",
            "assert f(2) == [2, (2, {2: 1}), {2}, 1.5, None, 'é', b'a', 2j]",
        ),
        ("def f(n): return 7 ** n", "assert f(2000) == 7 ** 2000"),
        ("def f():\n    yield 1\n    yield 2", "assert list(f()) == [1, 2] and sum(f()) == 3"),
        (
            "class P:\n    def __init__(self, x): self.x = x\n    def twice(self): return 2 * self.x",
            "p = P(4)\nassert p.x == 4 and p.twice() == 8",
        ),
        (
            "def f(x):\n    if x < 0: raise ValueError('negative')\n    return x",
            "try:\n    f(-1)\n    assert False\nexcept ValueError:\n    pass",
        ),
        ("def sum(a, b): return a + b", "assert sum(2, 3) == 5"),
        ("LIMIT = 3", "assert LIMIT == 3"),
        (
            "from collections import Counter\ndef f(s): return Counter(s)",
            "assert f('aab') == {'a': 2, 'b': 1}",
        ),
        ("def f(a, b=1, *, c=2): return a + b + c", "assert f(1, b=2, c=3) == 6"),
        ("import math\ndef f(x): return math.sqrt(x)", "import math\nassert math.isclose(f(2), 2 ** 0.5)"),
    ],
)
def test_values_that_cross_between_program_and_test(program, test):
    assert run_assert_test(program, test, LIMITS) is TestResult.PASSED


def test_a_test_that_can_not_be_run_says_nothing():
    events = Counter()
    assert reward([fenced("def f(g): return g(1)")], [["assert f(lambda x: x + 1) == 2"]], events=events) == [
        None
    ]
    assert events == {"grading/unparseable_gold": 1, "code/unsupported_test": 1}
    assert reward([fenced("def f(g): return g(1)")], [["assert f(1) =="]]) == [None]


HONEST = {
    "asyncio": "import asyncio\nasync def main(): print(9)\nasyncio.run(main())",
    "threads": "import threading\nt = threading.Thread(target=print, args=(9,))\nt.start()\nt.join()",
    "thread "
    "pool": "from concurrent.futures import ThreadPoolExecutor as P\nwith P() as p: print(sum(p.map(int, "
    "'333')))",
    "deep recursion": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(64 << 20)\n"
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
        "t = threading.Thread(target=lambda: print(f(20000) - 19991))\nt.start()\nt.join()"
    ),
    "standard library": (
        "import bisect, collections, datetime, decimal, fractions, functools, hashlib, heapq, itertools, "
        "json, random, re, string\n"
        "datetime.datetime.strptime('2020', '%Y')\nprint(9)"
    ),
    "late import": "def f():\n    import statistics\n    return statistics.mean([9])\nprint(f())",
    "exits early": "import sys\nprint(9)\nsys.exit()",
    "main guard": "if __name__ == '__main__':\n    print(9)",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_are_not_hindered(name):
    assert run_stdin_test(HONEST[name], "3\n", "9", LIMITS) is TestResult.PASSED


def test_large_input_and_output():
    numbers = "\n".join(map(str, range(100_000)))
    limits = Limits(seconds=5.0, output_bytes=2_000_000)
    assert (
        run_stdin_test("import sys\nfor line in sys.stdin: print(line.strip())", numbers, numbers, limits)
        is TestResult.PASSED
    )
    assert run_stdin_test("print(1)", numbers, "1", limits) is TestResult.PASSED  # input that nobody reads


# Each prints 9, the expected output, only if its attack succeeds.
HOSTILE_SCRIPTS = {
    "fork": "import os\nos.fork()\nprint(9)",
    "fork bomb": "import os\nwhile True: os.fork()",
    "subprocess": "import subprocess\nprint(subprocess.run(['echo', '9'], "
    "capture_output=True).stdout.decode())",
    "exec": "import os\nos.execv('/bin/echo', ['echo', '9'])",
    "multiprocessing": "import multiprocessing as m\nif __name__ == '__main__':\n    with m.Pool(2) as p: "
    "print(sum(p.map(int, '333')))",
    "memory bomb": "x = bytearray(10 ** 9)\nprint(9)",
    "memory bomb by lists": "x = [0]\nwhile True: x = x * 2",
    "big integer bomb": "print(9 ** 9 ** 9 ** 9)",
    "endless loop": "while True: pass",
    "endless output": "while True: print('9' * 1000)",
    "sleeping": "import time\ntime.sleep(60)\nprint(9)",
    "ignoring signals": (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except "
        "(OSError, ValueError): pass\n"
        "while True: pass"
    ),
    "thread bomb": "import threading, time\nfor _ in range(5000): threading.Thread(target=time.sleep, "
    "args=(60,)).start()\nprint(9)",
    "deep recursion crash": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
    "null pointer": "import ctypes\nctypes.string_at(0)\nprint(9)",
    "reading a secret file": "print(open({secret!r}).read())",
    "listing a folder": "import os\nprint(9 if {name!r} in os.listdir({folder!r}) else 0)",
    "reading the password file": "print(9 if 'root' in open('/etc/passwd').read() else 0)",
    "symbolic link to a secret": "import os\nos.symlink({secret!r}, {folder!r} + '/link')\nprint(9)",
    "hard link to a secret": "import os\nos.link({secret!r}, {folder!r} + '/link')\nprint(9)",
    "writing outside": "open({folder!r} + '/new', 'w').write('x')\nprint(9)",
    "writing to its own folder": "open('new', 'w').write('x')\nprint(9)",
    "overwriting the standard library": "import os\nopen(os.__file__, 'a').write('\\n')\nprint(9)",
    "huge file": "f = open({folder!r} + '/huge', 'wb')\nf.truncate(1 << 40)\nprint(9)",
    "temporary file": "import tempfile\ntempfile.TemporaryFile()\nprint(9)",
    "shared memory": "from multiprocessing import shared_memory as s\ns.SharedMemory('r1rl_test', True, "
    "10)\nprint(9)",
    "memory file": "import os\nos.memfd_create('x')\nprint(9)",
    "deleting": "import os\nos.remove({secret!r})\nprint(9)",
    "renaming": "import os\nos.rename({secret!r}, {secret!r} + '2')\nprint(9)",
    "changing modes": "import os\nos.chmod({secret!r}, 0o777)\nprint(9)",
    "reading the parent's memory": "import os\nopen('/proc/%d/mem' % os.getppid(), 'rb')\nprint(9)",
    "reading the parent's "
    "environment": "import os\nopen('/proc/%d/environ' % os.getppid(), 'rb').read()\nprint(9)",
    "reading the parent's "
    "command": "import os\nopen('/proc/%d/cmdline' % os.getppid(), 'rb').read()\nprint(9)",
    "stealing the parent's "
    "descriptors": "import os\nos.open('/proc/%d/fd/1' % os.getppid(), os.O_WRONLY)\nprint(9)",
    "its own proc folder": "open('/proc/self/environ').read()\nprint(9)",
    "environment": "import os\nprint(9 if set(os.environ) - {{'MALLOC_ARENA_MAX', 'LC_CTYPE'}} else 0)",
    "killing the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nprint(9)",
    "killing everybody": "import os, signal\nos.kill(-1, signal.SIGKILL)\nprint(9)",
    "signal by pidfd": "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid()), "
    "signal.SIGTERM)\nprint(9)",
    "owner of a pipe's signals": "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())\nprint(9)",
    "limits of the "
    "parent": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))\nprint(9)",
    "raising its own "
    "limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (9999, 9999))\nprint(9)",
    "priority of the parent": "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)\nprint(9)",
    "tracing the parent": (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\nprint(9 if libc.ptrace(16, os.getppid(), 0, 0) == 0 "
        "else 0)"
    ),
    "raw system "
    "call": "import ctypes, os\nlibc = ctypes.CDLL(None)\nprint(9 if libc.syscall({kill}, os.getppid(), 0) "
    "== 0 else 0)",
    "new namespaces": "import ctypes\nprint(9 if ctypes.CDLL(None).unshare(0x10000000) == 0 else 0)",
    "becoming root": "import os\nos.setuid(0)\nprint(9)"
    if os.geteuid()
    else "import os\nos.setuid(1)\nprint(9)",
    "leaving its session": "import os\nos.setsid()\nprint(9)",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\nprint(9)",
    "network by "
    "URL": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}', timeout=2)\nprint(9)",
    "listening": "import socket\nsocket.create_server(('127.0.0.1', 0))\nprint(9)",
    "exit code 0": "import os\nos._exit(0)",
    "exit code tricks": "import os, sys\nsys.exit = os._exit\nsys.exit(0)",
    "exit handlers": "import atexit, os\natexit.register(lambda: os._exit(0))\nprint(8)",
    "closing its output": "import os\nos.close(1)\nimport time\ntime.sleep(60)",
    "input tricks": "import sys\nsys.stdin.read()\nprint(sys.stdin.read() or open(0).read() or 8)",
    "printing every answer": "for i in range(100): print(i)",
    "overwriting "
    "print": "import builtins, sys\nbuiltins.print = lambda *a: sys.stdout.write('9 9 9')\nprint(0)",
}


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """Prepare the targets of the attacks: a file with the answer in it, and an open port."""
    folder = tmp_path_factory.mktemp("secrets")
    secret = folder / "answer.txt"
    secret.write_text("9")
    with socket.create_server(("127.0.0.1", 0)) as server:
        numbers = {"kill": {"x86_64": 62, "aarch64": 129}[os.uname().machine]}
        yield {
            "secret": str(secret),
            "folder": str(folder),
            "name": secret.name,
            "port": server.getsockname()[1],
            **numbers,
        }
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody has connected
    assert [path.name for path in folder.iterdir()] == ["answer.txt"] and secret.read_text() == "9"


@pytest.mark.parametrize("name", HOSTILE_SCRIPTS)
def test_hostile_program(name, targets):
    code = HOSTILE_SCRIPTS[name]
    program = code.format(**targets) if "{" in code else code
    compile(program, name, "exec")  # an attack with a slip in it would prove nothing
    received = []
    numbers = (signal.SIGTERM, signal.SIGIO, signal.SIGUSR1)
    previous = {number: signal.signal(number, lambda *_: received.append(1)) for number in numbers}
    start = time.monotonic()
    try:
        result = run_stdin_test(program, "3\n", "9", Limits(seconds=1.0, memory_mb=256, output_bytes=100_000))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    assert result not in (TestResult.PASSED, TestResult.SANDBOX_ERROR)
    assert time.monotonic() - start < 5.0 and not received


# Each prints what looks like the expected output, wherever it can be found.
LOOKERS = {
    "frames": (
        "import sys\nframe, seen = sys._getframe(), []\n"
        "while frame:\n    seen += [frame.f_locals, frame.f_globals]\n    frame = frame.f_back"
    ),
    "objects": "import gc\nseen = {o for x in gc.get_objects() for o in gc.get_referents(x) if "
    "isinstance(o, (str, bytes))}",
    "modules": "import sys\nseen = [vars(m) for m in sys.modules.values() if hasattr(m, '__dict__')] + "
    "[sys.argv, sys.path]",
    "descriptors": (
        "import os\nseen = []\nfor fd in range(64):\n    try:\n        os.set_blocking(fd, False)\n        "
        "seen.append(os.read(fd, 9999))\n"
        "    except OSError: pass"
    ),
    "stack memory": (
        "import ctypes\nbuffer = ctypes.create_string_buffer(100)\nat = ctypes.addressof(buffer)\n"
        "seen = [ctypes.string_at(at - (at % 4096), 4096), ctypes.string_at(id(seen) if 'seen' in dir() "
        "else id(buffer), 512)]"
    ),
    "input": "import sys\nseen = [sys.stdin.read()]",
    "environment": "import os\nseen = [dict(os.environ)]",
}


@pytest.mark.parametrize("name", LOOKERS)
def test_expected_output_is_nowhere_in_the_programs_process(name):
    token = "TOKEN" + os.urandom(8).hex()
    search = (
        "\nimport re\nprint(next(iter(re.findall('TOK' + 'EN[0-9a-f]{16}', ' '.join(map(repr, seen)))), "
        "'none'))"
    )
    # The search itself works.
    assert run_stdin_test(LOOKERS[name] + search, "3", "none", LIMITS) is TestResult.PASSED
    assert run_stdin_test(LOOKERS[name] + search, "3", token, LIMITS) is TestResult.WRONG_ANSWER
    if name not in ("input", "descriptors"):
        program = LOOKERS[name] + search.replace("print(", "FOUND = (") + "\ndef f(x): return FOUND"
        assert run_assert_test(program, f"assert f(2) == {token!r}", LIMITS) is TestResult.WRONG_ANSWER


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("memory bomb", TestResult.MEMORY),
        ("endless loop", TestResult.TIMEOUT),
        ("sleeping", TestResult.TIMEOUT),
        ("ignoring signals", TestResult.TIMEOUT),
        ("endless output", TestResult.OUTPUT_LIMIT),
        ("null pointer", TestResult.RUNTIME_ERROR),
        ("exit code 0", TestResult.WRONG_ANSWER),
        ("fork", TestResult.RUNTIME_ERROR),
    ],
)
def test_results_are_typed(name, result):
    assert (
        run_stdin_test(
            HOSTILE_SCRIPTS[name], "", "9", Limits(seconds=1.0, memory_mb=256, output_bytes=100_000)
        )
        is result
    )


# f(2) should be 4; none of these computes it.
HOSTILE_FUNCTIONS = {
    "always "
    "equal": "class A:\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x): return A()",
    "always equal "
    "integer": "class A(int):\n    def __eq__(self, o): return True\n    def __hash__(self): return 4\ndef "
    "f(x): return A(5)",
    "always equal list": (
        "class A(list):\n    def __eq__(self, o): return True\n    def __iter__(self): return "
        "iter([4])\ndef f(x): return A([5])"
    ),
    "exit code 0": "import os\ndef f(x): os._exit(0)",
    "exit on import": "import os\nos._exit(0)",
    "system exit": "def f(x): raise SystemExit(0)",
    "keyboard interrupt": "def f(x): raise KeyboardInterrupt",
    "exit handler": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): return 5",
    "patched "
    "assertion": "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\ndef f(x): "
    "return 5",
    "patched "
    "built-ins": "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.isinstance = lambda *a: True\ndef "
    "f(x): return 5",
    "its own abs": "def abs(x): return 0\ndef f(x): return 5",
    "trace function": "import sys\nsys.settrace(lambda *a: None)\ndef f(x): return 5",
    "jumping frames": (
        "import sys\ndef f(x):\n    fr = sys._getframe()\n    while fr.f_back:\n        fr = fr.f_back\n"
        "        fr.f_locals['passed'] = True\n    return 5"
    ),
    "printing a forged "
    "result": "import sys\ndef f(x):\n    print('passed')\n    sys.stdout.flush()\n    return 5",
    "writing to all descriptors": (
        "import os\ndef f(x):\n    for fd in range(64):\n        try: os.write(fd, b'passed\\n')\n        "
        "except OSError: pass\n"
        "    return 5"
    ),
    "forged answer": (
        "import json, os\ndef f(x):\n    m = json.dumps({'tuple': ['value', True]}).encode()\n"
        "    for fd in range(3, 64):\n        try: os.write(fd, len(m).to_bytes(4, 'big') + m)\n        "
        "except OSError: pass\n    return 5"
    ),
    "patched protocol": "import sys\nsys.modules['remote']._send = lambda d, m: None\ndef f(x): return 5",
    "patched JSON": "import json\njson.dumps = lambda *a, **k: 'true'\ndef f(x): return 5",
    "closing the link": "import os\ndef f(x):\n    os.closerange(3, 64)\n    return 4",
    "never answering": "import time\ndef f(x): time.sleep(60)",
    "huge value": "def f(x): return 'a' * (1 << 24)",
    "deep value": "def f(x):\n    v = 4\n    for _ in range(100000): v = [v]\n    return v",
    "syntax error raised": "def f(x): raise SyntaxError",
    "unsupported value": "def f(x): return lambda: 4",
    "not a number": "def f(x): return float('nan')",
    "no function": "g = 4",
    "exception": "def f(x): 1 / 0",
    "patched module main": "import sys\nsys.modules['__main__'].passed = True\ndef f(x): return 5",
    "recursion limit": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x): return f(x)",
}


@pytest.mark.parametrize("test", ["assert f(2) == 4", "assert abs(f(2) - 4) < 1e-9"])
@pytest.mark.parametrize("name", HOSTILE_FUNCTIONS)
def test_hostile_function(name, test):
    result = run_assert_test(HOSTILE_FUNCTIONS[name], test, Limits(seconds=1.0, memory_mb=256))
    assert result not in (TestResult.PASSED, TestResult.SANDBOX_ERROR, TestResult.UNSUPPORTED_TEST)


def test_a_killed_trainer_takes_its_programs_with_it(tmp_path):
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from r1rl.sandbox import Limits, run_stdin_test\n"
        "run_stdin_test('import time; print(1, flush=True); time.sleep(60)', '', '', Limits(seconds=60))\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", script])
    children = Path(f"/proc/{trainer.pid}/task/{trainer.pid}/children")
    deadline = time.monotonic() + 10
    while not children.read_text().split():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    child = int(children.read_text().split()[0])
    trainer.kill()
    trainer.wait()
    while Path(f"/proc/{child}").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_descriptors_threads_or_processes_are_left():
    run_stdin_test(SQUARE, "3", "9", LIMITS)
    before = (len(os.listdir("/proc/self/fd")), threading.active_count())
    for _ in range(5):
        run_stdin_test(SQUARE, "3", "9", LIMITS)
        run_assert_test("def f(x): return x", "assert f(1) == 1", LIMITS)
        run_stdin_test("while True: print(1)", "", "", Limits(seconds=0.3, output_bytes=1000))
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"timeout": 0}, "timeout must be positive"), ({"memory_mb": 10}, "at least 64")],
)
def test_arguments_are_checked(settings, sentence):
    with pytest.raises(RewardError, match=sentence):
        reward([], [], **settings)
