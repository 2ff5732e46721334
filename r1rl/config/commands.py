"""The record of a command: everything that the rest of r1rl has to know about it.

A command is a package of r1rl with a file `command.py` that defines

    COMMAND = Command(name="grpo", ...)

The command line, the recipe loader, `r1rl check`, the memory estimate, `r1rl pipeline` and the tests of the
documentation read these records and know no command by name, so a new command is a new package and nothing
else.

A `command.py` imports its recipe and `r1rl.config`, and nothing that is slow to import: `r1rl --help` reads
all of them. Functions that need torch or read data are given by name, "module:function", and are imported by
`resolve` when they are called.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import r1rl
from r1rl.config.cost import Cost
from r1rl.config.issues import Contradiction, Issues
from r1rl.config.nodes import Node

Continuation = Literal["from a checkpoint", "by itself", "from the start"]
"""The way in which a killed run continues: with --resume, with the same command in the same folder, or not at
all.
"""

SUMMARY = "summary.json"
WHOLE_RUN = "run"
"""The output that every stage of a pipeline has: its folder."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag `--name [VALUE]` of a command.

    Its value is None if it is absent, `bare` if it stands without a value, else the value. With `places`, the
    names of several values, it needs all of them, gives them as a list, and takes the place of the recipe.
    """

    name: str
    bare: str
    help: str
    places: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """The flag as it is written on the command line."""
        return f"--{self.name} {' '.join(self.places) if self.places else '[VALUE]'}"


RESUME = Flag("resume", "latest", "go on from the run's last checkpoint, or from the checkpoint folder VALUE")
"""The flag of every command that trains."""


def _unknown_cost(recipe: Any) -> Cost:
    """Return the cost of a recipe that says nothing about it."""
    return Cost()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """The properties of a command that can be a stage of a pipeline."""

    outputs: Mapping[str, str]
    """The outputs that a reference ${stage.output} may name, and where each lies in the run's folder."""
    continuation: Continuation
    last_written: str = SUMMARY
    """The file whose presence says that the command has done everything."""
    summary: str = SUMMARY
    """The JSON file with the command's figures."""
    cost: Callable[[Any], Cost] = _unknown_cost
    """The expected cost of a recipe."""

    @property
    def references(self) -> dict[str, str]:
        """The outputs, and the run's folder itself under the name "run"."""
        return {**self.outputs, WHOLE_RUN: ""}


MODEL_OUTPUT: Mapping[str, str] = MappingProxyType({"model": "checkpoints"})
"""The output of a command that trains a model: its newest checkpoint."""


def _no_contradictions(recipe: Any) -> Iterable[Contradiction]:
    """Return nothing: any values of the recipe go together."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of r1rl. Fields that are "module:name" are imported by `resolve` where they are needed."""

    name: str
    """The word on the command line."""
    position: int
    """The place in `r1rl --help`: commands are listed by ascending position."""
    summary: str
    """One line for `r1rl --help`."""
    explanation: str
    """A paragraph for `r1rl COMMAND --help`."""
    examples: tuple[str, ...]
    """Command lines that work as they are; the first one is shown where the recipe is missing."""
    run: str
    """The function (recipe, its path, and each flag as a keyword) -> None.

    Recipe and path are None if a flag with places takes the place of the recipe. It raises `UserError` for
    mistakes that the user can mend.
    """
    recipe: type | None = None
    """The dataclass of the recipe; None for a command that reads the recipes of all others."""
    flags: tuple[Flag, ...] = ()
    many_processes: bool = False
    """A flag, true if the command shares its work among the processes of `accelerate launch`."""
    contradictions: Callable[[Any], Iterable[Contradiction]] = _no_contradictions
    """The function (recipe) -> values that contradict each other, beside the checks of sections that several
    recipes have.

    It reads no files.
    """
    apply_override: Callable[[Node, str, Issues], bool] | None = None
    """The function (tree of the recipe, "key=value", issues) -> bool, or None if overrides have their usual
    meaning.

    It returns True if the override was applied in the command's own way.
    """
    check: str | None = None
    """The function (recipe, r1rl.preflight.context.CheckContext) -> r1rl.preflight.findings.Findings, or
    None.

    Its findings are all that can be known before a model is loaded. With None, only the output folder and the
    model's folder are looked at.
    """
    parts: str | None = None
    """The function (recipe, CheckContext) -> iterator of r1rl.preflight.context.Part, for a recipe that is
    made of other recipes.

    `r1rl check` checks each of those in the place of the whole.
    """
    memory: str | None = None
    """The function (recipe, Launch, longest, config) -> r1rl.memory.estimate.Estimate, or None if there is no
    estimate.

    `longest` are the tokens of the longest prompt or None, and `config` is the path of a config.json or None.
    The function returns None if the recipe loads no model here.
    """
    training: str | None = None
    """The class of r1rl.runs.training_run.TrainingRun that does the training, or None for a command that
    trains nothing in steps.
    """
    stage: StageRecord | None = None
    """The properties of the command as a stage of a pipeline, or None if it can't be one."""


def resolve(name: str) -> Any:
    """Import and return the function or value that "module:name" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@functools.cache
def find_commands() -> Mapping[str, Command]:
    """Return the commands of r1rl by name, in the order of their positions.

    It looks for packages of r1rl with a `command.py`, without importing any other package.
    """
    found = [
        importlib.import_module(f"r1rl.{package.name}.command").COMMAND
        for package in pkgutil.iter_modules(r1rl.__path__)
        if package.ispkg and _has_record(package)
    ]
    return {command.name: command for command in sorted(found, key=lambda one: (one.position, one.name))}


def _has_record(package: pkgutil.ModuleInfo) -> bool:
    spec = package.module_finder.find_spec(package.name, None)
    places = spec.submodule_search_locations if spec is not None else None
    return any(module.name == "command" for module in pkgutil.iter_modules(places or []))


def command_of(recipe: Any) -> Command:
    """Return the command that reads a recipe."""
    return next(command for command in find_commands().values() if type(recipe) is command.recipe)


def stage_commands() -> dict[str, StageRecord]:
    """Return the commands that can be stages of a pipeline, by name."""
    return {name: command.stage for name, command in find_commands().items() if command.stage is not None}
