"""The rollout engines that a recipe may name, and the properties that the rest of r1rl asks of them.

Nothing here imports torch: recipes are checked, and `--help` is printed, without it. An engine is made by
`r1rl.rollout.make_engine`.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1rl.config.commands import resolve
from r1rl.config.fields import Choices, choice
from r1rl.config.plugins import LoadedCode, Wanted, load_code
from r1rl.errors import RecipeError

OWN_EXAMPLE = "my_engine.py:MyEngine"
ENGINE_KEY = "rollout.engine"
METHODS = {
    "generate": "(prompts, num_generations, sampling, seeds, *, refresh=True)",
    "refresh": "()",
}
"""The methods that an engine must have, with their parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProperties:
    """The properties of a rollout engine. The defaults promise nothing, so they hold for every engine."""

    exact: bool = False
    """Its completions come with the log-probabilities that the trainer computes, in float32."""
    shares_weights: bool = False
    """It samples from the policy's own parameters. Where these are sharded, or change while it samples, it is
    asked to keep a copy (`EngineSetup.own_copy`).
    """
    background: bool = False
    """It may sample in a thread while the update runs."""
    takes_adapters: bool = False
    """It samples from a policy whose weights are frozen under adapters."""
    growing_segments: bool = True
    """It works in a process where torch's GPU allocator may grow its segments."""
    package: str | None = None
    """The package that it needs, which is also the name of r1rl's extra that installs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An entry of the table of engines."""

    help: str
    made_by: str
    """The class or function that makes it from a `r1rl.rollout.engine.EngineSetup`, in the notation in which
    a recipe names an engine of the user's own.
    """
    properties: EngineProperties
    needs_training_run: bool = False
    """It works with the processes of a training run, so nothing else can sample with it."""


IN_PROCESS = EngineProperties(exact=True, shares_weights=True, background=True, takes_adapters=True)
VLLM = EngineProperties(growing_segments=False, package="vllm")  # its sleep mode refuses growing segments

ENGINES = {
    "auto": Engine(
        help="native where its self-check passes, else transformers",
        made_by="r1rl.rollout.engine:make_fitting",
        properties=IN_PROCESS,
    ),
    "native": Engine(
        help="r1rl's engine on the policy's own weights",
        made_by="r1rl.rollout.engine:make_native",
        properties=IN_PROCESS,
    ),
    "transformers": Engine(
        help="model.generate, the reference",
        made_by="r1rl.rollout.engine:make_reference",
        properties=IN_PROCESS,
    ),
    "vllm": Engine(
        help="needs the extra vllm and a GPU",
        made_by="r1rl.rollout.vllm:make_vllm",
        properties=VLLM,
        needs_training_run=True,
    ),
}
"""The built-in engines. One of the user's own is named by path, such as `my_engine.py:MyEngine`."""


@dataclass(frozen=True, slots=True)
class FoundEngine:
    """An engine that a recipe names: its properties, and what makes it."""

    properties: EngineProperties
    make: Callable[[Any], Any]
    """The function (EngineSetup) -> RolloutEngine, which imports the module of a built-in engine."""
    place: str
    """Its name and, for one of the user's own, its file."""


def find_engine(name: str, base_dir: Path) -> FoundEngine:
    """Return the engine of this name or path; `base_dir` is the recipe's folder. Nothing is loaded or made.

    Raises RecipeError if there is none, if a package that it needs is missing, or if a class of the user's
    own is no engine.
    """
    built_in = ENGINES.get(name)
    if built_in is not None:
        _check_package(name, built_in.properties, extra=True)
        return FoundEngine(built_in.properties, functools.partial(_make_built_in, built_in.made_by), name)
    if ":" not in name:
        choices = Choices(lambda: ENGINES, OWN_EXAMPLE)
        raise RecipeError(f"{ENGINE_KEY}: {name!r} is unknown; choose {choices}.")
    code = load_code(
        name,
        base_dir,
        Wanted(
            ENGINE_KEY,
            inspect.isclass,
            noun="class",
            module_example="my_package.my_engine:MyEngine",
            file_example="path/to/my_engine.py:MyEngine",
        ),
    )
    properties = _check_class(code)
    _check_package(name, properties, extra=False)
    return FoundEngine(properties, code.value, code.place)


def is_installed(package: str) -> bool:
    """Return whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def _make_built_in(made_by: str, setup: Any) -> Any:
    """Import what makes a built-in engine, and call it."""
    return resolve(made_by)(setup)


def _check_package(name: str, properties: EngineProperties, extra: bool) -> None:
    """Raise RecipeError if the package that an engine needs is missing; `extra`: an extra of r1rl installs
    it.
    """
    package = properties.package
    if package is None or is_installed(package):
        return
    fault = "which is not installed" if package == name else f"which needs {package}"
    install = f"pip install 'r1rl[{package}]'" if extra else f"pip install {package}"
    raise RecipeError(
        f"{ENGINE_KEY} is {name}, {fault}: {install}, or write engine: auto, which needs no other package."
    )


def _check_class(code: LoadedCode) -> EngineProperties:
    """Return the properties of a class of the user's own. Raises RecipeError if it is no engine's."""
    for name, parameters in METHODS.items():
        if not callable(getattr(code.value, name, None)):
            raise RecipeError(
                f"{ENGINE_KEY}: {code.place} has no method {name}{parameters}, which an engine needs."
            )
    own: Any = None  # in the place of self
    _check_call(code, code.value, "be made from one EngineSetup, __init__(self, setup)", None)
    asked = "be called as generate(prompts, num_generations, sampling, seeds, refresh=True)"
    _check_call(code, code.value.generate, asked, own, [], 1, None, [], refresh=True)
    _check_call(code, code.value.refresh, "be called as refresh()", own)
    properties = getattr(code.value, "properties", None)
    if not isinstance(properties, EngineProperties):
        raise RecipeError(
            f"{ENGINE_KEY}: {code.place} has no properties: write properties = EngineProperties() in its "
            f"body, "
            f"from r1rl.config.engines."
        )
    return properties


def _check_call(
    code: LoadedCode, called: Callable[..., object], asked: str, *given: object, **named: object
) -> None:
    """Raise RecipeError if `called` does not take these arguments."""
    try:
        inspect.signature(called).bind(*given, **named)
    except TypeError as error:
        raise RecipeError(f"{ENGINE_KEY}: {code.place} can't {asked}: {error}.") from error


def training_engine() -> Any:
    """Declare the key of the engine that samples during training."""
    return choice("auto", ENGINES, own=OWN_EXAMPLE)


def sampling_engine() -> Any:
    """Declare the key of the engine that samples where nothing is trained on its completions."""
    return choice("auto", {name: one for name, one in ENGINES.items() if not one.needs_training_run})
