"""Code of the user's own that a recipe names: find it, import it, and say in a sentence why that fails.

rewards.my_module:my_function   a module; the working directory's own rewards/my_module.py comes first
path/to/file.py:my_function     a file, relative to the working directory, else to the recipe's folder
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from r1rl.errors import RecipeError, UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The kind of code that a key of the recipe names, in the words of its error messages."""

    key: str
    """The recipe's key, which every message begins with."""
    accepts: Callable[[Any], bool]
    """The test that is true for an object of this kind."""
    noun: str = "function"
    module_example: str = "my_package.my_module:my_function"
    file_example: str = "path/to/file.py:my_function"
    error: type[UserError] = RecipeError

    def fail(self, sentence: str) -> UserError:
        """Return the error to raise: the key and a sentence."""
        return self.error(f"{self.key}: {sentence}")


@dataclass(frozen=True, slots=True)
class LoadedCode:
    """An object of the user's own code and where it was found."""

    name: str
    value: Any
    file: Path | None
    module: ModuleType

    @property
    def place(self) -> str:
        """The text "name (file)", for messages."""
        return f"{self.name} ({self.file})" if self.file else self.name


def load_code(spec: str, base_dir: Path, wanted: Wanted) -> LoadedCode:
    """Return the object that `spec` names (see the module's docstring); `base_dir` is the recipe's folder.

    Raises `wanted.error` if there is no such file, module or object, or if the file can't be imported.
    """
    place, _, name = spec.rpartition(":")
    if not name.isidentifier():
        raise wanted.fail(f"{spec!r} must end in the name of a {wanted.noun}, as in {wanted.module_example}.")
    if place.endswith(".py"):
        file = _find_file(spec, place, base_dir, wanted)
        return pick(import_file(file, wanted), file, name, wanted)
    if not all(part.isidentifier() for part in place.split(".")):
        raise wanted.fail(
            f"{spec!r} is neither module:{wanted.noun} nor file.py:{wanted.noun}. Write "
            f"{wanted.module_example} or {wanted.file_example}."
        )
    own = own_module(place)
    if own.is_file():
        return pick(import_file(own, wanted), own, name, wanted)
    _make_importable(Path.cwd())
    module = _guarded(place, lambda: importlib.import_module(place), own, wanted)
    return pick(module, Path(module.__file__) if module.__file__ else None, name, wanted)


def own_module(dotted: str) -> Path:
    """Return the file that a dotted module name stands for in the working directory, be it there or not."""
    return Path.cwd().joinpath(*dotted.split(".")).with_suffix(".py")


def import_file(file: Path, wanted: Wanted) -> ModuleType:
    """Import a file under a name of its own; the same unchanged file gives the same module again."""
    _make_importable(Path.cwd())
    digest = hashlib.sha256(f"{file}:{file.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    name = f"r1rl_own_{file.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise wanted.fail(f"{file} can't be imported as Python code.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up by name
    loader = spec.loader
    try:
        _guarded(str(file), lambda: loader.exec_module(module), file, wanted)
    except UserError:
        del sys.modules[name]
        raise
    return module


def pick(module: ModuleType, file: Path | None, name: str, wanted: Wanted) -> LoadedCode:
    """Return the object of this name. Raises `wanted.error` if the module has none of the kind."""
    value = getattr(module, name, None)
    if wanted.accepts(value):
        return LoadedCode(name, value, file, module)
    found = [key for key, value in vars(module).items() if _is_own(module, key, value, wanted)]
    fault = f"is not a {wanted.noun}" if hasattr(module, name) else "does not exist"
    if inspect.isclass(value):
        fault = f"is a class, not a {wanted.noun},"
    has = f"It has: {', '.join(found)}." if found else f"It has no {wanted.noun}."
    raise wanted.fail(f"{name} {fault} in {file or module.__name__}.{nearest(name, found)} {has}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?", or nothing if no known name is close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]}?" if matches else ""


def _find_file(spec: str, place: str, base_dir: Path, wanted: Wanted) -> Path:
    candidates = list(
        dict.fromkeys((folder / Path(place).expanduser()).resolve() for folder in (Path.cwd(), base_dir))
    )
    for file in candidates:
        if file.is_file():
            return file
    raise wanted.fail(f"{spec!r}: there is no file {' and no file '.join(map(str, candidates))}.")


def _make_importable(folder: Path) -> None:
    # At the end of the path: a user's folder named like an installed package (wandb/, datasets/) must not
    # hide it.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _guarded(what: str, load: Callable[[], T], looked_at: Path, wanted: Wanted) -> T:
    try:
        return load()
    except UserError:
        raise
    except ModuleNotFoundError as error:
        if error.name and what.startswith(error.name):
            raise wanted.fail(
                f"there is no module {what} (no file {looked_at}, nor anything installed of that name)."
            ) from error
        raise wanted.fail(f"{what} imports {error.name}, which is not installed.") from error
    except SyntaxError as error:
        raise wanted.fail(f"{error.filename or what}, line {error.lineno}: {error.msg}.") from error
    except Exception as error:
        raise wanted.fail(f"importing {what} failed: {type(error).__name__}: {error}.") from error


def _is_own(module: ModuleType, name: str, value: object, wanted: Wanted) -> bool:
    if name.startswith("_") or not wanted.accepts(value):
        return False
    # Functions and classes, which have a qualified name, know where they were written; the rest does not.
    return not hasattr(value, "__qualname__") or value.__module__ == module.__name__
