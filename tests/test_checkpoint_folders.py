"""Run directories as models: the newest whole checkpoint stands for the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1rl import models
from r1rl.errors import RecipeError
from r1rl.models.checkpoint_folders import find_checkpoint, set_aside_after, whole_checkpoints


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Make three whole checkpoints, and one that was being written.

    One of the whole ones is of a step with more digits than the names are padded to.
    """
    for name in (
        "step-000002",
        "step-000010",
        "step-1000000",
        "step-1000001.partial",
        "step-000003.set-aside",
        "step-x",
    ):
        (tmp_path / "run" / "checkpoints" / name).mkdir(parents=True)
    return tmp_path / "run"


def test_a_run_directory_stands_for_its_newest_whole_checkpoint(run: Path) -> None:
    newest = run / "checkpoints" / "step-1000000"
    assert models.resolve(str(run)) == str(newest)
    assert models.pinned(str(run)) == str(newest)
    assert models.resolve(str(newest)) == str(newest)  # a checkpoint stands for itself
    assert models.pinned("embedded") == "embedded"


def test_a_run_directory_without_a_whole_checkpoint_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-000002.partial").mkdir(parents=True)
    with pytest.raises(
        RecipeError,
        match=r"the run directory .* has no whole checkpoint yet .*checkpoints has no step-\* folder",
    ):
        models.resolve(str(tmp_path))


def test_a_model_s_folder_with_checkpoints_beside_it_is_a_model(run: Path) -> None:
    (run / "config.json").write_text("{}", encoding="utf-8")
    assert models.resolve(str(run)) == str(run)


def test_checkpoints_are_ordered_by_step_and_set_aside_by_step(run: Path) -> None:
    folder = run / "checkpoints"
    assert [path.name for path in whole_checkpoints(folder)] == ["step-000002", "step-000010", "step-1000000"]
    assert [path.name for path in set_aside_after(folder, 9)] == ["step-000010", "step-1000000"]
    assert find_checkpoint(folder) == folder / "step-000002"
    assert (folder / "step-000010.set-aside").is_dir()
