"""Find the function that a recipe names: built in, in a module, or in a file.

accuracy                        the function `accuracy` of the built-in file rewards/accuracy.py
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
from typing import TypeVar

from r1rl.config.bundled import bundled_path
from r1rl.errors import RewardError
from r1rl.rewards.contract import RewardFunction

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadedReward:
    """A reward function and where it was found."""

    name: str
    function: RewardFunction
    file: Path | None
    module: ModuleType | None
    built_in: bool

    @property
    def place(self) -> str:
        """ "name (file)", for messages."""
        return f"{self.name} ({self.file})" if self.file else self.name


def load_reward(spec: str, base_dir: Path) -> LoadedReward:
    """The function that `spec` names (see the module's docstring); `base_dir` is the recipe's folder.

    Raises RewardError if there is no such file, module or function, or if its file can't be imported.
    """
    place, colon, function_name = spec.rpartition(":")
    if not colon:
        return _load_built_in(spec)
    if not function_name.isidentifier():
        raise RewardError(
            f"rewards: {spec!r} must end in the name of a function, as in rewards.my_module:my_function."
        )
    if place.endswith(".py"):
        file = _find_file(spec, place, base_dir)
        return _function_of(_import_file(file), file, function_name, built_in=False)
    return _load_from_module(spec, place, function_name)


def built_in_names() -> list[str]:
    """The names of the built-in rewards."""
    return sorted(file.stem for file in bundled_path("rewards").glob("*.py") if not file.stem.startswith("_"))


def nearest(name: str, known: Iterable[str]) -> str:
    """ " Did you mean ...?", or nothing if no known name is close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]}?" if matches else ""


def _load_built_in(name: str) -> LoadedReward:
    file = bundled_path("rewards") / f"{name}.py"
    if name.isidentifier() and not name.startswith("_") and file.is_file():
        return _function_of(_import_file(file), file, name, built_in=True)
    known = built_in_names()
    if name.endswith(".py"):
        raise RewardError(f"rewards: {name!r} names a file but no function: write {name}:my_function.")
    own = Path.cwd() / "rewards" / f"{name}.py"
    hint = f" To use {own}, write rewards.{name}:{name}." if own.is_file() else nearest(name, known)
    raise RewardError(
        f"rewards: there is no built-in reward {name!r} (looked in {bundled_path('rewards')}).{hint} Built "
        f"in: {', '.join(known)}. "
        f"Your own is named as rewards.my_module:my_function or path/to/file.py:my_function."
    )


def _find_file(spec: str, place: str, base_dir: Path) -> Path:
    candidates = list(
        dict.fromkeys((folder / Path(place).expanduser()).resolve() for folder in (Path.cwd(), base_dir))
    )
    for file in candidates:
        if file.is_file():
            return file
    raise RewardError(f"rewards: {spec!r}: there is no file {' and no file '.join(map(str, candidates))}.")


def _load_from_module(spec: str, dotted: str, function_name: str) -> LoadedReward:
    if not all(part.isidentifier() for part in dotted.split(".")):
        raise RewardError(
            f"rewards: {spec!r} is neither module:function nor file.py:function. Write "
            f"rewards.my_module:my_function or "
            f"path/to/file.py:my_function."
        )
    _make_importable(Path.cwd())
    own = Path.cwd().joinpath(*dotted.split(".")).with_suffix(".py")
    if own.is_file():
        return _function_of(_import_file(own), own, function_name, built_in=False)
    bundled = bundled_path("rewards").parent.joinpath(*dotted.split(".")).with_suffix(".py")
    if dotted.startswith("rewards.") and bundled.is_file():
        return _function_of(_import_file(bundled), bundled, function_name, built_in=True)
    module = _guarded(dotted, lambda: importlib.import_module(dotted), looked_at=own)
    return _function_of(
        module, Path(module.__file__) if module.__file__ else None, function_name, built_in=False
    )


def _make_importable(folder: Path) -> None:
    # At the end of the path: a user's folder named like an installed package (wandb/, datasets/) must not
    # hide it.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _import_file(file: Path) -> ModuleType:
    """Import a file under a name of its own; the same unchanged file gives the same module again."""
    _make_importable(Path.cwd())
    digest = hashlib.sha256(f"{file}:{file.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    name = f"r1rl_reward_{file.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise RewardError(f"rewards: {file} can't be imported as Python code.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up by name
    loader = spec.loader
    try:
        _guarded(str(file), lambda: loader.exec_module(module), looked_at=file)
    except RewardError:
        del sys.modules[name]
        raise
    return module


def _guarded(what: str, load: Callable[[], T], looked_at: Path) -> T:
    try:
        return load()
    except RewardError:
        raise
    except ModuleNotFoundError as error:
        if error.name and what.startswith(error.name):
            raise RewardError(
                f"rewards: there is no module {what} (no file {looked_at}, nor anything installed of that "
                f"name)."
            ) from error
        raise RewardError(f"rewards: {what} imports {error.name}, which is not installed.") from error
    except SyntaxError as error:
        raise RewardError(f"rewards: {error.filename or what}, line {error.lineno}: {error.msg}.") from error
    except Exception as error:
        raise RewardError(f"rewards: importing {what} failed: {type(error).__name__}: {error}.") from error


def _function_of(module: ModuleType, file: Path | None, name: str, built_in: bool) -> LoadedReward:
    function = getattr(module, name, None)
    if callable(function) and not inspect.isclass(function):
        return LoadedReward(name=name, function=function, file=file, module=module, built_in=built_in)
    found = [key for key, value in vars(module).items() if _is_own_function(module, key, value)]
    what = "is not a function" if hasattr(module, name) else "does not exist"
    if inspect.isclass(function):
        what = "is a class, not a function,"
    functions = f"It has: {', '.join(found)}." if found else "It has no function."
    raise RewardError(
        f"rewards: {name} {what} in {file or module.__name__}.{nearest(name, found)} {functions}"
    )


def _is_own_function(module: ModuleType, name: str, value: object) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
