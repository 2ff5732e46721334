"""`r1rl.open_run` shows the files of a run, also while it runs, and recognises a folder that is no run."""

from __future__ import annotations

import ast
import importlib
import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image, pyplot
from run_helpers import newest, prepare, train
from transformers import AutoModelForSequenceClassification

import r1rl
from r1rl.config.commands import find_commands
from r1rl.config.load import dump_recipe, load_recipe
from r1rl.errors import UserError
from r1rl.grpo.recipe import GRPORecipe
from r1rl.runs.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("on_the_cpu")
ROOT = Path(__file__).resolve().parent.parent
SMALLEST = {
    "grpo": "{run_name: a, data: {source: countdown}, rewards: [{function: countdown}]}",
    "distill": "{run_name: a, model: {path: embedded}, teacher: {path: embedded}, data: {source: countdown}}",
    "sft": "{run_name: a, model: {path: embedded}, data: {source: rows.jsonl}}",
    "reward-model": "{run_name: a, model: {path: embedded}, data: {source: pairs.jsonl}}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="module")
def directory(folder: Path) -> RunDirectory:
    return train(folder, "evaluation.every_steps=2")


@pytest.fixture(scope="module")
def run(directory: RunDirectory) -> r1rl.Run:
    return r1rl.open_run(directory.path)


@pytest.fixture
def running(directory: RunDirectory, tmp_path: Path) -> RunDirectory:
    """Copy the run as it was in its second step, without anything that came later."""
    copy = RunDirectory(tmp_path / "running")
    copy.path.mkdir()
    for folder in (copy.completions, copy.evaluations, copy.checkpoints):
        folder.mkdir()
    shutil.copy(directory.config_path, copy.config_path)
    lines = directory.metrics_path.read_text().splitlines(keepends=True)
    copy.metrics_path.write_text("".join(lines[:2]) + lines[2][:40])
    shutil.copy(directory.evaluations / "before.json", copy.evaluations)
    return copy


def test_recipe_is_the_one_that_ran(run: r1rl.Run, folder: Path) -> None:
    assert isinstance(run.recipe, GRPORecipe)
    settled = "model.gradient_checkpointing=false"  # what the run decided itself
    overrides = ["evaluation.every_steps=2", settled]
    assert run.recipe == load_recipe("grpo", folder / "recipe.yaml", overrides)


@pytest.mark.parametrize("command", SMALLEST)
def test_recipe_of_every_command_that_trains(command: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(SMALLEST[command])
    recipe = load_recipe(command, tmp_path / "recipe.yaml")
    (tmp_path / "config.yaml").write_text(dump_recipe(recipe))
    opened = r1rl.open_run(tmp_path)
    assert type(opened.recipe) is find_commands()[command].recipe
    assert opened.recipe == recipe
    titles = [axes.get_title(loc="left") for axes in opened.curves().axes]
    assert len(set(titles)) == 6
    assert (titles[0] == "Reward") == (command == "grpo")


def test_metrics_have_a_row_per_step(run: r1rl.Run, directory: RunDirectory) -> None:
    records = [json.loads(line) for line in directory.metrics_path.read_text().splitlines()]
    assert run.metrics.index.name == "step"
    assert list(run.metrics.index) == [1, 2, 3, 4]
    assert set(map(str, run.metrics.dtypes)) == {"float64"}
    assert set(run.metrics) == {name for record in records for name in record} - {"step"}
    for record in records:
        for name, value in record.items():
            if name != "step":
                assert run.metrics.loc[record["step"], name] == value


def test_missing_metrics_are_nan(running: RunDirectory) -> None:
    running.append_metrics({"step": 3})
    running.metrics_path.write_text('{"step": 1, "a": null}\n{"step": 2, "a": 0.5, "域": 1}\n')
    with running.metrics_path.open("ab") as file:
        file.write('{"step": 3, "域'.encode()[:-1])  # the process was killed within a letter
    metrics = r1rl.open_run(running.path).metrics
    assert list(metrics.index) == [1, 2]
    assert metrics.loc[2].to_dict() == {"a": 0.5, "域": 1.0}
    assert bool(metrics.loc[1].isna().all())


def test_completions(run: r1rl.Run, directory: RunDirectory) -> None:
    assert run.completion_steps == [2, 4]
    last = run.completions()
    assert last.equals(run.completions(4))
    assert not last.equals(run.completions(2))
    lines = (directory.completions / "step-000004.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(last) == len(rows) == 16
    assert set(last) == {
        "slot", "problem_id", "prompt", "answer", "completion", "rewards/lowercase", "rewards/countdown",
        "reward", "outcome", "advantage", "finish_reason", "num_tokens",
    }  # fmt: skip
    for row, (_, shown) in zip(rows, last.iterrows(), strict=True):
        assert shown["rewards/countdown"] == row["rewards"]["countdown"]
        assert [shown[name] for name in ("prompt", "answer", "completion", "advantage")] == [
            row[name] for name in ("prompt", "answer", "completion", "advantage")
        ]
    with pytest.raises(UserError, match=r"written for step 3; the steps that have some: 2, 4\."):
        run.completions(3)


def test_rewards_that_do_not_apply_are_nan(running: RunDirectory) -> None:
    rows = [
        {"completion": "a", "rewards": {"accuracy": None, "format": 1.0}, "reward": 1.0, "outcome": None},
        {"completion": "b", "rewards": {"accuracy": None, "format": 0.5}, "reward": None, "outcome": None},
    ]
    running.write_completions(1, rows)
    shown = r1rl.open_run(running.path).completions()
    assert str(shown["rewards/accuracy"].dtype) == str(shown["reward"].dtype) == "float64"
    assert bool(shown["rewards/accuracy"].isna().all())
    assert list(shown["rewards/format"]) == [1.0, 0.5]
    assert math.isnan(shown["reward"][1])


def test_evaluations_and_summary(run: r1rl.Run, directory: RunDirectory) -> None:
    assert list(run.evaluations) == ["before", "step-000002", "after"]
    assert run.evaluations["after"] == json.loads((directory.evaluations / "after.json").read_text())
    assert run.summary == json.loads(directory.summary_path.read_text())
    assert run.summary["evaluations"]["after"]["accuracy"] == run.evaluations["after"]["figures"]["accuracy"]


def test_curves_are_those_of_the_run(run: r1rl.Run, directory: RunDirectory) -> None:
    shown = run.curves()._repr_png_()
    assert np.array_equal(image.imread(io.BytesIO(shown)), image.imread(directory.curves_path))
    assert pyplot.get_fignums() == []  # pyplot keeps no figure alive


def test_checkpoints_model_and_tokenizer(run: r1rl.Run, directory: RunDirectory) -> None:
    assert [path.name for path in run.checkpoints] == ["step-000002", "step-000004"]
    assert run.checkpoint == newest(directory) == run.checkpoints[-1]
    ids = torch.tensor([[5, 6, 7]])
    logits = run.model()(input_ids=ids).logits
    assert not torch.equal(logits, run.model(step=2)(input_ids=ids).logits)
    assert not run.model().training
    assert run.model(dtype="bfloat16").dtype is torch.bfloat16
    assert run.tokenizer().decode(run.tokenizer()("Make 4")["input_ids"]) == "Make 4"
    with pytest.raises(UserError, match=r"no checkpoint of step 3; it has: 2, 4\."):
        run.model(step=3)


def test_adapters_are_merged_as_evaluate_does(folder: Path) -> None:
    trained = train(
        folder, "run_name=adapters", "max_steps=1", "model.lora={rank: 2, alpha: 4}", "evaluation.data=null"
    )
    run = r1rl.open_run(trained.path)
    assert (run.checkpoints[-1] / "adapter_config.json").is_file()
    start = r1rl.open_run(trained.path).recipe.model.path
    merged = run.model().state_dict()
    before = type(run.model()).from_pretrained(start).state_dict()
    assert merged.keys() == before.keys()
    assert not torch.equal(
        merged["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"]
    )
    assert torch.equal(merged["model.norm.weight"], before["model.norm.weight"])


def test_a_reward_model_is_loaded_with_its_score(running: RunDirectory, folder: Path) -> None:
    checkpoint = running.checkpoints / "step-000002"
    shutil.copytree(folder / "policy", checkpoint)
    AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1).save_pretrained(
        checkpoint
    )
    model = r1rl.open_run(running.path).model()
    assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.shape == (1, 1)


def test_a_running_run(running: RunDirectory) -> None:
    run = r1rl.open_run(running.path)
    assert run.summary is None
    assert (run.checkpoint, run.checkpoints, run.completion_steps) == (None, [], [])
    assert list(run.metrics.index) == [1, 2]
    assert len(run.curves().axes) == 6
    with pytest.raises(UserError, match="written for any step; the steps that have some: none"):
        run.completions()
    with pytest.raises(UserError, match="no whole checkpoint"):
        run.model()
    running.append_metrics({"step": 3, "reward": 0.25})  # on the line that was broken off
    running.append_metrics({"step": 4, "reward": 0.5})
    assert run.metrics["reward"].iloc[-1] == 0.5


def test_a_run_before_its_first_step(running: RunDirectory) -> None:
    running.metrics_path.unlink()
    run = r1rl.open_run(running.path)
    assert (len(run.metrics), run.metrics.index.name) == (0, "step")
    assert len(run.curves().axes) == 6


def test_it_tells_what_it_is(run: r1rl.Run, running: RunDirectory) -> None:
    assert repr(run) == f"<Run {run.path}: 4 steps, finished>"
    assert repr(r1rl.open_run(running.path)) == f"<Run {running.path}: 2 steps, not finished>"
    html = run._repr_html_()
    assert html.startswith("<table>")
    assert "4 steps" in html and "held-out accuracy" in html and "before 0.0%, after" in html


def test_what_is_no_run(run: r1rl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = run.path.parent

    def fault(path: str | Path) -> str:
        with pytest.raises(UserError) as caught:
            r1rl.open_run(path)
        return str(caught.value)

    assert fault(tmp_path) == (
        f"{tmp_path} is no run directory: it has no config.yaml, which every run writes first. "
        "It holds: nothing."
    )
    (tmp_path / "notes.txt").write_text("")
    assert "It holds: notes.txt." in fault(tmp_path)
    assert "it is a file. Open the folder of the run." in fault(tmp_path / "notes.txt")
    assert f"it is a file. Open the folder of the run, {run.path}." in fault(run.path / "config.yaml")
    assert f"it is a part of one. Open the folder of the run, {run.path}." in fault(run.checkpoints[0])
    assert "it holds runs. Open one of them: " in fault(runs) and str(run.path) in fault(runs)
    assert fault(tmp_path / "absent" / "run").endswith("there is no such folder.")
    assert fault(runs / "tset").endswith(f"there is no such folder. Did you mean {run.path}?")
    monkeypatch.chdir(runs.parent)
    assert fault("test").endswith("there is no such folder. Did you mean runs/test?")


def test_every_public_name_is_there_and_known_to_editors() -> None:
    tree = ast.parse(Path(r1rl.__file__).read_text(encoding="utf-8"))
    for_editors = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("r1rl.")
        for alias in node.names
    }
    assert sorted(r1rl.__all__) == sorted([*for_editors, "__version__"])
    for name, module in for_editors.items():
        assert getattr(r1rl, name) is getattr(importlib.import_module(str(module)), name)
    assert set(r1rl.__all__) <= set(dir(r1rl))
    with pytest.raises(AttributeError, match="no attribute 'opn_run'"):
        _ = r1rl.opn_run  # type: ignore[attr-defined]


def test_opening_a_run_imports_no_torch(run: r1rl.Run) -> None:
    code = (
        "import sys, r1rl\n"
        "assert not {'pandas', 'torch'} & set(sys.modules)\n"
        f"run = r1rl.open_run({str(run.path)!r})\n"
        "run.recipe, run.metrics, run.completions(), run.evaluations, run.summary, run.checkpoints\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert result.returncode == 0, result.stderr
