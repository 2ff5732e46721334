"""The records of commands: each is complete, and a new command touches nothing but its own package."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import r1rl
from r1rl.cli import main as cli
from r1rl.config.bundled import PACKAGE, find_recipe
from r1rl.config.commands import Command, command_of, find_commands, resolve, stage_commands
from r1rl.config.load import load_recipe
from r1rl.errors import RecipeError
from r1rl.runs.training_run import TrainingRun

NAMES = list(find_commands())
LAZY = {
    "run": 2,
    "check": 2,
    "parts": 2,
    "memory": 4,
}
"""The fields that name a function, and how many arguments without a default it has besides the flags."""


def test_every_package_with_a_record_is_a_command() -> None:
    packages = {file.parent.name for file in PACKAGE.glob("*/command.py")}
    assert len(packages) == len(NAMES) == 11
    assert NAMES[:2] == ["check", "grpo"]
    assert len({command.position for command in find_commands().values()}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_functions_resolve(name: str) -> None:
    command = find_commands()[name]
    for field, arguments in LAZY.items():
        named = getattr(command, field)
        if named is None:
            continue
        signature = inspect.signature(resolve(named))
        flags = {flag.name.replace("-", "_") for flag in command.flags} if field == "run" else set()
        assert len(signature.parameters) - len(flags) == arguments
        assert flags <= signature.parameters.keys()


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_resumed_is_a_training_run(name: str) -> None:
    command = find_commands()[name]
    resumes = any(flag.name == "resume" for flag in command.flags)
    assert (command.training is not None) == resumes
    if command.training is not None:
        assert issubclass(resolve(command.training), TrainingRun)


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_complete(name: str) -> None:
    command = find_commands()[name]
    assert command.name == name
    assert command.summary[0].islower()
    assert not command.summary.endswith(".")
    assert command.explanation.endswith(".")
    assert command.examples
    assert all(flag.help and (flag.bare or flag.places) for flag in command.flags)


@pytest.mark.parametrize("name", NAMES)
def test_examples_name_recipes_that_load(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PACKAGE.parent)
    command = find_commands()[name]
    loaded = 0
    for example in command.examples:
        words = shlex.split(example.partition("-m ")[2] if example.startswith("accelerate") else example)
        assert words[:2] == ["r1rl", name]
        invocation = cli.parse_arguments(command, words[2:])
        if invocation.recipe is None or invocation.recipe == "PIPELINE.yaml":
            continue
        recipe = load_recipe(name, find_recipe(invocation.recipe), invocation.overrides)
        assert command.recipe is None or command_of(recipe) is command
        loaded += 1
    assert loaded or name == "pipeline"


def test_every_recipe_is_a_dataclass_of_one_command() -> None:
    recipes = [command.recipe for command in find_commands().values() if command.recipe is not None]
    assert all(dataclasses.is_dataclass(recipe) for recipe in recipes)
    assert len(set(recipes)) == len(recipes) == len(NAMES) - 1  # check reads the recipes of all others


def test_stages_say_what_a_pipeline_needs() -> None:
    stages = stage_commands()
    assert {"grpo", "sft", "evaluate", "select"} <= stages.keys()
    assert "pipeline" not in stages
    assert "check" not in stages
    for name, record in stages.items():
        assert "run" not in record.outputs
        assert record.references == {**record.outputs, "run": ""}
        resumes = any(flag.name == "resume" for flag in find_commands()[name].flags)
        assert (record.continuation == "from a checkpoint") == resumes


# a new command

RECORD = """
from r1rl.config.commands import Command, StageRecord
from r1rl.config.cost import Cost
from r1rl.greeting.recipe import GreetingRecipe, contradictions

COMMAND = Command(
    name="greet", position=35, summary="a greeting", explanation="Greets.", examples=("r1rl greet G.yaml",),
    run="r1rl.greeting.run:run", recipe=GreetingRecipe, contradictions=contradictions,
    check="r1rl.greeting.check:check", memory="r1rl.greeting.run:memory",
    stage=StageRecord(
        outputs={"letter": "letter.txt"}, continuation="by itself", last_written="letter.txt",
        cost=lambda recipe: Cost(steps=recipe.times),
    ),
)
"""
RECIPE = '''
from dataclasses import dataclass

from r1rl.config.fields import option, required


@dataclass(kw_only=True)
class GreetingRecipe:
    """A greeting."""

    run_name: str = required("names the folder")
    output_dir: str = option("runs", "folders are made in here")
    greeting: str = required("the words")
    times: int = option(1, "how often")


def contradictions(recipe):
    if not recipe.greeting:
        yield ("greeting",), "greeting is empty"
'''
RUN = """
from pathlib import Path


def run(recipe, recipe_path):
    folder = Path(recipe.output_dir) / recipe.run_name
    folder.mkdir(parents=True)
    (folder / "letter.txt").write_text(recipe.greeting * recipe.times)


def memory(recipe, launch, prompt_tokens, config_file):
    print("the memory is asked for")
    return None
"""
CHECK = """
from r1rl.preflight.findings import Findings


def check(recipe, context):
    return Findings([("words", f"{recipe.greeting} from {context.recipe_path}")])
"""


@pytest.fixture
def greeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Enter a working directory with a recipe of a command whose package is all that was added to r1rl."""
    package = tmp_path / "added" / "greeting"
    package.mkdir(parents=True)
    files = {"__init__": "", "command": RECORD, "recipe": RECIPE, "run": RUN, "check": CHECK}
    for name, text in files.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    (tmp_path / "g.yaml").write_text("run_name: g\ngreeting: hello\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(r1rl, "__path__", [*r1rl.__path__, str(package.parent)])
    find_commands.cache_clear()
    yield tmp_path
    find_commands.cache_clear()
    for name in [name for name in sys.modules if re.match(r"r1rl\.greeting(\.|$)", name)]:
        del sys.modules[name]
    vars(r1rl).pop("greeting", None)


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_new_command_is_in_the_help(greeting: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(find_commands())[:4] == ["check", "grpo", "distill", "greet"]
    assert cli.main(["--help"]) == 0
    assert "greet a greeting" in words(capsys)
    assert cli.main(["greet", "--help"]) == 0
    assert "times how often [whole number; default 1]" in words(capsys)


def test_a_new_command_reads_its_recipe_and_runs(greeting: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("greet", greeting / "g.yaml", ["times=2"])
    assert (recipe.greeting, recipe.times) == ("hello", 2)
    assert isinstance(command_of(recipe), Command)
    with pytest.raises(RecipeError, match="greeting is empty"):
        load_recipe("greet", greeting / "g.yaml", ['greeting=""'])
    with pytest.raises(
        RecipeError, match=r"g\.yaml is a recipe of r1rl greet, and r1rl sft reads another kind"
    ):
        load_recipe("sft", greeting / "g.yaml")
    assert cli.main(["greet", "g.yaml", "times=2"]) == 0
    assert Path("runs/g/letter.txt").read_text() == "hellohello"


def test_a_new_command_is_checked(greeting: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "g.yaml"]) == 0
    assert words(capsys) == "g.yaml words hello from g.yaml the memory is asked for Ready: r1rl greet g.yaml"


def test_a_new_command_is_a_stage(greeting: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (greeting / "p.yaml").write_text(
        "run_name: p\nstages:\n"
        "  - {name: first, command: greet, recipe: g.yaml, set: {times: 3}}\n"
        '  - {name: second, command: greet, recipe: g.yaml, set: {greeting: "${first.letter}"}}\n'
    )
    assert cli.main(["pipeline", "p.yaml", "--dry-run"]) == 0
    shown = words(capsys)
    assert "first │ greet │ run │ first run │ 3 steps" in shown
    assert "second │ greet │ run │ after first │ 1 steps" in shown
    assert cli.main(["check", "p.yaml"]) == 0
    assert "words runs/p/first/letter.txt from g.yaml" in words(capsys)
    assert cli.main(["pipeline", "p.yaml", "--dry-run", "stages.0.command=great"]) == 2
    assert "expected grpo, distill, greet, evaluate" in capsys.readouterr().err
