"""A stand-in for r1rl's commands in tests of the pipeline: it reads the real recipes and writes their
outputs, without a model.

    python pipeline_stage.py PAUSE r1rl COMMAND RECIPE key=value ... [--resume]

A training writes a checkpoint per step, whole or not at all, and continues with --resume; an evaluation keeps
its samples line by line. The output of a stage depends on its recipe and on the bytes of the models and data
that it reads. Each stage that ends notes it in ended.log beside the stages' folders.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from r1rl import models
from r1rl.config.load import dump_recipe, load_recipe
from r1rl.models.checkpoint_folders import checkpoint_path, find_checkpoint, step_of
from r1rl.runs.run_directory import RunDirectory


def main(words: list[str], pause: float = 0.0) -> int:
    """Run a stage; `words` start with "r1rl"."""
    _, command, recipe_path, *rest = words
    recipe = load_recipe(command, recipe_path, [word for word in rest if not word.startswith("--")])
    folder = Path(recipe.output_dir) / recipe.run_name
    if command == "evaluate":
        evaluate(recipe, folder, pause)
    else:
        train(recipe, folder, "--resume" in rest, pause)
    with (folder.parent / "ended.log").open("a") as file:
        file.write(f"{folder.name}\n")
    return 0


def train(recipe: Any, folder: Path, resume: bool, pause: float) -> None:
    if resume:
        checkpoint = find_checkpoint(folder / "checkpoints")
        assert checkpoint is not None, "--resume without a checkpoint"
        first = step_of(checkpoint) + 1
    else:
        directory = RunDirectory.create(recipe.output_dir, recipe.run_name)
        assert directory.path == folder, f"{folder} was not clean"
        (folder / "config.yaml").write_text(dump_recipe(recipe))
        first = 1
    data = Path(recipe.data.source)
    material = [
        read_model(recipe.model.path),
        data.read_text() if data.is_file() else recipe.data.source,
        recipe.optimizer.learning_rate,
    ]
    for step in range(first, recipe.max_steps + 1):
        time.sleep(pause)
        with (folder / "steps.log").open("a") as file:
            file.write(f"{step}\n")
        partial = checkpoint_path(folder / "checkpoints", step).with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / "config.json").write_text("{}")
        (partial / "model.safetensors").write_text(json.dumps([*material, step]))
        partial.rename(partial.with_suffix(""))
    RunDirectory(folder).write_summary(
        {"accuracy_after": {"value": 0.5, "ci95": [0.4, 0.6]}, "steps": recipe.max_steps}
    )


def evaluate(recipe: Any, folder: Path, pause: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "samples.log"
    have = log.read_text().splitlines() if log.is_file() else []
    wanted = [f"{model.name} {number}" for model in recipe.models for number in range(recipe.num_problems)]
    for name in (name for name in wanted if name not in have):
        time.sleep(pause)
        with log.open("a") as file:
            file.write(f"{name}\n")
    scores = []
    for model in recipe.models:
        value = len(read_model(model.path)) % 100 / 100
        figures = {
            "accuracy": {"value": value, "ci95": [0.0, 1.0]},
            "mean_length": {"value": 20.0, "ci95": None},
            "language_consistency": {"value": 0.75, "ci95": None},
        }
        counts = {"num_problems": recipe.num_problems, "num_samples": 1}
        rest = {"rates": {"extraction_failure": 0.25}}
        scores.append({"model": model.name, "benchmark": "countdown", **counts, **figures, **rest})
    RunDirectory(folder).write_summary({"scores": scores})
    (folder / "report.html").write_text("<html></html>")


def read_model(path: str) -> str:
    """Return the text that stands for the weights."""
    weights = Path(models.resolve(path)) / "model.safetensors"
    return weights.read_text() if path not in models.EMBEDDED and weights.is_file() else path


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], float(sys.argv[1])))
