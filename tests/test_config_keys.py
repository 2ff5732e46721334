"""Keys that a recipe does not have, no longer has, or lacks, and the sentence for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1rl.config.describe import recipe_keys
from r1rl.config.retired import RETIRED, replacement
from r1rl.grpo.recipe import GRPORecipe
from tests.config_helpers import MINIMAL, message


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


# unknown, moved and retired keys


def test_unknown_key_names_file_line_and_nearest_key(recipe_file: Path) -> None:
    found = message(recipe_file, MINIMAL + "rollout:\n  num_generation: 8\n")
    assert (
        found
        == f"{recipe_file}, line 6: rollout.num_generation is unknown; did you mean rollout.num_generations?"
    )


def test_key_of_another_section(recipe_file: Path) -> None:
    assert message(recipe_file, "learning_rate: 1e-6\n" + MINIMAL).endswith(
        "line 1: learning_rate is unknown; did you mean optimizer.learning_rate?"
    )
    assert "did you mean optimizer.weight_decay?" in message(
        recipe_file, MINIMAL + "algorithm: {weight_decay: 0.1}\n"
    )
    assert "did you mean optimizer.max_grad_norm?" in message(recipe_file, MINIMAL + "max_grad_nrm: 1.0\n")


def test_key_of_a_reward(recipe_file: Path) -> None:
    assert "line 5: rewards.0.wieght is unknown; did you mean rewards.0.weight?" in message(
        recipe_file, MINIMAL + "    wieght: 2\n"
    )


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
        ("use_peft: true", "model.lora: {rank: 32, alpha: 32}"),
        ("lora_r: 16", "model.lora.rank"),
        ("lora_dropout: 0.1", "without dropout"),
        ("lora_task_type: CAUSAL_LM", "model.lora: {rank: 32, alpha: 32}"),
        ("report_to: [wandb]", "logging.trackers"),
        ("save_steps: 10", "checkpoint.every_steps"),
        ("logging_steps: 1", "metrics.jsonl"),
        ("system_prompt: x", "prompt.system"),
        ("vllm_gpu_memory_utilization: 0.7", "rollout.vllm.gpu_memory_utilization"),
        ("vllm_max_model_length: 512", "rollout.vllm"),
        ("torch_compile: true", "update.compile"),
        ("dataset_mixture: []", "data.mix: [{source: NAME}]"),
        ("cosine_max_len: 1000", "arguments"),
        ("push_to_hub: true", "from_pretrained"),
        ("eval_dataset: a/b", "evaluation.data: {source: NAME"),
        ("reward_model_name_or_path: a/b", "rewards: [{function: reward_model, arguments: {path: NAME}}]"),
        ("trackio_space_id: a/b", "logging.trackers: [trackio]"),
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


@pytest.mark.parametrize(
    ("command", "text", "sentence"),
    [
        (
            "evaluate",
            "max_new_tokens: 9",
            "max_new_tokens is not a key of r1rl: write max_completion_length.",
        ),
        ("evaluate", "model_name_or_path: a/b", "list what is evaluated: models: [{path: NAME}]."),
        ("pretrain", "batch_size: 9", "write batch_tokens, the tokens of an optimizer step."),
        ("pretrain", "epsilon_high: 0.2", "epsilon_high is unknown; did you mean optimizer.epsilon?"),
    ],
)
def test_other_recipes_have_replacements_of_their_own(
    recipe_file: Path, command: str, text: str, sentence: str
) -> None:
    assert sentence in message(recipe_file, f"run_name: x\nseed: 1\nmodels_: 1\n{text}\n", command=command)


def test_retired_keys_are_not_keys_of_a_recipe() -> None:
    top = {key.name for key in recipe_keys(GRPORecipe) if not key.section}
    assert not top & set(RETIRED)


def test_most_options_of_trl_get_a_sentence() -> None:
    """Every option of TRL's GRPOConfig is a key of r1rl somewhere, or has a replacement, or is listed here as
    exotic.
    """
    config = pytest.importorskip("trl.trainer.grpo_config")
    leaves = {key.leaf for key in recipe_keys(GRPORecipe)}
    own = set(config.GRPOConfig.__annotations__)
    exotic = {"max_tool_calling_iterations", "log_multimodal", "log_completions_hub_repo"}
    assert {name for name in own if name not in leaves and replacement(name) is None} - exotic == set()
