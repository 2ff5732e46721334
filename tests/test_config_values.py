"""Values of a wrong type, out of range, or in contradiction to each other, and the sentence for each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_type_hints

import pytest

from r1rl.config.commands import find_commands
from r1rl.config.describe import recipe_keys, section_class
from r1rl.config.intervals import Interval
from r1rl.config.reward_names import reward_names
from r1rl.config.schema import RewardConfig
from tests.config_helpers import MINIMAL, load, message

NUMBERS = (int, float, int | None, float | None)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


# missing keys and wrong types


def test_missing_keys_are_all_named(recipe_file: Path) -> None:
    found = message(recipe_file, "seed: 1\n")
    assert "run_name is missing: names the run directory" in found
    assert "data is missing" in found
    assert "rewards is missing" in found
    assert "3 errors" in found


def test_missing_key_of_a_section_points_at_the_section(recipe_file: Path) -> None:
    found = message(recipe_file, "run_name: a\nrewards: [{function: countdown}]\ndata:\n  split: test\n")
    assert f"{recipe_file}, line 3: data.source is missing: a hub name" in found


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("max_steps: many", 'max_steps is the text "many"; expected a whole number'),
        ("max_steps: 1.5", "max_steps is 1.5; expected a whole number"),
        ("max_steps: true", "max_steps is true; expected a whole number"),
        ("max_steps: null", "max_steps is nothing (null); expected a whole number"),
        ("optimizer: {learning_rate: fast}", 'optimizer.learning_rate is the text "fast"; expected a number'),
        ("optimizer: {learning_rate: true}", "optimizer.learning_rate is true; expected a number"),
        ("optimizer: {learning_rate: .inf}", "optimizer.learning_rate is .inf; expected a number"),
        ("output_dir: 7", 'output_dir is 7; expected text: put it in quotes, "7"'),
        ("output_dir: no", 'output_dir is no; expected text: put it in quotes, "no"'),
        ("data_seed: 1", "write seed"),
        ("evaluation: {at_start: 1}", "evaluation.at_start is 1; expected true or false"),
        ("algorithm: {scale: groups}", 'algorithm.scale is the text "groups"; expected group, batch or none'),
        (
            "algorithm: {scale: null}",
            "algorithm.scale is nothing (null); expected group, batch or none: write the word none",
        ),
        ("algorithm: {scale: true}", "algorithm.scale is true; expected group, batch or none"),
        ("model: Qwen/Qwen2.5-0.5B", "expected a section, such as {path: Qwen/Qwen2.5-0.5B}"),
        ("prompt: {stop: x}", 'prompt.stop is the text "x"; expected a list of text, such as [x]'),
        ("prompt: {stop: [x, 5]}", 'prompt.stop.1 is 5; expected text: put it in quotes, "5"'),
        (
            "logging: {trackers: [mlflow]}",
            'logging.trackers.0 is the text "mlflow"; expected tensorboard, wandb or trackio',
        ),
        (
            "evaluation: {data: countdown}",
            'evaluation.data is the text "countdown"; expected a section, such as {source: countdown}',
        ),
    ],
)
def test_wrong_types(recipe_file: Path, lines: str, sentence: str) -> None:
    found = message(recipe_file, MINIMAL + lines + "\n")
    assert sentence in found
    assert f"{recipe_file}, line 5: " in found


@pytest.mark.parametrize(
    ("rewards", "sentence"),
    [
        (
            "rewards: accuracy",
            'rewards is the text "accuracy"; expected a list of sections, such as [{function: accuracy}]',
        ),
        (
            "rewards: [accuracy]",
            'rewards.0 is the text "accuracy"; expected a section, such as {function: accuracy}',
        ),
        ("rewards: [{weight: 1}]", "rewards.0.function is missing"),
        ("rewards: []", "rewards is empty"),
        ("rewards:", "rewards is empty"),
        (
            "rewards: [{function: a, arguments: [1]}]",
            "rewards.0.arguments is a list of 1; expected a mapping, such as {name: value}",
        ),
    ],
)
def test_rewards_of_a_wrong_shape(recipe_file: Path, rewards: str, sentence: str) -> None:
    assert sentence in message(recipe_file, f"run_name: a\ndata: {{source: countdown}}\n{rewards}\n")


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("rollout: {temperature: 0}", "rollout.temperature is 0; it must be above 0"),
        ("rollout: {top_p: 1.5}", "rollout.top_p is 1.5; it must be above 0 and at most 1"),
        ("rollout: {num_prompts: 0}", "rollout.num_prompts is 0; it must be at least 1"),
        ("rollout: {min_p: 1}", "rollout.min_p is 1; it must be at least 0 and below 1"),
        ("algorithm: {epsilon_low: -0.2}", "algorithm.epsilon_low is -0.2; it must be above 0"),
        ("seed: -1", "seed is -1; it must be at least 0"),
    ],
)
def test_numbers_out_of_range(recipe_file: Path, lines: str, sentence: str) -> None:
    assert message(recipe_file, MINIMAL + lines + "\n") == f"{recipe_file}, line 5: {sentence}"


def test_every_number_has_an_interval() -> None:
    """The only unbounded numbers are a reward's weight and the entropy bonus: a negative one is a penalty."""
    numbers, shares, ranged = set(), set(), set()
    for cls in sections():
        numbers |= {f"{cls.__name__}.{name}" for name, hint in get_type_hints(cls).items() if hint in NUMBERS}
        shares |= {
            f"{cls.__name__}.{name}" for name, hint in get_type_hints(cls).items() if hint == dict[str, float]
        }
        ranged |= {
            f"{cls.__name__}.{entry.name}"
            for entry in dataclasses.fields(cls)
            if entry.metadata.get("within")
        }
    assert numbers - ranged == {"RewardConfig.weight", "AlgorithmConfig.entropy_coefficient"}
    assert ranged <= numbers | shares


def sections() -> set[type]:
    """Return every dataclass that a recipe is made of."""
    recipes = [command.recipe for command in find_commands().values() if command.recipe is not None]
    found = set(recipes)
    for recipe in recipes:
        found |= {inner for key in recipe_keys(recipe) if (inner := section_class(key.hint)) is not None}
    return found


def test_interval_in_words() -> None:
    assert str(Interval(least=0, below=1)) == "at least 0 and below 1"
    assert Interval(above=0).contains(0.1)
    assert not Interval(above=0).contains(0)


# contradictions


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            "algorithm: {delta: 1.1}",
            "algorithm.delta is 1.1; it must be above 1 + algorithm.epsilon_high = 1.2",
        ),
        ("algorithm: {surrogate: cispo, delta: 4}", "algorithm.delta belongs to the clip surrogate"),
        (
            "algorithm: {num_minibatches: 5}",
            "algorithm.num_minibatches is 5, which does not divide rollout.num_prompts (32)",
        ),
        (
            "algorithm: {surrogate: online_rft, importance_level: sequence}",
            "which uses no ratio: write token",
        ),
        ("algorithm: {kl_bias_correction: true}", "so there is no KL term"),
        (
            "algorithm: {baseline: reinforce_plus_plus}",
            "divides by the batch's standard deviation: write scale: batch",
        ),
        (
            "rollout: {num_generations: 1}",
            "rollout.num_generations is 1, but algorithm.baseline: group compares",
        ),
        (
            "rollout: {repetition_penalty: 1.1}",
            "rollout.repetition_penalty is 1.1, but grpo trains the distribution that it samples",
        ),
        (
            "rollout: {one_step_off: true, engine: vllm}",
            "rollout.one_step_off samples while the update runs, but rollout.engine is vllm",
        ),
        (
            "rollout: {one_step_off: true}\nalgorithm: {importance_cap: null}",
            "rollout.one_step_off is true, but algorithm.importance_cap is null: in bfloat16",
        ),
        ("outcome: accuracy", "outcome is accuracy, which is not among the rewards (countdown)"),
        ("optimizer: {betas: [0.9]}", "optimizer.betas is [0.9]; it must be two numbers"),
        ("optimizer: {betas: [0.9, 1.0]}", "optimizer.betas is [0.9, 1.0]; it must be two numbers"),
        ("prompt: {system: x}", "prompt.system is set, but prompt.template is r1_zero"),
        ('prompt: {stop: [""]}', "prompt.stop contains empty text"),
        ("evaluation: {every_steps: 5}", "evaluation.every_steps is set, but there are no held-out problems"),
        (
            "evaluation: {every_steps: 5, num_problems: 8, data: {source: countdown, split: test}}",
            "evaluation.during_problems is 64, more than evaluation.num_problems (8)",
        ),
    ],
)
def test_contradictions(recipe_file: Path, lines: str, sentence: str) -> None:
    found = message(recipe_file, MINIMAL + lines + "\n")
    assert sentence in found
    assert found.startswith(f"{recipe_file}, line 5: ")


@pytest.mark.parametrize("name", ["/a/b", "..", "''", "../x", "."])
def test_run_name_must_name_a_folder(recipe_file: Path, name: str) -> None:
    assert "it names a folder" in message(recipe_file, MINIMAL.replace("test", name))


def test_scale_needs_a_group_too(recipe_file: Path) -> None:
    found = message(recipe_file, MINIMAL + "rollout: {num_generations: 1}\nalgorithm: {baseline: none}\n")
    assert "algorithm.scale: group compares the completions of a group" in found
    load(recipe_file, MINIMAL + "rollout: {num_generations: 1}\nalgorithm: {baseline: none, scale: none}\n")


@pytest.mark.parametrize(
    ("rewards", "sentence"),
    [
        ("[{function: format, weight: 0}]", "every reward has weight 0"),
        (
            "[{function: format, when: {accuracy: 1}}]",
            "rewards.0.when names accuracy; a gate names another reward of this recipe (none)",
        ),
        ("[{function: format, when: {format: 1}}]", "rewards.0.when names format"),
    ],
)
def test_rewards_that_contradict_each_other(recipe_file: Path, rewards: str, sentence: str) -> None:
    assert sentence in message(recipe_file, f"run_name: a\ndata: {{source: countdown}}\nrewards: {rewards}\n")


@pytest.mark.parametrize(
    "needs", ["algorithm: {dynamic_sampling: true}", "evaluation: {data: {source: countdown, split: test}}"]
)
def test_an_outcome_is_needed_where_accuracy_is_used(recipe_file: Path, needs: str) -> None:
    text = f"run_name: a\ndata: {{source: countdown}}\nrewards: [{{function: format}}]\n{needs}\n"
    assert (
        "must know which reward says that an answer is right: write outcome: NAME, one of format"
        in message(recipe_file, text)
    )
    assert load(recipe_file, text + "outcome: format\n").outcome == "format"


def test_pretrain_contradictions(recipe_file: Path) -> None:
    text = (
        "run_name: a\nbatch_tokens: 1000\nsequence_length: 2048\n"
        "architecture: {num_heads: 4, num_key_value_heads: 3}\n"
    )
    found = message(recipe_file, text, command="pretrain")
    assert "architecture.num_key_value_heads is 3, which does not divide architecture.num_heads (4)" in found
    assert "sequence_length is 2048, more than architecture.max_position_embeddings (1024)" in found
    assert "batch_tokens is 1000, which is not a multiple of sequence_length (2048)" in found
    assert "corpus.tasks is empty" in found


def test_names_of_rewards() -> None:
    rewards = [RewardConfig(function=name) for name in ("accuracy", "rewards.mine:length", "a/b.py:length")]
    assert reward_names(rewards) == ["accuracy", "length", "length_2"]
