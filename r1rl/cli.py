"""The command line: `r1rl COMMAND RECIPE.yaml [key=value ...] [flags]`.

The recipe is read and checked before torch is imported; a command's module is imported only when it runs.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from r1rl import __version__
from r1rl.bundled import bundled_path
from r1rl.config.load import RECIPES, load_recipe
from r1rl.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
OVERRIDE = re.compile(r"^[A-Za-z_][\w.-]*=")


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag `--name [VALUE]` of a command: absent None, without a value `bare`, else the value.

    With `places`, the names of several values, it needs all of them, gives them as a list, and takes the place of the recipe.
    """

    name: str
    bare: str
    help: str
    places: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """How it is written."""
        return f"--{self.name} {' '.join(self.places) if self.places else '[VALUE]'}"


@dataclass(frozen=True, slots=True)
class Command:
    """One command: what it is for, and the function `target` ("module:function") that gets the recipe, its path and the flags."""

    name: str
    summary: str
    explanation: str
    examples: tuple[str, ...]
    target: str
    flags: tuple[Flag, ...] = ()
    many_processes: bool = False

    @property
    def recipe(self) -> type:
        """The recipe that the command reads."""
        return RECIPES[self.name]


TINY = "recipes/zero_rl/tiny.yaml"

COMMANDS = {
    command.name: command
    for command in (
        Command(
            name="check",
            summary="everything about a grpo recipe that can be known before the model is loaded",
            explanation=(
                "Reads the data, resolves the rewards and compares their parameters with the columns, renders a prompt, grades every gold "
                "answer against itself, and counts prompt tokens. Trains nothing and needs no GPU."
            ),
            examples=(f"r1rl check {TINY}", f"r1rl check {TINY} data.limit=100"),
            target="r1rl.check:run",
        ),
        Command(
            name="grpo",
            summary="reinforcement learning from rewards, such as zero-RL on a base model",
            explanation=(
                "Each step samples num_generations completions for each of num_prompts problems, scores them with the rewards, compares "
                "each with its group, and updates the policy. A run leaves metrics, completions, checkpoints, curves and a summary."
            ),
            examples=(
                f"r1rl grpo {TINY}",
                f"r1rl grpo {TINY} max_steps=20 rewards.1.weight=0.2 run_name=short",
                f"r1rl grpo {TINY} --resume",
                "accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m r1rl grpo recipes/zero_rl/qwen2.5-math-7b_math.yaml",
            ),
            target="r1rl.grpo.run:run",
            flags=(Flag("resume", "latest", "go on from the run's last checkpoint, or from the checkpoint folder VALUE"),),
            many_processes=True,
        ),
        Command(
            name="evaluate",
            summary="scores of models on benchmarks, with intervals, what went wrong, and a report",
            explanation=(
                "Samples completions of every benchmark problem from every model, grades them, and compares the models on the same "
                "problems. The same command goes on where it was interrupted. Leaves a manifest beside every score and one report.html."
            ),
            examples=(
                "r1rl evaluate recipes/evaluate/tiny.yaml",
                "r1rl evaluate recipes/evaluate/tiny.yaml models.1.path=runs/tiny models.1.every_step=true",
                "r1rl evaluate recipes/evaluate/math.yaml local_dir=benchmarks benchmarks='[math500, my_problems.jsonl]'",
                "r1rl evaluate --compare runs/evaluate-tiny/base runs/evaluate-tiny/trained",
            ),
            target="r1rl.evaluation.command:run",
            flags=(
                Flag("compare", "", "no recipe: the paired difference B minus A of two folders with results", places=("A", "B")),
                Flag("force", "yes", "compare also what was measured differently, and say what differs"),
            ),
            many_processes=True,
        ),
        Command(
            name="pretrain",
            summary="a small base model from scratch on synthetic maths text",
            explanation="Trains a tokenizer and a small decoder; this is how the embedded base model was made.",
            examples=("r1rl pretrain recipes/pretrain/tiny.yaml",),
            target="r1rl.stages.pretrain:run",
        ),
    )
}


@dataclass(slots=True)
class Invocation:
    """A command line taken apart."""

    recipe: str | None = None
    overrides: list[str] = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)
    help: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 for an error that the user can mend, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except UserError as error:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"r1rl: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        from r1rl.help import print_overview

        print_overview(COMMANDS.values())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    command = _command(arguments[0])
    invocation = parse_arguments(command, arguments[1:])
    if invocation.help:
        from r1rl.help import print_command

        print_command(command)
        return 0
    if any(flag.places and invocation.flags[flag.name] is not None for flag in command.flags):
        _run(command, None, None, invocation.flags)
        return 0
    if invocation.recipe is None:
        raise UserError(f"r1rl {command.name} needs a recipe, such as: {command.examples[0]}. r1rl {command.name} --help lists its keys.")
    path = find_recipe(invocation.recipe)
    recipe = load_recipe(command.name, path, invocation.overrides)
    if command.many_processes:
        from r1rl.launch import missing_cpu_processes, start_processes

        if count := missing_cpu_processes():
            return start_processes(count, arguments)
    _run(command, recipe, path, invocation.flags)
    return 0


def _run(command: Command, recipe: Any, path: Path | None, flags: dict[str, Any]) -> None:
    module, function = command.target.split(":")
    getattr(importlib.import_module(module), function)(recipe, path, **flags)


def _command(name: str) -> Command:
    if name in COMMANDS:
        return COMMANDS[name]
    near = get_close_matches(name, COMMANDS, n=1)
    advice = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}."
    raise UserError(f"there is no command {name}; {advice}")


def parse_arguments(command: Command, arguments: Sequence[str]) -> Invocation:
    """Take apart what follows the command's name.

    A flag's value may stand after a space, unless what stands there is an override or the recipe is still to come.
    """
    invocation = Invocation(flags={flag.name: None for flag in command.flags})
    flags = {f"--{flag.name}": flag for flag in command.flags}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            invocation.help = True
        elif name in flags and flags[name].places:
            invocation.flags[flags[name].name] = _values(command, flags[name], waiting)
        elif name in flags:
            follows_value = bool(waiting) and invocation.recipe is not None and not _is_override(waiting[0]) and waiting[0][0:1] != "-"
            if not equals:
                value = waiting.pop(0) if follows_value else flags[name].bare
            invocation.flags[flags[name].name] = value
        elif word.startswith("-"):
            near = get_close_matches(name, [*flags, "--help"], n=1)
            known = f"did you mean {near[0]}?" if near else f"it has the flags {', '.join([*flags, '--help'])}."
            raise UserError(f"r1rl {command.name} has no flag {name}; {known} Settings are written key=value, without dashes.")
        elif _is_override(word):
            invocation.overrides.append(word)
        elif invocation.recipe is None:
            invocation.recipe = word
        else:
            raise UserError(f'"{word}" is neither a flag nor key=value; the recipe is {invocation.recipe}.')
    return invocation


def _values(command: Command, flag: Flag, waiting: list[str]) -> list[str]:
    """Take the values of a flag that needs several from the words that follow it."""
    values = [waiting.pop(0) for _ in flag.places if waiting and not waiting[0].startswith("-")]
    if len(values) < len(flag.places):
        raise UserError(f"--{flag.name} needs {len(flag.places)} values: r1rl {command.name} {flag.usage}")
    return values


def _is_override(word: str) -> bool:
    return bool(OVERRIDE.match(word)) and not Path(word).is_file()


def find_recipe(name: str) -> Path:
    """The recipe's file: in the working directory, else among the bundled recipes (`recipes/zero_rl/tiny.yaml`, `zero_rl/tiny`)."""
    path = Path(name)
    if path.is_file():
        return path
    bundled = bundled_path("recipes")
    inside = name.removeprefix("recipes/")
    for candidate in (bundled / inside, bundled / f"{inside}.yaml"):
        if not path.is_absolute() and candidate.is_file():
            return candidate
    known = sorted(f"recipes/{file.relative_to(bundled)}" for file in bundled.rglob("*.yaml") if file.parent.name != "accelerate")
    near = get_close_matches(name, known, n=3) or [recipe for recipe in known if path.stem and path.stem in recipe]
    if path.is_dir():
        raise UserError(f"{name} is a folder; name a recipe file in it.")
    listing = f"{'near it' if near else 'those'}: {', '.join(near or known)}"
    raise UserError(f"there is no recipe {name} here or among the bundled ones; {listing}.")
