"""The recipe of `r1rl pipeline`: stages, and the references by which one stage's output becomes another's
input.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from r1rl.config.commands import stage_commands
from r1rl.config.fields import option, required
from r1rl.config.intervals import COUNT
from r1rl.config.issues import Contradiction, Issues
from r1rl.config.nodes import Node, parse

REFERENCE = re.compile(r"\$\{([^}]*)\}")
SET_OVERRIDE = re.compile(r"stages\.(\d+)\.set\.(.+)")
STAGE_NAME = re.compile(r"[A-Za-z_][\w-]*")
PLACED = ("run_name", "output_dir")
"""The keys of a stage's recipe that are the pipeline's own: they say where the stage's output lies."""


@dataclass(kw_only=True, slots=True)
class LaunchConfig:
    """The launch of a stage's processes. It says how fast a stage is, not what it makes: changing it runs
    nothing again.
    """

    config_file: str | None = option(
        None, "an accelerate configuration, such as recipes/accelerate/fsdp2.yaml", path="any"
    )
    num_processes: int | None = option(None, "processes; null: those of config_file, or one", within=COUNT)
    cpu: bool = option(False, "keep the processes on the CPU")


@dataclass(kw_only=True, slots=True)
class StageConfig:
    """One stage: a command of r1rl with its recipe."""

    name: str = required("names the stage, its folder and references to it")
    command: str = required("what it runs", choices=stage_commands)
    recipe: str = required(
        "the command's recipe; a bundled one goes by its name, such as recipes/zero_rl/tiny.yaml", path="any"
    )
    set: dict[str, Any] = option(
        {}, "overrides with dotted keys, as on the command line; ${stage.output} is another stage's output"
    )
    launch: LaunchConfig | None = option(None, "start the stage with accelerate; null: one process")


@dataclass(kw_only=True, slots=True)
class PipelineRecipe:
    """`r1rl pipeline`: stages that feed each other, each run once for its inputs."""

    run_name: str = required(
        "names the folder of all stages; the same command goes on where it was interrupted"
    )
    output_dir: str = option("runs", "pipelines' folders are made in here")
    stages: list[StageConfig] = required("what is run; a stage may refer to any other, and runs after it")


def references(value: Any) -> list[str]:
    """Return the references in a value of `set`, however deep: ["base.model"]."""
    if isinstance(value, str):
        return REFERENCE.findall(value)
    items: Sequence[Any] = (
        list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    )
    return [found for item in items for found in references(item)]


def needs(stage: StageConfig) -> list[str]:
    """Return the names of the stages whose output a stage reads, each once."""
    return list(dict.fromkeys(reference.partition(".")[0] for reference in references(stage.set)))


def in_order(stages: Sequence[StageConfig]) -> list[StageConfig] | None:
    """Return the stages so that each comes after those that it needs, else in the recipe's order; None if
    they need each other in a circle.
    """
    ordered: list[StageConfig] = []
    waiting = list(stages)
    while waiting:
        done = {stage.name for stage in ordered}
        ready = next((stage for stage in waiting if done.issuperset(needs(stage))), None)
        if ready is None:
            return None
        ordered.append(ready)
        waiting.remove(ready)
    return ordered


def apply_stage_override(root: Node, override: str, issues: Issues) -> bool:
    """Apply `STAGE.key=value`, which sets a key of that stage's recipe as an override of its command would,
    and return whether the override had that form.

    `stages.NUMBER.set.key=value` is the same. The key stays one key of `set`, with its dots: it is no path
    through sections of `set`.
    """
    written, equals, text = override.partition("=")
    by_number = SET_OVERRIDE.fullmatch(written)
    name, _, key = written.partition(".")
    stages = root.value.get("stages") if isinstance(root.value, dict) else None
    for number, stage in enumerate(
        stages.value if stages is not None and isinstance(stages.value, list) else ()
    ):
        if not isinstance(stage.value, dict):
            continue
        named = stage.value.get("name")
        if by_number is not None and int(by_number[1]) == number:
            key = by_number[2]
        elif not key or named is None or named.value != name:
            continue
        where = f"override {override}"
        settings = stage.value.setdefault("set", Node({}, where))
        if settings.value is None:
            settings.value = {}
        if equals and isinstance(settings.value, dict):
            settings.value[key] = parse(text or '""', issues.source, issues, where)
            return True
    return False


def contradictions(recipe: PipelineRecipe) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict each other."""
    if not recipe.stages:
        yield ("stages",), "stages is empty: list at least one"
    for name in (name for name, count in Counter(stage.name for stage in recipe.stages).items() if count > 1):
        yield ("stages",), f"stages has two of the name {name}"
    by_name = {stage.name: stage for stage in recipe.stages}
    sound = True
    for number, stage in enumerate(recipe.stages):
        key = f"stages.{number}"
        if not STAGE_NAME.fullmatch(stage.name):
            yield (
                (f"{key}.name",),
                f'{key}.name is "{stage.name}"; it names a folder: letters, digits, _ and -, a letter first',
            )
        for setting in stage.set:
            if setting.partition(".")[0] in PLACED:
                yield (
                    (f"{key}.set",),
                    f"{key}.set has {setting}, but the pipeline itself gives each stage its folder: leave "
                    f"it out",
                )
        for reference in references(stage.set):
            sentence = _wrong_reference(reference, by_name)
            if sentence:
                sound = False
                yield (f"{key}.set",), f"{key}.set refers to ${{{reference}}}; {sentence}"
    if sound and in_order(recipe.stages) is None:
        yield ("stages",), f"stages need each other in a circle: {_circle(recipe.stages)}"


def _wrong_reference(reference: str, stages: dict[str, StageConfig]) -> str:
    """Return a sentence about what is wrong with a reference; empty if nothing is."""
    name, _, output = reference.partition(".")
    if name not in stages:
        return f"there is no stage {name}; the stages are {', '.join(stages)}"
    record = stage_commands().get(stages[name].command)
    if record is None:  # the command has an error of its own
        return ""
    outputs = record.references
    if output not in outputs:
        listed = ", ".join(f"${{{name}.{known}}}" for known in outputs)
        return (
            f"a stage of r1rl {stages[name].command} has the output{'s' if len(outputs) > 1 else ''} {listed}"
        )
    return ""


def _circle(stages: Sequence[StageConfig]) -> str:
    """Return the names along one circle: "a needs b needs a"."""
    by_name = {stage.name: stage for stage in stages}
    free: set[str] = set()
    while True:  # take away what needs nothing that is left; what remains needs something in a circle
        removable = [
            name for name, stage in by_name.items() if name not in free and free.issuperset(needs(stage))
        ]
        if not removable:
            break
        free.update(removable)
    path = [next(name for name in by_name if name not in free)]
    while path.count(path[-1]) < 2:
        path.append(next(name for name in needs(by_name[path[-1]]) if name not in free))
    return " needs ".join(path[path.index(path[-1]) :])
