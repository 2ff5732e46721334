"""One stage: its folder, its outputs, and its recipe with the outputs of other stages filled in."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from r1rl.config.bundled import find_recipe
from r1rl.config.commands import StageRecord, stage_commands
from r1rl.config.load import load_recipe
from r1rl.config.nodes import RecipeLoader
from r1rl.errors import RecipeError, UserError
from r1rl.models.checkpoint_folders import CHECKPOINTS, find_checkpoint
from r1rl.pipeline.recipe import REFERENCE, PipelineRecipe, StageConfig, in_order, needs


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a pipeline and where it lies."""

    config: StageConfig
    folder: Path
    recipe_path: Path
    needs: tuple[str, ...]
    """The stages whose output it reads."""

    @property
    def name(self) -> str:
        """The stage's name, which is that of its folder."""
        return self.config.name

    @property
    def command(self) -> str:
        """The name of the command that it runs."""
        return self.config.command

    @property
    def record(self) -> StageRecord:
        """The properties of its command."""
        return stage_commands()[self.command]

    def output(self, name: str) -> Path | None:
        """Return the path where an output lies now; None if it is not there (yet)."""
        path = self.folder / self.record.references[name]
        if name == "model":
            return find_checkpoint(path)
        return path if path.exists() else None

    def lacks(self) -> list[str]:
        """Return the outputs that it does not have (yet)."""
        return [name for name in self.record.references if self.output(name) is None]

    def has_everything(self) -> bool:
        """Return whether its command has written all that it writes, even if the pipeline did not note it."""
        return not self.lacks() and (self.folder / self.record.last_written).is_file()

    def summary(self) -> dict[str, Any]:
        """Return the figures that its command left; empty if there are none."""
        path = self.folder / self.record.summary
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def checkpoint(self) -> Path | None:
        """Return the checkpoint that it goes on from; None if it starts anew."""
        if self.record.continuation != "from a checkpoint":
            return None
        return find_checkpoint(self.folder / CHECKPOINTS)


def make_stages(recipe: PipelineRecipe, recipe_path: Path) -> list[Stage]:
    """Return the stages in the order in which they run. Raises RecipeError, naming the stage, if a recipe or
    launch file is missing.
    """
    folder = Path(recipe.output_dir) / recipe.run_name
    ordered = in_order(recipe.stages)
    assert ordered is not None  # `contradictions` refuses circles
    stages = []
    for config in ordered:
        try:
            found = find_recipe(config.recipe)
            if config.launch is not None and config.launch.config_file is not None:
                launch = replace(config.launch, config_file=str(find_recipe(config.launch.config_file)))
                config = replace(config, launch=launch)
        except UserError as error:
            raise RecipeError(f"{recipe_path}: stage {config.name}: {error}") from error
        stages.append(Stage(config, folder / config.name, found, tuple(needs(config))))
    return stages


def overrides(stage: Stage, stages: Sequence[Stage]) -> list[str]:
    """Return the overrides of the stage's recipe, with references filled in and the run placed in the stage's
    folder.

    A reference to an output that does not exist yet becomes the path that it will have (of a model: its run
    directory).
    """
    by_name = {one.name: one for one in stages}
    filled = {key: _fill(value, by_name) for key, value in stage.config.set.items()}
    placed = {"run_name": stage.folder.name, "output_dir": str(stage.folder.parent)}
    return [f"{key}={_as_yaml(value)}" for key, value in {**filled, **placed}.items()]


def load_stage(stage: Stage, stages: Sequence[Stage]) -> Any:
    """Load the stage's recipe with its overrides. Raises RecipeError, naming the stage."""
    try:
        return load_recipe(stage.command, stage.recipe_path, overrides(stage, stages))
    except RecipeError as error:
        raise RecipeError(f"stage {stage.name}: {error}") from error


def command_line(stage: Stage, stages: Sequence[Stage], resume: bool) -> list[str]:
    """Return the words that start the stage."""
    words = [
        "r1rl",
        stage.command,
        str(stage.recipe_path),
        *overrides(stage, stages),
        *(["--resume"] if resume else []),
    ]
    launch = stage.config.launch
    if launch is None:
        return [sys.executable, "-m", *words]
    flags = ["--config_file", launch.config_file] if launch.config_file else []
    flags += ["--num_processes", str(launch.num_processes)] if launch.num_processes else []
    flags += ["--cpu"] if launch.cpu else []
    return [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m", *words]


def _fill(value: Any, stages: Mapping[str, Stage]) -> Any:
    """Return the value with every reference replaced by a path."""
    if isinstance(value, dict):
        return {key: _fill(one, stages) for key, one in value.items()}
    if isinstance(value, list):
        return [_fill(one, stages) for one in value]
    return REFERENCE.sub(lambda found: _path(found[1], stages), value) if isinstance(value, str) else value


def _path(reference: str, stages: Mapping[str, Stage]) -> str:
    name, _, output = reference.partition(".")
    stage = stages[name]
    planned = stage.folder if output == "model" else stage.folder / stage.record.references[output]
    return str(stage.output(output) or planned)


def _as_yaml(value: Any) -> str:
    """Return the value as an override writes it: plain text where that is read back as the same text, else
    JSON, which YAML reads.
    """
    if isinstance(value, str):
        try:
            if yaml.load(value, RecipeLoader) == value:
                return value
        except yaml.YAMLError:
            pass
    return json.dumps(value, ensure_ascii=False)
