"""Recipes: what is read from YAML, overrides and paths, and the sentence for what is no YAML."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r1rl.config.load import dump_recipe, load_recipe
from r1rl.errors import RecipeError
from r1rl.grpo.recipe import GRPORecipe
from r1rl.pretrain.recipe import PretrainRecipe
from tests.config_helpers import MINIMAL, load, message


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


# what is read


def test_defaults_fill_what_the_recipe_leaves_out(recipe_file: Path) -> None:
    recipe = load_recipe("grpo", recipe_file)
    expected = GRPORecipe(run_name="test", data=recipe.data, rewards=recipe.rewards)
    assert recipe == expected
    assert (recipe.data.source, recipe.rewards[0].function, recipe.rewards[0].weight) == (
        "countdown",
        "countdown",
        1.0,
    )


def test_loading_does_not_import_torch(recipe_file: Path) -> None:
    code = (
        "import sys; from r1rl.config.load import load_recipe; "
        f"load_recipe('grpo', {str(recipe_file)!r}, ['max_steps=3']); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_resolved_recipe_reads_back_equal(recipe_file: Path, tmp_path: Path) -> None:
    overrides = (
        "optimizer.learning_rate=1e-6",
        'prompt.stop=["</answer>", "1e-6", "no"]',
        "evaluation.data.source=countdown",
        "algorithm.importance_cap=null",
        "data.arguments={numbers: [3, 4]}",
        "prompt.prefill=<think>",
    )
    recipe = load_recipe("grpo", recipe_file, overrides)
    again = tmp_path / "resolved.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe("grpo", again) == recipe
    assert recipe.prompt.stop == ["</answer>", "1e-6", "no"]


@pytest.mark.parametrize(
    ("written", "value"), [("1e-6", 1e-6), ("1.5e3", 1500.0), ("3", 3.0), ('"2e-5"', 2e-5), ("0.5", 0.5)]
)
def test_numbers_as_people_write_them(recipe_file: Path, written: str, value: float) -> None:
    recipe = load(recipe_file, MINIMAL + f"optimizer: {{learning_rate: {written}}}\n")
    assert recipe.optimizer.learning_rate == value
    assert isinstance(recipe.optimizer.learning_rate, float)


def test_exponents_inside_free_arguments_are_numbers(recipe_file: Path) -> None:
    recipe = load(recipe_file, MINIMAL + "    arguments: {scale: 1e-3, name: text}\n")
    assert recipe.rewards[0].arguments == {"scale": 1e-3, "name": "text"}


def test_anchors_and_merge_keys(recipe_file: Path) -> None:
    """A section's own keys win over those that it merges, and that is no duplicate."""
    recipe = load(
        recipe_file,
        "run_name: a\nevaluation:\n  data: &base {source: countdown, split: test}\ndata: {<<: *base, split: "
        "train}\n"
        "rewards: [{function: countdown}]\n",
    )
    assert (recipe.data.source, recipe.data.split, recipe.evaluation.data.split) == (
        "countdown",
        "train",
        "test",
    )


def test_empty_section_keeps_its_defaults(recipe_file: Path) -> None:
    assert load(recipe_file, MINIMAL + "rollout:\nevaluation:\n  # data: ...\n").rollout.num_prompts == 32


def test_pretrain_recipe(recipe_file: Path) -> None:
    text = "run_name: base\ncorpus: {tasks: {countdown: 1}, habits: {direct: 0.7, worked: 0.3}}\n"
    recipe = load(recipe_file, text, command="pretrain")
    assert isinstance(recipe, PretrainRecipe)
    assert recipe.corpus.habits == {"direct": 0.7, "worked": 0.3}


# YAML


def test_duplicate_key(recipe_file: Path) -> None:
    assert message(recipe_file, MINIMAL + "run_name: b\n") == (
        f"{recipe_file}, line 5: the key run_name is written twice; the first is on line 1"
    )
    assert "line 6: the key num_prompts is written twice" in message(
        recipe_file, MINIMAL + "rollout: {num_prompts: 4,\n  num_prompts: 8}\n"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("run_name: [a\n", "this is not valid YAML"),
        ("run_name:\n\tmodel: x\n", "Indent with spaces"),
        (
            "run_name: !!python/object/apply:os.system [ls]\n",
            "the tag tag:yaml.org,2002:python/object/apply:os.system has no meaning",
        ),
        (
            "run_name: !!python/name:os.system x\n",
            "this is not valid YAML (could not determine a constructor",
        ),
        ("- a\n- b\n", "a recipe is a mapping of keys to values, but this file holds a list of 2"),
        ("a: &x [*x]\n", "an alias (*name) contains itself"),
        ("", "run_name is missing"),
    ],
)
def test_yaml_that_is_no_recipe(recipe_file: Path, text: str, sentence: str) -> None:
    found = message(recipe_file, text)
    assert sentence in found
    assert str(recipe_file) in found


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: the recipe can't be read \(No such file"):
        load_recipe("grpo", tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"run_name: caf\xe9\n")
    with pytest.raises(RecipeError, match=r"latin\.yaml is not UTF-8 text"):
        load_recipe("grpo", tmp_path / "latin.yaml")


def test_all_errors_come_together_in_the_order_of_the_file(recipe_file: Path) -> None:
    text = (
        "run_name: a\ndata: {sauce: x}\nrollout:\n  temperature: 0\n  num_generation: 4\n"
        "rewards: [{function: countdown}]\nbf16: true\n"
    )
    lines = message(recipe_file, text, "optimizer.betas=[0.9]", "nonsense=1").splitlines()
    assert lines[0] == f"{recipe_file} has 7 errors:"
    assert [line.strip().split(":")[0] for line in lines[1:]] == [
        "line 2", "line 2", "line 4", "line 5", "line 7", "override nonsense=1",
        "override optimizer.betas=[0.9]",
    ]  # fmt: skip


def test_contradictions_are_not_drawn_from_values_that_were_not_read(recipe_file: Path) -> None:
    """The key num_prompts is misspelt, so its default of 32 must not be blamed for not being divisible by
    7.
    """
    found = message(recipe_file, MINIMAL + "rollout: {num_promptz: 14}\nalgorithm: {num_minibatches: 7}\n")
    assert "did you mean rollout.num_prompts?" in found
    assert "does not divide" not in found


# overrides


def test_overrides(recipe_file: Path) -> None:
    recipe = load_recipe(
        "grpo",
        recipe_file,
        [
            "rewards.0.weight=0.5",
            "rewards.1.function=format",
            'prompt.stop=["</answer>"]',
            "evaluation.data.source=countdown",
            "run_name=2024",
            "model.revision=1e10",
            "data.subset=null",
            "prompt.prefill=",
            "data.arguments.count=12",
            "prompt.template=a=b.txt",
            "max_steps=3",
            "max_steps=4",
        ],
    )
    assert [(reward.function, reward.weight) for reward in recipe.rewards] == [
        ("countdown", 0.5),
        ("format", 1.0),
    ]
    assert (recipe.prompt.stop, recipe.prompt.prefill, recipe.prompt.template) == (
        ["</answer>"],
        "",
        "a=b.txt",
    )
    assert (recipe.run_name, recipe.model.revision, recipe.data.subset) == ("2024", "1e10", None)
    assert recipe.evaluation.data.source == "countdown"
    assert recipe.data.arguments == {"count": 12}
    assert recipe.max_steps == 4


def test_overrides_do_not_reach_through_aliases(recipe_file: Path) -> None:
    text = (
        "run_name: a\ndata: &d {source: countdown, limit: 5}\nevaluation: {data: *d}\n"
        "rewards: [{function: countdown}]\n"
    )
    recipe = load(recipe_file, text, "data.limit=7")
    assert (recipe.data.limit, recipe.evaluation.data.limit) == (7, 5)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "rollout.temperature=0",
            "override rollout.temperature=0: rollout.temperature is 0; it must be above 0",
        ),
        ("temprature=1", "override temprature=1: temprature is unknown; did you mean rollout.temperature?"),
        ("rewards.3.weight=1", "rewards is a list with items 0 to 0: write rewards.1 to add one"),
        ("rewards.first.weight=1", "name one by its number, such as rewards.0"),
        ("run_name.x=1", 'run_name is the text "test", so it has no key x'),
        ("max_steps=", 'max_steps is the text ""; expected a whole number'),
        ("prompt.stop=[", "override prompt.stop=[: this is not valid YAML"),
        ("max_steps", '"max_steps" is not an override: write key=value'),
        ("=3", '"=3" is not an override'),
        ("use_vllm=true", "use_vllm is not a key of r1rl"),
        ("data={source: a, source: b}", "the key source is written twice"),
    ],
)
def test_override_errors_name_the_override(recipe_file: Path, override: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("grpo", recipe_file, [override])
    assert sentence in str(caught.value)
    assert override in str(caught.value)


# paths


def test_paths_are_found_in_the_working_directory_or_beside_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, work = tmp_path / "recipes", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    for name in ("beside.jsonl", "both.txt"):
        (folder / name).write_text("{problem}", encoding="utf-8")
    (work / "both.txt").write_text("{problem}", encoding="utf-8")
    monkeypatch.chdir(work)
    text = (
        "run_name: a\ndata: {source: beside.jsonl}\nprompt: {template: both.txt}\n"
        "rewards: [{function: accuracy}]\n"
    )
    recipe = load(folder / "r.yaml", text, "evaluation.data.source=nowhere.jsonl")
    assert recipe.data.source == str(folder / "beside.jsonl")
    assert recipe.prompt.template == "both.txt"
    assert recipe.evaluation.data.source == "nowhere.jsonl"
    assert recipe.model.path == "embedded"
