"""Every hint of r1rl/config/retired.py agrees with the recipes as they are: keys exist, values are accepted,
and lists of values are complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1rl.config.describe import Key, recipe_keys
from r1rl.config.load import load_recipe
from r1rl.config.retired import RETIRED, RETIRED_ELSEWHERE, RETIRED_PREFIXES
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.grpo.recipe import GRPORecipe
from r1rl.pretrain.recipe import PretrainRecipe

RECIPES: dict[str, tuple[str, type, dict[str, Any]]] = {
    "GRPORecipe": (
        "grpo",
        GRPORecipe,
        {"run_name": "x", "data": {"source": "countdown"}, "rewards": [{"function": "countdown"}]},
    ),
    "EvaluateRecipe": (
        "evaluate",
        EvaluateRecipe,
        {"run_name": "x", "models": [{"path": "embedded"}], "benchmarks": ["countdown"]},
    ),
    "PretrainRecipe": (
        "pretrain",
        PretrainRecipe,
        {"run_name": "x", "corpus": {"tasks": {"countdown": 1}, "habits": {"direct": 1}}},
    ),
}
"""The command, the class and the shortest recipe for each class that a hint is for."""

HINTS = [
    pytest.param("GRPORecipe", hint, id=key) for key, hint in {**RETIRED, **RETIRED_PREFIXES}.items()
] + [
    pytest.param(recipe, hint, id=f"{recipe}-{key}")
    for recipe, hints in RETIRED_ELSEWHERE.items()
    for key, hint in hints.items()
]
NAME = r"(?<![\w./{-])[a-z_]+(?:\.[a-z_0-9]+)*"
LIST_OF_VALUES = r"[a-z0-9_]+(?:, [a-z0-9_]+)*(?: or [a-z0-9_]+)"
NEEDED_BY = {"sampling.temperature": ("num_samples=1",)}
"""Overrides without which the value in a hint would contradict another setting."""


def keys_of(recipe: str) -> dict[str, Key]:
    """Return the keys of a recipe by their names."""
    return {key.name: key for key in recipe_keys(RECIPES[recipe][1])}


def named(hint: str, keys: dict[str, Key]) -> set[str]:
    """Return what the hint names as a key: every dotted name in a section of the recipe, and what it says to
    write.
    """
    sections = {name.partition(".")[0] for name in keys}
    dotted = {name for name in re.findall(NAME, hint) if "." in name and name.partition(".")[0] in sections}
    return (dotted | set(re.findall(rf"write ({NAME})", hint))) - {"it"}


def assignments(hint: str, keys: dict[str, Key]) -> Iterator[tuple[str, str]]:
    """Yield each `key: value` of the hint: a section in braces, a list in brackets, words or one word."""
    start = 0
    while found := re.compile(rf"({NAME}): ").search(hint, start):
        start, rest = found.end(), hint[found.end() :]
        if rest[0] in "{[":
            value = balanced(rest)
        elif listed := re.match(rf"{LIST_OF_VALUES}(?=[.;,]|$)", rest):
            value = listed[0]
        else:
            value = re.split(r"[\s,;]|\.(?:\s|$)", rest)[0]
        start += len(value)
        if found[1] in keys:
            yield found[1], value


def balanced(text: str) -> str:
    """Return the beginning of the text up to the bracket that closes its first one."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "{[") - (character in "}]")
        if depth == 0:
            return text[: place + 1]
    raise AssertionError(f"{text} has a bracket that is never closed")


@pytest.mark.parametrize(("recipe", "hint"), HINTS)
def test_a_hint_is_a_sentence_and_names_keys_that_exist(recipe: str, hint: str) -> None:
    """Each key that a hint names for the models of an evaluation is a key of an entry of that list."""
    keys = keys_of(recipe)
    assert hint.endswith(".")
    entries = {name.removeprefix("models.0.") for name in keys}
    assert named(hint, keys) <= keys.keys() | entries


@pytest.mark.parametrize(("recipe", "hint"), HINTS)
def test_what_a_hint_says_to_write_is_accepted(recipe: str, hint: str, tmp_path: Path) -> None:
    command, _, minimal = RECIPES[recipe]
    keys = keys_of(recipe)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(minimal), encoding="utf-8")
    for key, value in assignments(hint, keys):
        words = re.split(", | or ", value) if re.fullmatch(LIST_OF_VALUES, value) else [value]
        for word in words:
            load_recipe(command, tmp_path / "recipe.yaml", [f"{key}={word}", *NEEDED_BY.get(key, ())])
        if len(words) > 1:
            assert ", ".join(words[:-1]) + f" or {words[-1]}" == keys[key].kind


def test_the_reading_of_hints_finds_what_is_wrong() -> None:
    keys = keys_of("GRPORecipe")
    assert named("write model.nonsense and rollout.engine.", keys) == {"model.nonsense", "rollout.engine"}
    assert named("write nonsense.", keys) == {"nonsense"}
    assert list(assignments("write model.dtype: float32 or bfloat16; or data: {split: test}.", keys)) == [
        ("model.dtype", "float32 or bfloat16"),
        ("data", "{split: test}"),
    ]
