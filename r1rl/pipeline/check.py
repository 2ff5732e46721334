"""`r1rl check` of a pipeline: every stage's recipe, with the outputs of other stages filled in as far as they
can be foreseen.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from r1rl.check.recipe import check_one
from r1rl.config.walk import walk
from r1rl.errors import UserError
from r1rl.memory.launch import find_launch
from r1rl.memory.plan import Launch
from r1rl.pipeline.missing import check_files
from r1rl.pipeline.recipe import PipelineRecipe
from r1rl.pipeline.stage import Stage, load_stage, make_stages
from r1rl.preflight.awaited import set_key


def check_pipeline(
    console: Console,
    recipe: PipelineRecipe,
    recipe_path: Path,
    launch: Launch,
    source: str,
    model_config: str | None,
) -> None:
    """Every stage. A model that a stage will make is looked at as the model that the stage starts from, which
    has its shape.

    Raises a UserError, naming the stage, for what would keep it from starting. `launch` is that of stages
    with no launch of their own.
    """
    stages = make_stages(recipe, recipe_path)
    starts: dict[Path, str] = {}
    for stage in stages:
        loaded = load_stage(stage, stages)
        check_files(loaded, stage, stages)
        loaded, awaited = foresee(loaded, stage, stages, starts)
        model = getattr(loaded, "model", None)
        if model is not None and "model.path" not in awaited:
            starts[stage.folder] = model.path
        console.rule(Text(f"stage {stage.name}: r1rl {stage.command} {stage.recipe_path}"), align="left")
        own, where = _launch(stage, launch, source)
        try:
            check_one(console, loaded, stage.recipe_path, awaited, own, where, model_config)
        except UserError as error:
            raise type(error)(f"stage {stage.name}: {error}") from error


def foresee(
    recipe: Any, stage: Stage, stages: Sequence[Stage], starts: dict[Path, str]
) -> tuple[Any, dict[str, str]]:
    """The recipe with models that do not exist yet replaced by those that they start from, and what can't be
    foreseen: key, reason.
    """
    changed = copy.deepcopy(recipe)
    awaited: dict[str, str] = {}
    for key, value, kind in walk(recipe):
        maker = next(
            (
                one
                for one in stages
                if kind is not None and _is_of(value, one.folder) and not Path(value).exists()
            ),
            None,
        )
        if maker is None:
            continue
        if maker.folder in starts and Path(value) == maker.folder:
            set_key(changed, key, starts[maker.folder])
        else:
            awaited[key] = f"stage {maker.name} makes it, and has not run"
    return changed, awaited


def _is_of(value: Any, folder: Path) -> bool:
    return isinstance(value, str) and (value == str(folder) or value.startswith(f"{folder}/"))


def _launch(stage: Stage, launch: Launch, source: str) -> tuple[Launch, str]:
    own = stage.config.launch
    if own is None:
        return launch, source
    count = str(own.num_processes) if own.num_processes is not None else None
    found, where = find_launch(stage.recipe_path, None if own.cpu else count, own.config_file)
    if own.cpu:
        return dataclasses.replace(
            found, on_gpu=False, sharded=False, processes=own.num_processes or 1
        ), "the stage's launch"
    return found, where
