"""The recipes that ship with r1rl: each one is valid, and each of its values says where it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from r1rl.cli.main import main
from r1rl.config.bundled import bundled_path
from r1rl.config.commands import find_commands
from r1rl.config.load import dump_recipe, load_recipe

RECIPES = bundled_path("recipes")
COMMAND_OF_FOLDER = {
    "zero_rl": "grpo", "rft": "grpo", "reasoning_rl": "grpo", "all_scenario": "grpo", "distill": "distill",
    "evaluate": "evaluate", "pretrain": "pretrain", "pipeline": "pipeline", "bench": "bench",
}  # fmt: skip
FILES = sorted(file for file in RECIPES.rglob("*.yaml") if file.parent.name != "accelerate")
PIPELINES = sorted((RECIPES / "pipeline").glob("*.yaml"))
GRPO = [
    file
    for file in FILES
    if file.parent.name in ("zero_rl", "reasoning_rl", "all_scenario") and "reward-model" not in file.stem
]
GRPO += [file for file in FILES if file.parent.name == "rft" and file.stem.startswith("online_")]
EXPLAINED = [*GRPO, *sorted((RECIPES / "distill").glob("*.yaml"))]

VALUE = re.compile(r"^\s*(?:- )?([A-Za-z_]\w*):\s+(?![&#])(\S[^#]*?)\s*(?:#\s*(.*))?$")
NUMBER = re.compile(r"^[-+\d.][\d.e+-]*$|^\[[\d., ]+\]$")
SOURCE = re.compile(
    r"\d{4}\.\d{5}|\bours\b|TinyZero|SimpleRL-Zoo|understand-r1-zero|nano-aha-moment|as in "
    r"training|rows$|trial|\bv2\b|TRL"
)


def named(files: list[Path]) -> list[str]:
    return [str(file.relative_to(RECIPES)) for file in files]


def command_of(file: Path) -> str:
    """Return the command by the end of the file's name (math_select.yaml), or by its folder."""
    named = [command for command in find_commands() if file.stem.endswith(f"_{command}")]
    return named[0] if named else COMMAND_OF_FOLDER[file.parent.name]


def test_every_recipe_has_a_command() -> None:
    assert all(command_of(file) in find_commands() for file in FILES)
    assert len(GRPO) >= 5


@pytest.mark.parametrize("file", FILES, ids=named(FILES))
def test_recipe_is_valid_and_reads_back(file: Path, tmp_path: Path) -> None:
    command = command_of(file)
    recipe = load_recipe(command, file)
    assert recipe.run_name == file.stem or command != "grpo"
    again = tmp_path / "again.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(command, again) == recipe


@pytest.mark.parametrize("file", EXPLAINED, ids=named(EXPLAINED))
def test_every_value_says_where_it_comes_from(file: Path) -> None:
    """Each `key: value` line has a comment; that of a number names a paper, a repository, or us."""
    checked = 0
    for line in file.read_text(encoding="utf-8").splitlines():
        match = VALUE.match(line) if not line.lstrip().startswith("#") else None
        if match is None:
            continue
        key, value, comment = match.groups()
        assert comment, f"{file.name}: {key} has no comment"
        if NUMBER.match(value):
            checked += 1
            assert SOURCE.search(comment), (
                f"{file.name}: {key}: {value} does not say where it comes from: {comment}"
            )
    assert checked >= 8


@pytest.mark.parametrize("file", EXPLAINED, ids=named(EXPLAINED))
def test_header_says_what_to_expect(file: Path) -> None:
    header = file.read_text(encoding="utf-8").split("\nrun_name:")[0]
    for word in ("Hardware", "Command", "Expected"):
        assert f"# {word} " in header
    assert f"recipes/{file.parent.name}/{file.name}" in header


@pytest.mark.parametrize("file", GRPO, ids=named(GRPO))
def test_held_out_problems_are_not_those_of_training(file: Path) -> None:
    recipe = load_recipe("grpo", file)
    assert recipe.evaluation.data is not None
    assert (recipe.evaluation.data.source, recipe.evaluation.data.split) != (
        recipe.data.source,
        recipe.data.split,
    )


@pytest.mark.parametrize("file", PIPELINES, ids=named(PIPELINES))
def test_stages_of_pipelines_fit_their_recipes(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan reads every stage's recipe with its overrides and finds every file that no stage makes; it
    runs nothing.
    """
    code = main(["pipeline", str(file), "--dry-run", f"output_dir={tmp_path}"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert f"{len(load_recipe('pipeline', file).stages)} to run" in shown.out
    assert list(tmp_path.iterdir()) == []


def test_the_readme_lists_every_recipe() -> None:
    text = (RECIPES / "README.md").read_text(encoding="utf-8")
    for file in (*EXPLAINED, *(RECIPES / "accelerate").glob("*.yaml")):
        assert f"]({file.relative_to(RECIPES)})" in text


def test_countdown_template() -> None:
    text = (RECIPES / "zero_rl" / "countdown.txt").read_text(encoding="utf-8")
    assert text.count("{problem}") == 1
    assert text.endswith("Assistant:\n")


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_launch_configurations_are_read_by_accelerate(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    file = RECIPES / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(file))
    assert config.num_processes == yaml.safe_load(file.read_text(encoding="utf-8"))["num_processes"]
    assert config.distributed_type == {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}[name]
