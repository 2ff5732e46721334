"""The run directory: nothing is overwritten, nothing is torn, resuming cuts what will be written again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from r1rl.config.schema import DataConfig, RewardConfig
from r1rl.errors import UserError
from r1rl.grpo.recipe import GRPORecipe
from r1rl.runs.run_directory import RunDirectory, check_writable


def recipe(**settings: object) -> GRPORecipe:
    return GRPORecipe(
        run_name="tiny",
        data=DataConfig(source="arithmetic"),
        rewards=[RewardConfig(function="accuracy")],
        **settings,
    )


def started(output_dir: Path, run_name: str = "tiny") -> RunDirectory:
    directory = RunDirectory.create(output_dir, run_name)
    directory.write_start(recipe(), {"seed": 0})
    return directory


def test_layout(tmp_path: Path) -> None:
    directory = started(tmp_path / "runs")
    directory.append_metrics({"step": 1, "reward": 0.5})
    directory.write_completions(
        10, [{"text": "é\u2028", "reward": 1.0}, {"text": "b", "reward": float("nan")}]
    )
    directory.write_evaluation("before", {"accuracy": 0.25})
    directory.write_summary({"accuracy_after": 0.5})
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        f"runs/tiny/{name}"
        for name in (
            "config.yaml",
            "environment.json",
            "metrics.jsonl",
            "completions/step-000010.jsonl",
            "evaluations/before.json",
            "summary.json",
        )
    }
    assert directory.checkpoints.is_dir()
    assert yaml.safe_load(directory.config_path.read_text())["data"]["source"] == "arithmetic"
    rows = [
        json.loads(line)
        for line in (directory.completions / "step-000010.jsonl").read_text(encoding="utf-8").split("\n")
        if line
    ]
    assert rows == [{"text": "é\u2028", "reward": 1.0}, {"text": "b", "reward": None}]


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    first, second, third = (started(tmp_path) for _ in range(3))
    assert [directory.path.name for directory in (first, second, third)] == ["tiny", "tiny-2", "tiny-3"]
    assert not first.was_renamed("tiny") and second.was_renamed("tiny")
    (tmp_path / "empty").mkdir()
    assert RunDirectory.create(tmp_path, "empty").path.name == "empty"
    (tmp_path / "file").write_text("")
    assert RunDirectory.create(tmp_path, "file").path.name == "file-2"


def test_the_latest_of_a_name_is_resumed(tmp_path: Path) -> None:
    for _ in range(11):
        started(tmp_path)
    (tmp_path / "tiny-12").mkdir()  # no run: nothing was written to it
    other = started(tmp_path, "tiny-20")  # a run of another name that looks like a later one of ours
    other.config_path.write_text(other.config_path.read_text().replace("run_name: tiny", "run_name: tiny-20"))
    assert RunDirectory.latest(tmp_path, "tiny").path.name == "tiny-11"
    with pytest.raises(UserError, match=r"no run named large in .* to resume\. Start it without --resume"):
        RunDirectory.latest(tmp_path, "large")


def test_resume_cuts_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    directory = started(tmp_path)
    for step in range(1, 6):
        directory.append_metrics({"step": step, "reward": step / 2})
        directory.write_completions(step, [{"text": str(step)}])
        directory.write_evaluation(f"step-{step:06d}", {"accuracy": 0.1})
    directory.write_evaluation("before", {"accuracy": 0.1})
    with directory.metrics_path.open("a") as file:
        file.write('{"step": 6, "rew')  # the line of a process that was killed
    directory.write_resume(recipe(), {"seed": 0, "started": "later"}, step=3)
    assert directory.read_metrics() == [{"step": step, "reward": step / 2} for step in (1, 2, 3)]
    assert sorted(path.name for path in directory.completions.iterdir()) == [
        f"step-{step:06d}.jsonl" for step in (1, 2, 3)
    ]
    kept = ["before.json", *(f"step-{step:06d}.json" for step in (1, 2, 3))]
    assert sorted(path.name for path in directory.evaluations.iterdir()) == kept
    directory.append_metrics({"step": 4, "reward": 9.0})
    assert [record["step"] for record in directory.read_metrics()] == [1, 2, 3, 4]
    environment = json.loads(directory.environment_path.read_text())
    assert environment == {"seed": 0, "resumed": [{"after_step": 3, "seed": 0, "started": "later"}]}
    assert not list(directory.path.glob("config-before-*"))
    directory.write_trials([{"part": "kernel", "accepted": False}])
    environment["resumed"][0]["trials"] = [{"part": "kernel", "accepted": False}]
    assert json.loads(directory.environment_path.read_text()) == environment


def test_resume_with_another_recipe_keeps_the_old_one(tmp_path: Path) -> None:
    directory = started(tmp_path)
    directory.write_resume(recipe(max_steps=7), {}, step=3)
    assert yaml.safe_load(directory.config_path.read_text())["max_steps"] == 7
    assert yaml.safe_load((directory.path / "config-before-step-000004.yaml").read_text())["max_steps"] == 100


def test_metrics_are_valid_json_whatever_the_values(tmp_path: Path) -> None:
    directory = started(tmp_path)
    metrics = {"step": 1, "kl": float("nan"), "nested": {"x": [float("inf"), 1.5]}, "text": "\ud800"}
    directory.append_metrics(metrics)
    line = directory.metrics_path.read_text()
    found = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert found == {"step": 1, "kl": None, "nested": {"x": [None, 1.5]}, "text": "\ud800"}
    assert metrics["nested"] == {"x": [float("inf"), 1.5]}


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="can't be written: Permission denied"):
        check_writable(tmp_path / "locked" / "runs")


def test_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be written: .*output_dir="):
        check_writable(tmp_path / "file" / "runs")
    with pytest.raises(UserError, match=r"output_dir="):
        RunDirectory.create("/proc/nowhere", "tiny")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    directory = started(tmp_path)
    directory.write_summary({"accuracy_after": 0.5})
    with pytest.raises(TypeError):
        directory.write_summary({"accuracy_after": object()})
    assert json.loads(directory.summary_path.read_text()) == {"accuracy_after": 0.5}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk(tmp_path: Path) -> None:
    directory = started(tmp_path)
    directory.metrics_path.symlink_to("/dev/full")
    with pytest.raises(
        UserError, match=r"metrics\.jsonl can't be written: No space left on device\. Free the disk"
    ):
        directory.append_metrics({"step": 1})
