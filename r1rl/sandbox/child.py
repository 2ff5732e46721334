"""The sandboxed process: it gives up its rights, then runs a program or a test.

It is started as `python -I -S child.py MODE READY LINK`. Standard input starts with a line "SIZE MEMORY CPU"
(bytes of code, bytes of address space, seconds), followed by the code and by the program's own standard
input. One byte is written to the descriptor READY after the rights are given up. The values of MODE are:

- `probe`: report the layers;
- `program`: run the code as a script;
- `serve`: run the code, then answer requests on the socket LINK (remote.py);
- `test`: run test code against the program that serves at the other end of LINK.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))
SYNTAX_ERROR, OUT_OF_MEMORY, NOT_READY = 3, 4, 5
"""Exit codes. The program may fake them, which only mislabels its own failure."""


def main() -> None:
    """Read the job, lock down, and do the job."""
    mode, ready, link = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    size, memory, cpu = map(int, _read_line().split())
    code = _read(size)
    sys.path.insert(0, HERE)
    import lockdown

    if mode in ("serve", "test"):
        import remote
    sys.path.remove(HERE)
    python = [path for path in sys.path if os.path.exists(path)]
    sys.argv = ["program.py"]
    _import_ahead(code)
    try:
        layers = lockdown.lock_down(
            memory, cpu, [*python, "/usr/lib", "/lib", "/usr/lib64", "/lib64", "/etc/ld.so.cache"]
        )
    except OSError as error:
        os.write(ready, f"0{error}".encode())
        os._exit(NOT_READY)
    os.write(ready, b"1")
    os.close(ready)
    if mode == "probe":
        print(" ".join(f"{name}={value}" for name, value in layers.items()))
    elif mode == "test":
        print(remote.run_test(code, link))
    else:
        namespace = _run_program(code)
        if mode == "serve":
            remote.serve(namespace, link)


def _run_program(code: bytes) -> dict[str, object]:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    try:
        exec(compile(code, "<program>", "exec"), module.__dict__)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (SyntaxError, ValueError) as error:
        if isinstance(error, SyntaxError) and error.filename == "<program>":
            os._exit(SYNTAX_ERROR)
        raise
    return module.__dict__


def _import_ahead(code: bytes) -> None:
    """Import the standard modules that the code names, because without Landlock no file can be opened
    later.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        for name in names:
            if name.partition(".")[0] in sys.stdlib_module_names:
                try:
                    importlib.import_module(name)
                except ImportError:
                    continue


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            os._exit(NOT_READY)
        data += chunk
    return data


def _read_line() -> str:
    line = b""
    while not line.endswith(b"\n"):
        line += _read(1)
    return line.decode()


if __name__ == "__main__":
    main()
