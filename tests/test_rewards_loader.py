"""Finding reward functions and checking their signatures."""

from __future__ import annotations

import pytest

from r1rl.config.schema import RewardConfig
from r1rl.errors import RewardError
from r1rl.rewards.loader import built_in_names, load_reward
from tests.reward_helpers import make_completion, make_prompt, reward_set, score


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Enter a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_every_built_in_loads_and_has_a_docstring(folder):
    names = built_in_names()
    assert {"accuracy", "format", "countdown", "code_execution", "reward_model", "judge"} <= set(names)
    for name in names:
        reward = load_reward(name, folder)
        assert reward.built_in and reward.name == name and reward.function.__doc__


def test_unknown_built_in_names_the_nearest_and_all(folder):
    with pytest.raises(
        RewardError, match=r"no built-in reward 'acuracy'.*Did you mean accuracy\?.*cosine_length"
    ):
        load_reward("acuracy", folder)


def test_unknown_name_points_to_the_users_own_file(folder):
    write(folder / "rewards" / "short.py", "def short(completions): return [0.0 for c in completions]\n")
    with pytest.raises(RewardError, match=r"write rewards\.short:short"):
        load_reward("short", folder)


def test_module_of_the_working_directory(folder):
    write(folder / "rewards" / "helper.py", "FACTOR = 2\n")
    write(
        folder / "rewards" / "mine.py",
        "def bonus(completions):\n    from rewards.helper import FACTOR\n    return [FACTOR * len(c) for c "
        "in completions]\n",
    )
    assert load_reward("rewards.mine:bonus", folder).file == folder / "rewards" / "mine.py"


def test_users_own_rewards_folder_wins_over_the_bundled_one(folder):
    write(
        folder / "rewards" / "tag_count.py", "def tag_count(completions): return [7 for c in completions]\n"
    )
    assert load_reward("rewards.tag_count:tag_count", folder).function(["x"]) == [7]
    assert load_reward("tag_count", folder).function(["x"]) == [0.0]


def test_bundled_module_by_its_dotted_name(folder):
    assert load_reward("rewards.tag_count:tag_count", folder).built_in


def test_installed_module(folder):
    assert load_reward("statistics:mean", folder).function([1, 3]) == 2


def test_file_relative_to_working_directory_then_recipe(folder):
    write(folder / "a.py", "def f(completions): return [1 for c in completions]\n")
    write(folder / "recipes" / "a.py", "def f(completions): return [2 for c in completions]\n")
    write(folder / "recipes" / "b.py", "def f(completions): return [3 for c in completions]\n")
    assert load_reward("a.py:f", folder / "recipes").function(["x"]) == [1]
    assert load_reward("b.py:f", folder / "recipes").function(["x"]) == [3]
    assert load_reward(f"{folder / 'recipes' / 'a.py'}:f", folder).function(["x"]) == [2]


def test_same_file_is_imported_once(folder):
    write(folder / "a.py", "def f(completions): return []\ndef g(completions): return []\n")
    assert load_reward("a.py:f", folder).module is load_reward("a.py:g", folder).module


@pytest.mark.parametrize(
    ("spec", "content", "sentence"),
    [
        ("nowhere.py:f", None, "there is no file .*nowhere.py"),
        ("a.py", "x = 1", "names a file but no function: write a.py:my_function"),
        (
            "a.py:lenght",
            "def length(completions): return []",
            r"lenght does not exist in .*a.py. Did you mean length\? It has: length",
        ),
        ("a.py:LIMIT", "LIMIT = 3", "LIMIT is not a function in .*a.py. It has no function"),
        (
            "a.py:F",
            "class F:\n    def __call__(self, completions): return []",
            "F is a class, not a function, in .*a.py",
        ),
        ("a.py:f", "def f(:\n", "a.py, line 1"),
        (
            "a.py:f",
            "import not_installed_anywhere\n",
            "imports not_installed_anywhere, which is not installed",
        ),
        ("a.py:f", "1 / 0\n", "importing .*a.py failed: ZeroDivisionError"),
        ("rewards.gone:f", None, "there is no module rewards.gone .*gone.py"),
        ("no module:f", None, "neither module:function nor file.py:function"),
        ("a.py:1f", "x = 1", "must end in the name of a function"),
    ],
)
def test_what_can_not_be_loaded_is_explained(folder, spec, content, sentence):
    if content is not None:
        write(folder / "a.py", content)
    with pytest.raises(RewardError, match=sentence):
        load_reward(spec, folder)


def test_every_keyword_and_column_reaches_the_function(folder):
    write(
        folder / "a.py",
        "seen = {}\n"
        "def f(prompts, completions, completion_ids, finish_reasons, max_completion_length, prefill, "
        "answer, problem, level,\n"
        "      *, scale, events):\n"
        "    seen.update(locals())\n    events['mine'] += 2\n    return [scale for _ in completions]\n",
    )
    rewards = reward_set(
        RewardConfig(function="a.py:f", arguments={"scale": 3}), columns={"answer", "problem", "level"}
    )
    result = rewards.score([make_prompt("4", "<think>", level=5)], [make_completion("hi")], 10, "<think>")
    assert result.total == [3.0] and result.events == {"mine": 2}
    seen = load_reward("a.py:f", folder).module.seen
    assert seen.pop("events") == {"mine": 2}
    assert seen == {
        "prompts": ["Q: 2 + 2<think>"], "completions": ["hi"], "completion_ids": [[0, 1, 2]],
        "finish_reasons": ["eos"], "max_completion_length": 10, "prefill": "<think>", "answer": ["4"],
        "problem": ["2 + 2"], "level": [5], "scale": 3,
    }  # fmt: skip


def test_kwargs_receive_every_column(folder):
    write(folder / "a.py", "def f(completions, **kwargs): return [len(kwargs) for _ in completions]\n")
    # prompts, completion_ids, finish_reasons, max_completion_length, prefill, answer, problem, level
    assert score(reward_set(RewardConfig(function="a.py:f"), columns={"level"}), ["x"], level=[1]).total == [
        8.0
    ]


def test_setting_is_not_filled_from_a_column_of_the_same_name(folder):
    write(folder / "a.py", "def f(completions, *, level=7): return [level for _ in completions]\n")
    assert score(reward_set(RewardConfig(function="a.py:f"), columns={"level"}), ["x"], level=[1]).total == [
        7.0
    ]


def test_optional_column_is_filled_where_the_data_has_it(folder):
    write(folder / "a.py", "def f(completions, level=None): return [0.0 if level is None else level[0]]\n")
    assert score(reward_set(RewardConfig(function="a.py:f"), columns={"level"}), ["x"], level=[1]).total == [
        1.0
    ]
    assert score(reward_set(RewardConfig(function="a.py:f")), ["x"]).total == [0.0]


@pytest.mark.parametrize(
    ("code", "arguments", "sentence"),
    [
        (
            "def f(completions, levle): return []",
            {},
            r"needs 'levle'.*\(answer, level, problem\).*Did you mean level\?.*data.columns",
        ),
        (
            "def f(completions, *, scale): return []",
            {"scael": 1},
            r"no parameter 'scael'.*Did you mean scale\? It takes: scale",
        ),
        ("def f(completions): return []", {"scale": 1}, "It takes no arguments"),
        ("def f(completions, prefill): return []", {"prefill": "x"}, "arguments.prefill can't be set"),
        ("def f(completions, /): return []", {}, "stands before '/'"),
        (
            "def f(): return []",
            {},
            r"f \(.*a.py\) takes nothing of the batch.* Give it a parameter completions",
        ),
        ("def f(*, scale=1): return []", {"scale": 2}, "takes nothing of the batch"),
    ],
)
def test_signatures_are_checked_before_anything_runs(folder, code, arguments, sentence):
    write(folder / "a.py", code + "\n")
    with pytest.raises(RewardError, match=sentence):
        reward_set(RewardConfig(function="a.py:f", arguments=arguments), columns={"level"})


def test_arguments_of_built_ins_are_checked_before_anything_runs():
    with pytest.raises(RewardError, match="0 <= partial <= full"):
        reward_set(RewardConfig(function="format", arguments={"partial": 2.0}))
