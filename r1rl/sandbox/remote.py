"""Remote calls of the functions of one sandboxed process from another, so that a test and its program share
no memory.

The test's process sends requests over a socket, and the program's process answers them. Only plain data
crosses (numbers, strings, bytes, None, lists, tuples, sets, dictionaries). Any other object stays where it is
and is named by a number. A program that patches `==`, `assert` or `sys.settrace` patches its own process
only.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys

TYPE_CHECKING = False  # importing typing takes longer than a small test
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_MESSAGE = 1 << 20
_COLLECTIONS: tuple[Any, ...] = (list, tuple, set, frozenset)
PASSED, FAILED, ERROR, UNSUPPORTED, GONE = "passed", "failed", "error", "unsupported", "gone"
"""The results of `run_test`; it is GONE if the program's process ended."""


class ProgramGone(BaseException):
    """The program's process does not answer any more.

    This is no `Exception`, so a test can't catch it.
    """


class Unsupported(BaseException):
    """The test passes something to the program that can't cross, such as a lambda."""


class Handle:
    """A stand-in for an object of the program: it can be called, iterated, asked for attributes, and passed
    back.
    """

    def __init__(self, link: Link, number: int) -> None:
        self._link, self._number = link, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.ask("call", self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask("attribute", self, name)

    def __iter__(self) -> Any:
        return iter(self._link.ask("list", self))

    def __len__(self) -> int:
        return len(self._link.ask("list", self))

    def __getitem__(self, key: Any) -> Any:
        return self._link.ask("item", self, key)


class Link:
    """The test's end of the socket."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def ask(self, *request: Any) -> Any:
        """Send one request and return the answer's value, or raise the program's exception here."""
        try:
            _send(self.descriptor, _encode(request, _refuse))
            kind, value = _decode(_receive(self.descriptor), lambda number: Handle(self, number))
        except (OSError, EOFError) as error:
            raise ProgramGone from error
        if kind == "value":
            return value
        name, message = value
        known = getattr(builtins, name, None)
        raise (
            known(message)
            if isinstance(known, type) and issubclass(known, Exception)
            else RuntimeError(message)
        )


def run_test(code: bytes, descriptor: int) -> str:
    """Run test code; the names that it does not define itself are the program's."""
    link = Link(descriptor)
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return UNSUPPORTED
    try:
        namespace: dict[str, Any] = {"__name__": "__test__"}
        for name in _names_of_program(tree):
            namespace[name] = link.ask("get", name)
        exec(compile(tree, "<test>", "exec"), namespace)
    except AssertionError:
        return FAILED
    except ProgramGone:
        return GONE
    except Unsupported:
        return UNSUPPORTED
    except BaseException:
        return ERROR
    return PASSED


def serve(namespace: dict[str, Any], descriptor: int) -> None:
    """Answer requests until the other end closes."""
    objects: list[Any] = []

    def keep(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    operations: dict[str, Callable[..., Any]] = {
        "get": lambda name: namespace[name],
        "call": lambda function, args, kwargs: function(*args, **kwargs),
        "attribute": getattr,
        "list": list,
        "item": lambda value, key: value[key],
    }
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
    while True:
        try:
            operation, *arguments = _decode(_receive(descriptor), objects.__getitem__)
        except EOFError:
            return
        try:
            answer = _encode(("value", operations[operation](*arguments)), keep)
        except Exception as error:
            answer = _encode(("error", (type(error).__name__, str(error)[:200])), keep)
        _send(descriptor, answer)


def _names_of_program(tree: ast.AST) -> list[str]:
    """Return the names that the test reads but does not define.

    Built-in names mean Python's own, or a program could replace the test's `abs` or `set`. Only if a test
    names no other function and exactly one built-in (`assert sum(2, 3) == 5`) is that one the program's.
    """
    read: set[str] = set()
    defined: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            defined.add(node.name)
    unknown = sorted(read - defined - set(dir(builtins)))
    built_in = sorted(name for name in read - defined if callable(getattr(builtins, name, None)))
    return unknown or (built_in if len(built_in) == 1 else [])


def _encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """Return JSON for plain data; subclasses are reduced to their plain base, so their own methods are left
    behind.

    `keep` gives any other object a number.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    for kind in _COLLECTIONS:
        if isinstance(value, kind):
            return {kind.__name__: [_encode(item, keep) for item in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[_encode(key, keep), _encode(item, keep)] for key, item in dict.items(value)]}
    if isinstance(value, Handle):
        return {"object": value._number}
    return {"object": keep(value)}


def _refuse(value: Any) -> int:
    raise Unsupported(type(value).__name__)


def _decode(value: Any, find: Callable[[int], Any]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "object":
        return find(int(content))
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "complex":
        return complex(*content)
    if kind == "dict":
        return {_decode(key, find): _decode(item, find) for key, item in content}
    collection = {known.__name__: known for known in _COLLECTIONS}[kind]
    return collection(_decode(item, find) for item in content)


def _send(descriptor: int, message: Any) -> None:
    data = json.dumps(message).encode()
    if len(data) > MAX_MESSAGE:
        data = json.dumps(
            {"tuple": ["error", {"tuple": ["OverflowError", "the value is too large to hand over"]}]}
        ).encode()
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(descriptor, data) :]


def _receive(descriptor: int) -> Any:
    size = int.from_bytes(_read(descriptor, 4), "big")
    if size > MAX_MESSAGE:
        raise EOFError
    return json.loads(_read(descriptor, size))


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = os.read(descriptor, size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data
