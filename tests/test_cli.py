"""The command line: parsing, help, errors and exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from r1rl.cli import main as cli
from r1rl.config.bundled import PACKAGE
from r1rl.config.commands import find_commands
from r1rl.config.describe import recipe_keys
from r1rl.errors import UserError

RECIPE = "run_name: test\ndata: {source: countdown}\nrewards: [{function: countdown}]\n"


@pytest.fixture
def recipe_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Path, str | None]]:
    """Replace grpo's target by a function that notes its arguments."""
    made: list[tuple[Any, Path, str | None]] = []
    module = types.ModuleType("r1rl.grpo.run")
    module.run = lambda recipe, recipe_path, resume: made.append((recipe, recipe_path, resume))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "r1rl.grpo.run", module)
    return made


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, "-m", "r1rl", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_a_command_gets_recipe_path_and_flags(recipe_file: Path, calls: list[Any]) -> None:
    assert cli.main(["grpo", "recipe.yaml", "max_steps=3", "rewards.0.weight=0.5"]) == 0
    ((recipe, path, resume),) = calls
    assert (recipe.max_steps, recipe.rewards[0].weight) == (3, 0.5)
    assert (path, resume) == (Path("recipe.yaml"), None)


@pytest.mark.parametrize(
    ("words", "resume", "overrides"),
    [
        (["r.yaml", "--resume"], "latest", []),
        (["--resume", "r.yaml"], "latest", []),
        (["r.yaml", "--resume", "max_steps=4"], "latest", ["max_steps=4"]),
        (["r.yaml", "--resume", "runs/a/checkpoints/step-000010"], "runs/a/checkpoints/step-000010", []),
        (["r.yaml", "--resume=runs/a"], "runs/a", []),
        (["r.yaml", "a.b=c=d", "data={source: x}"], None, ["a.b=c=d", "data={source: x}"]),
    ],
)
def test_flags_and_overrides_mix(words: list[str], resume: str | None, overrides: list[str]) -> None:
    invocation = cli.parse_arguments(find_commands()["grpo"], words)
    assert (invocation.recipe, invocation.flags, invocation.overrides) == (
        "r.yaml",
        {"resume": resume},
        overrides,
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["xyz", "recipe.yaml"], f"there is no command xyz; the commands are {', '.join(find_commands())}."),
        (["grp", "recipe.yaml"], "there is no command grp; did you mean grpo?"),
        (["grpo"], "r1rl grpo needs a recipe, such as: r1rl grpo recipes/zero_rl/tiny.yaml."),
        (["grpo", "recipe.yaml", "--resum"], "r1rl grpo has no flag --resum; did you mean --resume?"),
        (["grpo", "recipe.yaml", "--max_steps=3"], "Settings are written key=value, without dashes."),
        (["check", "recipe.yaml", "--resume"], "r1rl check has no flag --resume"),
        (
            ["grpo", "recipe.yaml", "max_steps", "3"],
            '"max_steps" is neither a flag nor key=value; the recipe is recipe.yaml.',
        ),
        (
            ["grpo", "recipe.yaml", "max_stepz=3"],
            "override max_stepz=3: max_stepz is unknown; did you mean max_steps?",
        ),
        (
            ["grpo", "recipes/zero_rl/tiniy.yaml"],
            "there is no recipe recipes/zero_rl/tiniy.yaml here or among the bundled ones; near it: ",
        ),
        (
            ["grpo", "recip.yaml"],
            "there is no recipe recip.yaml here or among the bundled ones; near it: recipe.yaml.",
        ),
        (
            ["grpo", "qqq"],
            "there is no recipe qqq here or among the bundled ones; the bundled ones: recipes/",
        ),
        (
            ["evaluate", "recipe.yaml"],
            "recipe.yaml is a recipe of r1rl grpo, and r1rl evaluate reads another kind: run r1rl grpo "
            "recipe.yaml.",
        ),
        (["help", "grp"], "there is no command grp; did you mean grpo?"),
        (["grpo", "."], ". is a folder; name a recipe file in it."),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(
    recipe_file: Path, calls: list[Any], capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert err.startswith("r1rl: ")
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""
    assert calls == []


def test_a_wrong_recipe_ends_the_process_with_code_2(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE + "rollout: {temperature: 0}\n", encoding="utf-8")
    result = run("grpo", str(recipe_file))
    assert result.returncode == 2
    assert result.stderr == f"r1rl: {recipe_file}, line 4: rollout.temperature is 0; it must be above 0\n"


def test_only_the_first_process_prints(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["grpo", "missing.yaml"]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("error", "code"), [(UserError("no disk"), 2), (KeyboardInterrupt(), 130)])
def test_exit_codes_of_a_running_command(
    recipe_file: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["r1rl.grpo.run"], "run", fail)
    assert cli.main(["grpo", "recipe.yaml"]) == code


def test_errors_of_the_program_are_not_hidden(
    recipe_file: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["r1rl.grpo.run"], "run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["grpo", "recipe.yaml"])


@pytest.mark.parametrize("name", ["recipes/zero_rl/tiny.yaml", "zero_rl/tiny.yaml", "zero_rl/tiny"])
def test_bundled_recipes_are_found_from_anywhere(recipe_file: Path, name: str) -> None:
    assert cli.find_recipe(name).name == "tiny.yaml"


def test_the_working_directory_comes_before_the_bundle(recipe_file: Path) -> None:
    own = Path("recipes/zero_rl/tiny.yaml")
    own.parent.mkdir(parents=True)
    own.write_text(RECIPE, encoding="utf-8")
    assert cli.find_recipe(str(own)) == own


@pytest.mark.parametrize("command", sorted(find_commands()))
def test_help_explains_every_key(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for example in find_commands()[command].examples:
        assert example in text
    recipe = find_commands()[command].recipe
    for key in recipe_keys(recipe) if recipe is not None else ():
        if not key.name.startswith("evaluation.data."):
            assert key.name in text
            assert key.help
            assert " ".join(key.help.split()[:3]) in text, key.name
    assert "rewards.0.weight=0.5" in text


def test_help_of_a_command_by_the_word_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "pretrain"]) == 0
    spoken = capsys.readouterr().out
    assert cli.main(["pretrain", "--help"]) == 0
    assert spoken == capsys.readouterr().out
    assert "corpus.tasks" in spoken


def test_help_shows_types_and_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    cli.main(["grpo", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert any("rollout.num_prompts" in line and "[whole number; default 32]" in line for line in lines)
    assert any("data.source" in line and "[text; required]" in line for line in lines)
    assert any(
        "algorithm.scale" in line and "[group, batch or none; default group]" in line for line in lines
    )
    assert any("--resume" in line for line in lines)


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for name, command in find_commands().items():
        assert name in text
        assert command.summary.split()[0] in text


def test_help_works_without_torch() -> None:
    code = (
        "import sys; from r1rl.cli.main import main; main(['grpo', '--help']); main(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'datasets', 'accelerate')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip().count(".") == 2
