"""Keys of earlier versions: the old name of a key works for one version, with a sentence."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from packaging.version import Version

from r1rl import __version__
from r1rl.cli.main import main
from r1rl.config import renamed
from r1rl.config.commands import find_commands
from r1rl.config.describe import section_class
from r1rl.config.fields import option, required
from r1rl.config.issues import Issues
from r1rl.config.nodes import parse
from r1rl.config.renamed import REMOVED, RENAMED, UNTIL, RecipeWarning, Removed, take_over
from tests.config_helpers import MINIMAL, load, message

OLD = MINIMAL + "rollout:\n  vllm: {gpu_memory_share: 0.4}\n"
SENTENCE = (
    "line 6: rollout.vllm.gpu_memory_share is now called rollout.vllm.gpu_memory_utilization; the old name "
    "works until version 0.2."
)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def sections() -> set[type]:
    """Return the classes of all sections of all recipes."""
    found: set[type] = set()
    waiting = [command.recipe for command in find_commands().values() if command.recipe is not None]
    while waiting:
        section = waiting.pop()
        found.add(section)
        hints = get_type_hints(section)
        waiting += [inner for hint in hints.values() if (inner := section_class(hint)) and inner not in found]
    return found


def test_an_old_name_gives_its_value_to_the_new_one(recipe_file: Path) -> None:
    with pytest.warns(RecipeWarning) as told:
        recipe = load(recipe_file, OLD)
    assert recipe.rollout.vllm.gpu_memory_utilization == 0.4
    assert [str(one.message) for one in told] == [f"{recipe_file}, {SENTENCE}"]


def test_an_old_name_works_in_an_override(recipe_file: Path) -> None:
    with pytest.warns(RecipeWarning, match="override rollout.vllm.gpu_memory_share=0.5: rollout.vllm"):
        recipe = load(recipe_file, MINIMAL, "rollout.vllm.gpu_memory_share=0.5")
    assert recipe.rollout.vllm.gpu_memory_utilization == 0.5


def test_both_names_are_an_error(recipe_file: Path) -> None:
    both = OLD.replace("0.4", "0.4, gpu_memory_utilization: 0.3")
    assert message(recipe_file, both) == (
        f"{recipe_file}, line 6: rollout.vllm.gpu_memory_share is now called "
        "rollout.vllm.gpu_memory_utilization, and both are written: leave the old one out"
    )


def test_a_wrong_value_is_told_under_the_new_name(recipe_file: Path) -> None:
    found = message(recipe_file, OLD.replace("0.4", "1.5"))
    assert found == (
        f"{recipe_file}, line 6: rollout.vllm.gpu_memory_utilization is 1.5; it must be above 0 and below 1"
    )


def test_the_new_name_says_nothing(recipe_file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecipeWarning)
        load(recipe_file, OLD.replace("gpu_memory_share", "gpu_memory_utilization"))


def test_the_command_line_prints_the_sentence_once(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` loads the recipe, and so does the command that it checks."""
    recipe_file.write_text(OLD, encoding="utf-8")
    monkeypatch.chdir(recipe_file.parent)
    assert main(["check", str(recipe_file)]) == 0
    assert capsys.readouterr().err.count(f"r1rl: {recipe_file}, {SENTENCE}\n") == 1
    monkeypatch.setenv("RANK", "1")
    main(["check", str(recipe_file)])
    assert SENTENCE not in capsys.readouterr().err


@dataclass(kw_only=True)
class Inner:
    """A section of the recipe below."""

    size: int = option(1, "a number")


@dataclass(kw_only=True)
class Outer(Inner):
    """A recipe whose class is made from another one."""

    name: str = required("a name")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, "Inner", {"width": "size"})
    monkeypatch.setitem(REMOVED, "Inner", {"off": Removed("it had no effect"), "on": Removed("it is 1", 1)})


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("text", "keys", "found", "notes"),
    [
        ("{name: x, width: 3}", ["name", "size"], [], ["width is now called size; the old name works until"]),
        ("{off: 7, name: x}", ["name"], [], ["off is no longer a key, since it had no effect: leave it out"]),
        ("{on: 1}", [], [], ["on is no longer a key, since it is 1: leave it out before version"]),
        ("{on: 2}", [], ["on is 2, but it is 1: leave it out"], []),
        ("{on: true}", [], ["on is true, but it is 1: leave it out"], []),
        ("{size: 1, width: 2}", ["size"], ["width is now called size, and both are written"], []),
    ],
)
def test_tables_hold_for_classes_made_from_others(
    text: str, keys: list[str], found: list[str], notes: list[str]
) -> None:
    issues = Issues("recipe")
    children = parse(text, "recipe", issues).value
    take_over(Outer, children, "", issues)
    assert list(children) == keys
    for sentences, issued in ((found, issues.found), (notes, issues.notes)):
        assert len(sentences) == len(issued)
        assert all(sentence in str(one) for sentence, one in zip(sentences, issued, strict=True))


def test_tables_name_sections_and_keys_that_exist() -> None:
    """An old name is not a key of its section, and the new one is."""
    by_name = {
        base.__name__: base
        for section in sections()
        for base in section.__mro__
        if dataclasses.is_dataclass(base)
    }
    for table in (RENAMED, REMOVED):
        for name, entries in table.items():
            fields = {entry.name for entry in dataclasses.fields(by_name[name])}
            assert not fields & set(entries), name
    for name, names in RENAMED.items():
        assert set(names.values()) <= {entry.name for entry in dataclasses.fields(by_name[name])}


def test_old_names_are_for_one_version() -> None:
    """The entries of r1rl/config/renamed.py are due to go when this fails, and `UNTIL` is to be raised."""
    assert Version(__version__) < Version(UNTIL)
    assert renamed.UNTIL == "0.2"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "rollout: {repetition_penalty: 1.0}",
            "rollout.repetition_penalty is no longer a key, since grpo trains",
        ),
        (
            "evaluation: {data: {source: countdown, shuffle: false}}",
            "evaluation.data.shuffle is no longer a key",
        ),
        (
            "evaluation: {data: {source: countdown, max_prompt_tokens: null}}",
            "evaluation.data.max_prompt_tokens is no longer a key",
        ),
    ],
)
def test_keys_that_had_one_value_or_no_effect_may_still_stand_there(
    recipe_file: Path, text: str, sentence: str
) -> None:
    with pytest.warns(RecipeWarning) as told:
        load(recipe_file, f"{MINIMAL}{text}\n")
    assert [sentence in str(one.message) for one in told] == [True]


def test_a_key_that_is_gone_for_one_recipe_is_a_key_of_another(recipe_file: Path) -> None:
    """The key of one-step-off sampling is for `r1rl grpo` alone; the data of a training have an order."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecipeWarning)
        recipe = load(recipe_file, MINIMAL, "rollout.one_step_off=true", "data.shuffle=false")
    assert recipe.rollout.one_step_off and not recipe.data.shuffle
    text = "run_name: x\nteacher: {path: embedded}\ndata: {source: countdown}\n"
    with pytest.warns(RecipeWarning, match="rollout.one_step_off is no longer a key"):
        load(recipe_file, text, "rollout.one_step_off=false", command="distill")
    assert "rollout.one_step_off is true, but it is for r1rl grpo" in message(
        recipe_file, text, "rollout.one_step_off=true", command="distill"
    )
