"""Find the function that a recipe names: built in, in a module, or in a file.

accuracy                        the function `accuracy` of the built-in file rewards/accuracy.py
rewards.my_module:my_function   a module; the working directory's own rewards/my_module.py comes first
path/to/file.py:my_function     a file, relative to the working directory, else to the recipe's folder
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from r1rl.config.bundled import bundled_path
from r1rl.config.plugins import LoadedCode, Wanted, import_file, load_code, nearest, own_module, pick
from r1rl.errors import RewardError
from r1rl.rewards.contract import RewardFunction


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
        """The text "name (file)", for messages."""
        return f"{self.name} ({self.file})" if self.file else self.name


def load_reward(spec: str, base_dir: Path) -> LoadedReward:
    """Return the function that `spec` names (see the module's docstring); `base_dir` is the recipe's folder.

    Raises RewardError if there is no such file, module or function, or if its file can't be imported.
    """
    place, colon, name = spec.rpartition(":")
    if not colon:
        return _reward(_load_built_in(spec), built_in=True)
    bundled = bundled_path("rewards").parent.joinpath(*place.split(".")).with_suffix(".py")
    if place.startswith("rewards.") and bundled.is_file() and not own_module(place).is_file():
        return _reward(pick(import_file(bundled, REWARD), bundled, name, REWARD), built_in=True)
    return _reward(load_code(spec, base_dir, REWARD), built_in=False)


def built_in_names() -> list[str]:
    """Return the names of the built-in rewards."""
    return sorted(file.stem for file in bundled_path("rewards").glob("*.py") if not file.stem.startswith("_"))


def _load_built_in(name: str) -> LoadedCode:
    file = bundled_path("rewards") / f"{name}.py"
    if name.isidentifier() and not name.startswith("_") and file.is_file():
        return pick(import_file(file, REWARD), file, name, REWARD)
    known = built_in_names()
    if name.endswith(".py"):
        raise REWARD.fail(f"{name!r} names a file but no function: write {name}:my_function.")
    own = Path.cwd() / "rewards" / f"{name}.py"
    hint = f" To use {own}, write rewards.{name}:{name}." if own.is_file() else nearest(name, known)
    raise REWARD.fail(
        f"there is no built-in reward {name!r} (looked in {bundled_path('rewards')}).{hint} Built in: "
        f"{', '.join(known)}. Your own is named as {REWARD.module_example} or {REWARD.file_example}."
    )


def _reward(code: LoadedCode, built_in: bool) -> LoadedReward:
    return LoadedReward(code.name, code.value, code.file, code.module, built_in)


def _is_function(value: Any) -> bool:
    return callable(value) and not inspect.isclass(value)


REWARD = Wanted(
    key="rewards", accepts=_is_function, module_example="rewards.my_module:my_function", error=RewardError
)
"""A reward function, as `rewards.N.function` names it."""
