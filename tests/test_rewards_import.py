"""Built-in rewards as functions that are imported from r1rl.rewards and called by hand."""

from __future__ import annotations

import builtins
import inspect
from pathlib import Path
from typing import Any

import pytest
from tiny_policy import save_tiny_policy
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from r1rl import rewards
from r1rl.config.bundled import bundled_path
from r1rl.errors import RewardError
from r1rl.rewards.loader import load_reward
from tests.test_layers import MODULES

NAMES = sorted(file.stem for file in bundled_path("rewards").glob("*.py"))
RIGHT = " 2 + 2 = 4 </think> <answer> 4 </answer>"
NOBODY = "http://localhost:9"
"""An address at which no server answers."""
WRONG = " first, I guess, so 5"
CALLS: dict[str, tuple[dict[str, Any], list[float | None]]] = {
    "accuracy": ({"answer": ["4", "4"], "prefill": "<think>"}, [1.0, 0.0]),
    "code_execution": ({"tests": [["assert True"], ["assert True"]], "prefill": "<think>"}, [1.0, 0.0]),
    "cosine_length": (
        {"completion_ids": [[1] * 10, []], "outcome": [1.0, 0.0], "max_completion_length": 10},
        [0.5, -1.0],
    ),
    "countdown": ({"numbers": [[4], [4]], "target": [4, 4], "prefill": "<think>"}, [1.0, 0.0]),
    "format": ({"prefill": "<think>"}, [1.0, 0.0]),
    "judge": (
        {"problem": ["", ""], "answer": ["4", "4"], "url": NOBODY, "model": "m", "retries": 0},
        [None, None],
    ),
    "language_consistency": ({"language": ["en", "zh"], "prefill": "<think>"}, [None, 0.0]),
    "random_reward": ({"problem": ["a", "b"], "probability": 1.0}, [1.0, 1.0]),
    "reasoning_steps": ({"steps": 1}, [0.0, 1.0]),
    "reflection": ({"prefill": "<think>"}, [0.0, 0.0]),
    "repetition": ({"completion_ids": [[1, 2, 3], [1, 1, 1, 1]]}, [0.0, -0.5]),
    "reward_model": ({"problem": ["a", "b"], "path": "a folder that a fixture makes"}, [0.0, 0.0]),
    "soft_overlong": ({"completion_ids": [[1] * 8, [1] * 10], "max_completion_length": 10}, [0.0, -1.0]),
    "tag_count": ({"prefill": "<think>"}, [1.0, 0.25]),
}  # fmt: skip
"""Each reward's further arguments for one right and one wrong completion, and what it gives them."""
WITHOUT_TEXTS = {"cosine_length", "repetition", "soft_overlong"}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a reward model whose weights are all zero."""
    folder = save_tiny_policy(tmp_path_factory.mktemp("scorer"))
    config = Qwen3Config.from_pretrained(folder, num_labels=1)
    model = Qwen3ForSequenceClassification(config)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.save_pretrained(folder)
    return folder


def arguments_of(name: str) -> dict[str, Any]:
    texts = {} if name in WITHOUT_TEXTS else {"completions": [RIGHT, WRONG]}
    return {**texts, **CALLS[name][0]}


def lists_of(name: str) -> list[str]:
    """Return the arguments with one value per completion."""
    return [key for key, value in arguments_of(name).items() if isinstance(value, list)]


def test_every_built_in_reward_is_among_the_calls() -> None:
    assert sorted(CALLS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_can_be_called_by_hand(name: str, scorer: Path) -> None:
    arguments, expected = arguments_of(name), CALLS[name][1]
    if name == "reward_model":
        arguments["path"] = str(scorer)
    assert getattr(rewards, name)(**arguments) == expected


@pytest.mark.parametrize("name", NAMES)
def test_is_the_function_that_recipes_name(name: str) -> None:
    function = getattr(rewards, name)
    assert function is getattr(rewards, name)
    original = load_reward(name, Path.cwd()).function
    assert inspect.unwrap(function) is original
    assert (function.__name__, function.__doc__) == (name, original.__doc__)
    assert inspect.signature(function) == inspect.signature(original)


@pytest.mark.parametrize("name", [name for name in NAMES if len(lists_of(name)) > 1])
def test_too_few_values_are_refused(name: str) -> None:
    arguments, lists = arguments_of(name), lists_of(name)
    arguments[lists[-1]] = arguments[lists[-1]][:1]
    with pytest.raises(RewardError, match=rf"{name}: .*2 in {lists[0]}, .*1 in {lists[-1]}\."):
        getattr(rewards, name)(**arguments)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_in_the_place_of_a_list_is_refused(name: str) -> None:
    arguments = arguments_of(name)
    first = next(iter(arguments))
    with pytest.raises(RewardError, match=rf"{name}: {first} must be a list .* not a str: write {first}=\["):
        getattr(rewards, name)(**{**arguments, first: "12"})


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_and_an_unknown_argument_are_named(name: str) -> None:
    arguments = arguments_of(name)
    first = next(iter(arguments))
    without = {key: value for key, value in arguments.items() if key != first}
    with pytest.raises(RewardError, match=rf"{name}: missing .*'{first}'\. It needs {first}"):
        getattr(rewards, name)(**without)
    with pytest.raises(RewardError, match=rf"{name}: it takes no '{first}s'\. Did you mean {first}\?"):
        getattr(rewards, name)(**without, **{f"{first}s": arguments[first]})


def test_format_is_replaced_only_where_it_is_imported() -> None:
    scope: dict[str, Any] = {}
    exec("from r1rl.rewards import *", scope)
    assert "format" not in scope
    assert {"RewardSet", "RewardResult"} <= scope.keys()
    exec("from r1rl.rewards import format", scope)
    assert scope["format"] is rewards.format is not builtins.format


def test_an_unknown_name_is_an_attribute_error_with_the_nearest_one() -> None:
    with pytest.raises(AttributeError, match=r"'acuracy'\. Did you mean accuracy\? Built in: accuracy, "):
        _ = rewards.acuracy
    assert not hasattr(rewards, "_private")
    with pytest.raises(ImportError, match="acuracy"):
        exec("from r1rl.rewards import acuracy")


def test_dir_lists_them_and_no_module_hides_one() -> None:
    assert set(NAMES) <= set(dir(rewards))
    modules = {module.rsplit(".", 1)[1] for module in MODULES if module.startswith("r1rl.rewards.")}
    assert modules.isdisjoint(NAMES)
