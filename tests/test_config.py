"""Recipes: what is read, and the sentence for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1rl.config.describe import recipe_keys
from r1rl.config.intervals import INTERVALS, Interval
from r1rl.config.load import RECIPES, dump_recipe, load_recipe
from r1rl.config.retired import RETIRED, RETIRED_PREFIXES, replacement
from r1rl.config.schema import GRPORecipe, PretrainRecipe, RewardConfig
from r1rl.config.validate import reward_names
from r1rl.errors import RecipeError

MINIMAL = """\
run_name: test
data: {source: countdown}
rewards:
  - function: countdown
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def load(path: Path, text: str, *overrides: str, command: str = "grpo") -> Any:
    path.write_text(text, encoding="utf-8")
    return load_recipe(command, path, overrides)


def message(path: Path, text: str, *overrides: str, command: str = "grpo") -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, text, *overrides, command=command)
    return str(caught.value)


# what is read


def test_defaults_fill_what_the_recipe_leaves_out(recipe_file: Path) -> None:
    recipe = load_recipe("grpo", recipe_file)
    expected = GRPORecipe(run_name="test", data=recipe.data, rewards=recipe.rewards)
    assert recipe == expected
    assert (recipe.data.source, recipe.rewards[0].function, recipe.rewards[0].weight) == ("countdown", "countdown", 1.0)


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


@pytest.mark.parametrize(("written", "value"), [("1e-6", 1e-6), ("1.5e3", 1500.0), ("3", 3.0), ('"2e-5"', 2e-5), ("0.5", 0.5)])
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
        "run_name: a\nevaluation:\n  data: &base {source: countdown, split: test}\ndata: {<<: *base, split: train}\n"
        "rewards: [{function: countdown}]\n",
    )
    assert (recipe.data.source, recipe.data.split, recipe.evaluation.data.split) == ("countdown", "train", "test")


def test_empty_section_keeps_its_defaults(recipe_file: Path) -> None:
    assert load(recipe_file, MINIMAL + "rollout:\nevaluation:\n  # data: ...\n").rollout.num_prompts == 32


def test_pretrain_recipe(recipe_file: Path) -> None:
    text = "run_name: base\ncorpus: {tasks: {countdown: 1}, habits: {direct: 0.7, worked: 0.3}}\n"
    recipe = load(recipe_file, text, command="pretrain")
    assert isinstance(recipe, PretrainRecipe)
    assert recipe.corpus.habits == {"direct": 0.7, "worked": 0.3}


# unknown, moved and retired keys


def test_unknown_key_names_file_line_and_nearest_key(recipe_file: Path) -> None:
    found = message(recipe_file, MINIMAL + "rollout:\n  num_generation: 8\n")
    assert found == f"{recipe_file}, line 6: rollout.num_generation is unknown; did you mean rollout.num_generations?"


def test_key_of_another_section(recipe_file: Path) -> None:
    assert message(recipe_file, "learning_rate: 1e-6\n" + MINIMAL).endswith(
        "line 1: learning_rate is unknown; did you mean optimizer.learning_rate?"
    )
    assert "did you mean optimizer.weight_decay?" in message(recipe_file, MINIMAL + "algorithm: {weight_decay: 0.1}\n")
    assert "did you mean optimizer.max_grad_norm?" in message(recipe_file, MINIMAL + "max_grad_nrm: 1.0\n")


def test_key_of_a_reward(recipe_file: Path) -> None:
    assert "line 5: rewards.0.wieght is unknown; did you mean rewards.0.weight?" in message(recipe_file, MINIMAL + "    wieght: 2\n")


def test_unknown_key_without_a_near_one_lists_the_section(recipe_file: Path) -> None:
    found = message(recipe_file, MINIMAL + "checkpoint: {zzz: 1}\n")
    assert "checkpoint.zzz is unknown; checkpoint has the keys every_steps, keep" in found


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("max_prompt_length: 512", "data.max_prompt_tokens"),
        ("overwrite_output_dir: true", "run_name"),
        ("torch_dtype: bfloat16", "model.dtype"),
        ("use_vllm: true", "rollout.engine"),
        ("reward_funcs: [accuracy]", "rewards: [{function: accuracy"),
        ("reward_weights: [1.0]", "rewards: [{function: accuracy"),
        ("dataset_name: a/b", "data: {source: NAME"),
        ("dataset_config: main", "data.subset"),
        ("dataset_prompt_column: problem", "data.columns"),
        ("model_name_or_path: a/b", "model.path"),
        ("per_device_train_batch_size: 16", "rollout.num_prompts"),
        ("gradient_accumulation_steps: 8", "rollout.num_prompts"),
        ("loss_type: dr_grpo", "algorithm.aggregation"),
        ("scale_rewards: false", "algorithm.scale"),
        ("epsilon: 0.2", "algorithm.epsilon_low"),
        ("num_train_epochs: 1", "max_steps"),
        ("lr_scheduler_type: cosine", "optimizer.schedule"),
        ("warmup_ratio: 0.1", "optimizer.warmup_steps"),
        ("bf16: true", "model.dtype"),
        ("report_to: [wandb]", "logging.trackers"),
        ("save_steps: 10", "checkpoint.every_steps"),
        ("logging_steps: 1", "metrics.jsonl"),
        ("system_prompt: x", "prompt.system"),
        ("vllm_gpu_memory_utilization: 0.7", "rollout.engine"),
        ("cosine_max_len: 1000", "arguments"),
        ("push_to_hub: true", "from_pretrained"),
        ("beta: 0.04", "algorithm.beta"),
        ("num_generations: 8", "rollout.num_generations"),
        ("temperature: 0.7", "rollout.temperature"),
        ("max_completion_length: 512", "rollout.max_completion_length"),
    ],
)
def test_keys_of_trl_and_open_r1_recipes(recipe_file: Path, line: str, instead: str) -> None:
    found = message(recipe_file, MINIMAL + line + "\n")
    assert found.startswith(f"{recipe_file}, line 5: {line.split(':')[0]} is ")
    assert instead in found


def test_every_replacement_names_existing_keys() -> None:
    known = {key.name for key in recipe_keys(GRPORecipe)}
    sections = {key.section for key in recipe_keys(GRPORecipe)} - {""}
    for retired, sentence in {**RETIRED, **RETIRED_PREFIXES}.items():
        assert sentence.endswith("."), retired
        words = sentence.replace(",", " ").replace(";", " ").replace(":", " ").replace("(", " ").split()
        for word in (word.rstrip(".") for word in words):
            section, dot, _ = word.partition(".")
            if dot and section in sections:
                assert word in known, f"{retired}: {word} is not a key"


def test_retired_keys_are_not_keys_of_a_recipe() -> None:
    top = {key.name for key in recipe_keys(GRPORecipe) if not key.section}
    assert not top & set(RETIRED)


def test_most_options_of_trl_get_a_sentence() -> None:
    """Every option of TRL's GRPOConfig is a key of r1rl somewhere, or has a replacement, or is listed here as exotic."""
    config = pytest.importorskip("trl.trainer.grpo_config")
    leaves = {key.leaf for key in recipe_keys(GRPORecipe)}
    own = set(config.GRPOConfig.__annotations__)
    exotic = {"max_tool_calling_iterations", "log_multimodal", "log_completions_hub_repo"}
    assert {name for name in own if name not in leaves and replacement(name) is None} - exotic == set()


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
        ("algorithm: {scale: null}", "algorithm.scale is nothing (null); expected group, batch or none: write the word none"),
        ("algorithm: {scale: true}", "algorithm.scale is true; expected group, batch or none"),
        ("model: Qwen/Qwen2.5-0.5B", "expected a section, such as {path: Qwen/Qwen2.5-0.5B}"),
        ("prompt: {stop: x}", 'prompt.stop is the text "x"; expected a list of text, such as [x]'),
        ("prompt: {stop: [x, 5]}", 'prompt.stop.1 is 5; expected text: put it in quotes, "5"'),
        ("logging: {trackers: [mlflow]}", 'logging.trackers.0 is the text "mlflow"; expected tensorboard, wandb or trackio'),
        ("evaluation: {data: countdown}", "evaluation.data is the text \"countdown\"; expected a section, such as {source: countdown}"),
    ],
)
def test_wrong_types(recipe_file: Path, lines: str, sentence: str) -> None:
    found = message(recipe_file, MINIMAL + lines + "\n")
    assert sentence in found
    assert f"{recipe_file}, line 5: " in found


@pytest.mark.parametrize(
    ("rewards", "sentence"),
    [
        ("rewards: accuracy", 'rewards is the text "accuracy"; expected a list of sections, such as [{function: accuracy}]'),
        ("rewards: [accuracy]", 'rewards.0 is the text "accuracy"; expected a section, such as {function: accuracy}'),
        ("rewards: [{weight: 1}]", "rewards.0.function is missing"),
        ("rewards: []", "rewards is empty"),
        ("rewards:", "rewards is empty"),
        ("rewards: [{function: a, arguments: [1]}]", "rewards.0.arguments is a list of 1; expected a mapping, such as {name: value}"),
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


def test_every_interval_belongs_to_a_number() -> None:
    fields = {}
    for recipe in RECIPES.values():
        for key in recipe_keys(recipe):
            fields[key.leaf] = key.hint
    for name in INTERVALS:
        assert fields[name.partition(".")[2]] in (int, float, int | None, float | None), name


def test_interval_in_words() -> None:
    assert str(Interval(least=0, below=1)) == "at least 0 and below 1"
    assert Interval(above=0).contains(0.1)
    assert not Interval(above=0).contains(0)


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
        ("run_name: !!python/object/apply:os.system [ls]\n", "the tag tag:yaml.org,2002:python/object/apply:os.system has no meaning"),
        ("run_name: !!python/name:os.system x\n", "this is not valid YAML (could not determine a constructor"),
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
    text = "run_name: a\ndata: {sauce: x}\nrollout:\n  temperature: 0\n  num_generation: 4\nrewards: [{function: countdown}]\nbf16: true\n"
    lines = message(recipe_file, text, "optimizer.betas=[0.9]", "nonsense=1").splitlines()
    assert lines[0] == f"{recipe_file} has 7 errors:"
    assert [line.strip().split(":")[0] for line in lines[1:]] == [
        "line 2", "line 2", "line 4", "line 5", "line 7", "override nonsense=1", "override optimizer.betas=[0.9]",
    ]  # fmt: skip


def test_contradictions_are_not_drawn_from_values_that_were_not_read(recipe_file: Path) -> None:
    """num_prompts is misspelt, so its default of 32 must not be blamed for not being divisible by 7."""
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
            "prompt.stop=[\"</answer>\"]",
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
    assert [(reward.function, reward.weight) for reward in recipe.rewards] == [("countdown", 0.5), ("format", 1.0)]
    assert (recipe.prompt.stop, recipe.prompt.prefill, recipe.prompt.template) == (["</answer>"], "", "a=b.txt")
    assert (recipe.run_name, recipe.model.revision, recipe.data.subset) == ("2024", "1e10", None)
    assert recipe.evaluation.data.source == "countdown"
    assert recipe.data.arguments == {"count": 12}
    assert recipe.max_steps == 4


def test_overrides_do_not_reach_through_aliases(recipe_file: Path) -> None:
    text = "run_name: a\ndata: &d {source: countdown, limit: 5}\nevaluation: {data: *d}\nrewards: [{function: countdown}]\n"
    recipe = load(recipe_file, text, "data.limit=7")
    assert (recipe.data.limit, recipe.evaluation.data.limit) == (7, 5)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("rollout.temperature=0", "override rollout.temperature=0: rollout.temperature is 0; it must be above 0"),
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


# contradictions


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("algorithm: {delta: 1.1}", "algorithm.delta is 1.1; it must be above 1 + algorithm.epsilon_high = 1.2"),
        ("algorithm: {surrogate: cispo, delta: 4}", "algorithm.delta belongs to the clip surrogate"),
        ("algorithm: {num_minibatches: 5}", "algorithm.num_minibatches is 5, which does not divide rollout.num_prompts (32)"),
        ("algorithm: {surrogate: online_rft, importance_level: sequence}", "which uses no ratio: write token"),
        ("algorithm: {kl_bias_correction: true}", "so there is no KL term"),
        ("algorithm: {baseline: reinforce_plus_plus}", "divides by the batch's standard deviation: write scale: batch"),
        ("rollout: {num_generations: 1}", "rollout.num_generations is 1, but algorithm.baseline: group compares"),
        ("rollout: {repetition_penalty: 1.1}", "rollout.repetition_penalty is 1.1; grpo trains the distribution that it samples"),
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
        ("[{function: format, when: {accuracy: 1}}]", "rewards.0.when names accuracy; a gate names another reward of this recipe (none)"),
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
    assert "must know which reward says that an answer is right: write outcome: NAME, one of format" in message(recipe_file, text)
    assert load(recipe_file, text + "outcome: format\n").outcome == "format"


def test_pretrain_contradictions(recipe_file: Path) -> None:
    text = "run_name: a\nbatch_tokens: 1000\nsequence_length: 2048\narchitecture: {num_heads: 4, num_key_value_heads: 3}\n"
    found = message(recipe_file, text, command="pretrain")
    assert "architecture.num_key_value_heads is 3, which does not divide architecture.num_heads (4)" in found
    assert "sequence_length is 2048, more than architecture.max_position_embeddings (1024)" in found
    assert "batch_tokens is 1000, which is not a multiple of sequence_length (2048)" in found
    assert "corpus.tasks is empty" in found


def test_names_of_rewards() -> None:
    rewards = [RewardConfig(function=name) for name in ("accuracy", "rewards.mine:length", "a/b.py:length")]
    assert reward_names(rewards) == ["accuracy", "length", "length_2"]


# paths


def test_paths_are_found_in_the_working_directory_or_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, work = tmp_path / "recipes", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    for name in ("beside.jsonl", "both.txt"):
        (folder / name).write_text("{problem}", encoding="utf-8")
    (work / "both.txt").write_text("{problem}", encoding="utf-8")
    monkeypatch.chdir(work)
    text = "run_name: a\ndata: {source: beside.jsonl}\nprompt: {template: both.txt}\nrewards: [{function: accuracy}]\n"
    recipe = load(folder / "r.yaml", text, "evaluation.data.source=nowhere.jsonl")
    assert recipe.data.source == str(folder / "beside.jsonl")
    assert recipe.prompt.template == "both.txt"
    assert recipe.evaluation.data.source == "nowhere.jsonl"
    assert recipe.model.path == "embedded"
