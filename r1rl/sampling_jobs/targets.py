"""Targets: from a path in the recipe to the checkpoints behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from r1rl import models
from r1rl.config.schema import EvaluatedModelConfig, SampledModelConfig
from r1rl.errors import RecipeError
from r1rl.models.adapters import Adapter, find_adapter
from r1rl.models.checkpoint_folders import CHECKPOINTS, checkpoint_path, step_of, whole_checkpoints
from r1rl.models.loading import InMemory


@dataclass(frozen=True, slots=True)
class Target:
    """One model to evaluate."""

    label: str
    """The name in tables and of folders."""
    path: str
    """A folder or a hub name, as transformers takes it: that of the adapter's model where there is an
    adapter. With an endpoint it is the model's name at the server.
    """
    config: EvaluatedModelConfig
    run: str | None = None
    """The name that the checkpoints of one run have in common."""
    step: int | None = None
    """The training step, for the curve; None for what is no checkpoint of a run."""
    adapter: Adapter | None = None
    """The adapter that is merged into the model; None for a whole model."""
    given: InMemory | None = None
    """The model itself, where the caller holds it in memory."""

    @property
    def revision(self) -> str | None:
        """The hub revision of `path`."""
        return self.config.revision if self.adapter is None else self.adapter.base_revision


def find_targets(
    configs: list[EvaluatedModelConfig], given: Mapping[str, InMemory] | None = None
) -> list[Target]:
    """Return the models of a recipe in its order. `given` has models in memory by what the recipe has for
    their path.

    Raises RecipeError for a path without a model and for two with the same label.
    """
    held = given or {}
    targets = []
    for index, config in enumerate(configs):
        if config.path in held:
            targets.append(Target(_label(config), config.path, config, given=held[config.path]))
        else:
            targets += _targets(config, f"models.{index}")
    for label, count in Counter(target.label for target in targets).items():
        if count > 1:
            raise RecipeError(
                f"models: two of them are called {label}: give them different names (name: ...)."
            )
    return targets


def find_target(config: SampledModelConfig, key: str) -> Target:
    """Return the one model behind a section of a recipe, whose name there is `key`. A run directory stands
    for its newest checkpoint, or that of the section's step.

    Raises RecipeError for a path without a model.
    """
    settings = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    return _targets(EvaluatedModelConfig(**settings), key)[0]


def _label(config: EvaluatedModelConfig) -> str:
    return (config.name or Path(config.path).name or config.path).replace("/", "-")


def _targets(config: EvaluatedModelConfig, key: str) -> list[Target]:
    name = _label(config)
    if config.endpoint is not None:
        return [Target(name, config.endpoint.model or config.path, config)]
    if models.is_run(config.path):
        return _of_run(config, Path(config.path).expanduser(), name, key)
    folder = Path(models.resolve(config.path)).expanduser()
    if config.every_step or config.step is not None:
        word = "every_step" if config.every_step else "step"
        raise RecipeError(
            f"{key}.{word} is set, but {config.path} is no run directory (it has no checkpoints folder)."
        )
    if not folder.is_dir() and (config.path.count("/") > 1 or config.path.startswith((".", "/", "~"))):
        raise RecipeError(
            f"{key}.path: there is no folder {folder} in {Path.cwd()}, and no hub name (OWNER/NAME) looks "
            f"like this."
        )
    path = str(folder) if folder.is_dir() else config.path
    adapter = find_adapter(path, config.revision, config.base, key)
    if adapter is not None:
        return [Target(name, _base_of(adapter, key), config, adapter=adapter)]
    if config.base is not None:
        raise RecipeError(f"{key}.base is set, but {config.path} is no PEFT adapter: leave base out.")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise RecipeError(
            f"{key}.path: the folder {folder} has no config.json and no checkpoints, so it holds no model."
        )
    return [Target(name, path, config)]


def _base_of(adapter: Adapter, key: str) -> str:
    """Return what transformers loads for the model that an adapter belongs to. Raises RecipeError if it can't
    be there.
    """
    path = models.resolve(adapter.base)
    if _is_lost_folder(path):
        raise RecipeError(
            f"{key}.path: the adapter {adapter.path} belongs to {adapter.base}, which is no folder here and "
            f"no hub name (OWNER/NAME): "
            f"write where that model is in {key}.base."
        )
    return path


def _of_run(config: EvaluatedModelConfig, run: Path, name: str, key: str) -> list[Target]:
    folder = run / CHECKPOINTS
    found = whole_checkpoints(folder)
    if config.step is not None:
        wanted = checkpoint_path(folder, config.step)
        if wanted not in found:
            kept = ", ".join(str(step_of(path)) for path in found) or "none"
            raise RecipeError(f"{key}.step: {run} has no checkpoint of step {config.step}; it has: {kept}.")
        found = [wanted]
    if not found:
        raise RecipeError(f"{key}.path: {folder} has no whole checkpoint.")
    if not config.every_step:
        return [_of_checkpoint(config, found[-1], name, name, key)]
    targets = [_of_checkpoint(config, path, f"{name}-step-{step_of(path):06d}", name, key) for path in found]
    start = _start_of(run)
    return targets if start is None else [Target(f"{name}-step-000000", start, config, name, 0), *targets]


def _of_checkpoint(config: EvaluatedModelConfig, checkpoint: Path, label: str, run: str, key: str) -> Target:
    """Return one checkpoint of a run, which trained a whole model or adapters."""
    adapter = find_adapter(str(checkpoint), None, config.base, key)
    if adapter is None and config.base is not None:
        raise RecipeError(f"{key}.base is set, but {checkpoint} is no PEFT adapter: leave base out.")
    path = str(checkpoint) if adapter is None else _base_of(adapter, key)
    return Target(label, path, config, run, step_of(checkpoint), adapter)


def _start_of(run: Path) -> str | None:
    """Return the model that the run's training started from; None if its config.yaml does not say or the
    folder is gone.
    """
    try:
        path = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["model"]["path"]
        resolved = models.resolve(str(path))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, RecipeError):
        return None
    return None if _is_lost_folder(resolved) else resolved


def _is_lost_folder(path: str) -> bool:
    return not Path(path).is_dir() and (path.count("/") != 1 or path.startswith((".", "/", "~")))
