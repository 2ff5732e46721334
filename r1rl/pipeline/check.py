"""The parts of a pipeline that `r1rl check` looks at: every stage's recipe, with the outputs of other stages
filled in as far as they can be foreseen.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1rl.config.awaited import set_key
from r1rl.config.walk import walk
from r1rl.memory.launch import find_launch
from r1rl.memory.work import Launch
from r1rl.pipeline.missing import check_files
from r1rl.pipeline.recipe import PipelineRecipe
from r1rl.pipeline.stage import Stage, load_stage, make_stages
from r1rl.preflight.context import CheckContext, Part


def parts(recipe: PipelineRecipe, context: CheckContext) -> Iterator[Part]:
    """Yield every stage. A model that a stage will make is looked at as the model that the stage starts from,
    which has its shape.

    Raises a UserError, naming the stage, for a recipe or file that is missing. The context's launch is that
    of stages with no launch of their own.
    """
    stages = make_stages(recipe, context.recipe_path)
    starts: dict[Path, str] = {}
    for stage in stages:
        loaded = load_stage(stage, stages)
        check_files(loaded, stage, stages)
        loaded, awaited = foresee(loaded, stages, starts)
        model = getattr(loaded, "model", None)
        if model is not None and "model.path" not in awaited:
            starts[stage.folder] = model.path
        launch, source = _launch(stage, context)
        yield Part(
            name=f"stage {stage.name}",
            title=f"stage {stage.name}: r1rl {stage.command} {stage.recipe_path}",
            recipe=loaded,
            context=CheckContext(stage.recipe_path, launch, source, awaited, context.model_config),
        )


def foresee(recipe: Any, stages: Sequence[Stage], starts: dict[Path, str]) -> tuple[Any, dict[str, str]]:
    """Return the recipe with models that do not exist yet replaced by those that they start from, and the
    keys that can't be foreseen, with the reason for each.

    `starts`: by a stage's folder, the model that the stage starts from.
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


def _launch(stage: Stage, context: CheckContext) -> tuple[Launch, str]:
    """Return the launch of a stage and where it comes from."""
    own = stage.config.launch
    if own is None:
        return context.launch, context.launch_source
    count = str(own.num_processes) if own.num_processes is not None else None
    found, where = find_launch(stage.recipe_path, None if own.cpu else count, own.config_file)
    if own.cpu:
        processes = own.num_processes or 1
        return replace(found, on_gpu=False, sharded=False, processes=processes), "the stage's launch"
    return found, where
