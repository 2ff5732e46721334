"""Keys of other frameworks' recipes (TRL, open-r1, transformers' TrainingArguments, verl) and what to write
in r1rl instead.

A hint is a sentence that says what to write. tests/test_retired_keys.py tries every key and every
`key: value` that a hint names on a recipe, so a hint can't outlive what it speaks of.
"""

from __future__ import annotations

_DATASET = "write data: {source: NAME, subset: CONFIG, split: train}."
_MIXTURE = "write data.source for the first data set and list the others under data.mix: [{source: NAME}]."
_COLUMNS = "map the columns with data.columns, such as {problem: question, answer: solution}."
_BATCH = (
    "write rollout.num_prompts, the prompts of a step over all processes; update.micro_batch_tokens bounds "
    "the micro-batches."
)
_REWARDS = (
    "list the rewards, each with its weight, under rewards: [{function: accuracy, weight: 1.0}, "
    "{function: format, weight: 0.1}]."
)
_REWARD_MODEL = (
    "a reward model is a reward; write rewards: [{function: reward_model, arguments: {path: NAME}}]."
)
_REWARD_ARGUMENT = (
    "it is an argument of one reward: write it under rewards, as {function: NAME, arguments: {...}}."
)
_ENGINE = "write rollout.engine: transformers, or leave it out for r1rl's own engine."
_VLLM = "rollout.vllm has the settings of rollout.engine: vllm that r1rl knows; leave the others out."
_PRECISION = "write model.dtype: auto, float32 or bfloat16; weights that are trained stay float32."
_STEPS = "training is counted in steps: write max_steps; a step takes rollout.num_prompts rows of the data."
_HUB = (
    "r1rl uploads nothing; each folder in checkpoints/ of the run loads with from_pretrained, and hf upload "
    "can upload it."
)
_LOG = "every step is written to metrics.jsonl; the logging section sets what is shown."
_EVALUATION = "write evaluation.data and, to evaluate during training, evaluation.every_steps."
_CHECKPOINT = "write checkpoint.every_steps and checkpoint.keep."
_BEST = (
    "no checkpoint is chosen during training; checkpoint.keep: 0 keeps all of them, and r1rl evaluate scores "
    "each one."
)
_RESUME = "resume from the command line: r1rl grpo RECIPE --resume [PATH]."
_LAUNCH = (
    "it belongs to the launcher: accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m r1rl grpo "
    "RECIPE."
)
_DEEPSPEED = "models are sharded by PyTorch's FSDP2 instead; " + _LAUNCH
_CHECKPOINTING = "write model.gradient_checkpointing: true."
_LORA = "write model.lora: {rank: 32, alpha: 32}, which trains adapters of the decoder's linear layers."
_TRUST = "r1rl never runs code that comes with a model or a data set."
_ENTROPY = "write algorithm.entropy_coefficient; it stays constant."
_DATALOADER = "data needs no loader settings here; leave it out."
_ATTENTION = "the attention kernel is chosen for the hardware; leave it out."
_COMPILE = (
    "write update.compile for the policy and rollout.compile_layers for the rollout; both are chosen for the "
    "hardware if they are left out."
)
_CORRECTION = (
    "write algorithm.importance_cap, the cap of the truncated importance weight; null turns the correction "
    "off."
)
_REFERENCE = "the reference of the KL term is the model that training starts from; leave it out."
_UNUSED_LOSS = (
    "this loss is not part of r1rl; algorithm.surrogate and algorithm.aggregation name those that are."
)

RETIRED: dict[str, str] = {
    # model
    "model_name_or_path": "write model.path.",
    "model_name": "write model.path.",
    "model_revision": "write model.revision.",
    "torch_dtype": _PRECISION,
    "bf16": _PRECISION,
    "fp16": "fp16 is not offered; " + _PRECISION,
    "tf32": _PRECISION,
    "bf16_full_eval": _PRECISION,
    "fp16_full_eval": _PRECISION,
    "cast_lm_head_to_fp32": "log-probabilities are always computed in float32; leave it out.",
    "model_init_kwargs": "write model.path, model.revision and model.dtype.",
    "attn_implementation": _ATTENTION,
    "trust_remote_code": _TRUST,
    "tokenizer_name_or_path": "the tokenizer is the model's: write model.path.",
    "chat_template": "write prompt.template: chat, which is the model's own chat template, or the path of a "
    "text file with {problem}.",
    "chat_template_kwargs": "write prompt.template and prompt.system.",
    "gradient_checkpointing_kwargs": _CHECKPOINTING,
    "activation_checkpointing": _CHECKPOINTING,
    "activation_checkpointing_kwargs": _CHECKPOINTING,
    "use_peft": _LORA,
    "lora_r": "write model.lora.rank.",
    "lora_rank": "write model.lora.rank.",
    "lora_alpha": "write model.lora.alpha.",
    "lora_target_modules": "write model.lora.target_modules, a list of names; an empty one means all linear "
    "layers of the decoder.",
    "target_modules": "write model.lora.target_modules, a list of names; an empty one means all linear "
    "layers of the decoder.",
    "lora_dropout": "policies run without dropout, adapters too; leave it out.",
    "load_in_4bit": "quantized training is not part of r1rl; write model.dtype.",
    "load_in_8bit": "quantized training is not part of r1rl; write model.dtype.",
    "disable_dropout": "policies run without dropout; leave it out.",
    "use_liger_kernel": "the loss never holds all logits at once; set update.logprob_chunk instead.",
    "torch_compile": _COMPILE,
    "torch_compile_backend": _COMPILE,
    "torch_compile_mode": _COMPILE,
    "router_aux_loss_coef": "an auxiliary router loss is not part of the objective; leave it out.",
    # data and prompts
    "dataset_name": _DATASET,
    "dataset_config": "write data.subset.",
    "dataset_configs": "write data.subset.",
    "dataset_mixture": _MIXTURE,
    "dataset_train_split": "write data.split.",
    "eval_dataset": "write evaluation.data: {source: NAME, split: test}.",
    "dataset_test_split": "write evaluation.data.split.",
    "dataset_split": "write data.split.",
    "train_files": "write data.source with the path of the file.",
    "val_files": "write evaluation.data.source with the path of the file.",
    "dataset_prompt_column": _COLUMNS,
    "dataset_solution_column": _COLUMNS,
    "prompt_key": _COLUMNS,
    "dataset_num_proc": _DATALOADER,
    "dataset_shuffle": "write data.shuffle.",
    "shuffle_dataset": "write data.shuffle.",
    "data_seed": "write seed; it fixes the order of the data too.",
    "system_prompt": "write prompt.template: chat and prompt.system, or for a base model prompt.template: "
    "r1_zero.",
    "max_prompt_length": "write data.max_prompt_tokens; longer prompts are dropped and counted, never cut.",
    "max_seq_length": "write data.max_prompt_tokens and rollout.max_completion_length.",
    "max_length": "write data.max_prompt_tokens and rollout.max_completion_length.",
    "max_response_length": "write rollout.max_completion_length.",
    "max_new_tokens": "write rollout.max_completion_length.",
    "remove_unused_columns": "every column reaches the rewards that name it; leave it out.",
    "ignore_data_skip": _RESUME,
    "pad_to_multiple_of": "batches are cut by tokens: write update.micro_batch_tokens.",
    # rewards
    "reward_funcs": _REWARDS,
    "reward_functions": _REWARDS,
    "reward_weights": _REWARDS,
    "reward_model_path": _REWARD_MODEL,
    "reward_model_name_or_path": _REWARD_MODEL,
    "multi_objective_aggregation": "the total is the sum of the rewards, each times its weight.",
    "repetition_n_grams": _REWARD_ARGUMENT,
    "repetition_max_penalty": _REWARD_ARGUMENT,
    "max_completion_len": _REWARD_ARGUMENT,
    "soft_punish_cache": _REWARD_ARGUMENT,
    "code_language": _REWARD_ARGUMENT,
    "code_provider": _REWARD_ARGUMENT,
    "parallel_code_exec_per_proc": _REWARD_ARGUMENT,
    # batch and rollout
    "per_device_train_batch_size": _BATCH,
    "train_batch_size": _BATCH,
    "batch_size": _BATCH,
    "gradient_accumulation_steps": _BATCH,
    "generation_batch_size": _BATCH,
    "auto_find_batch_size": _BATCH,
    "steps_per_generation": "write algorithm.num_minibatches, the optimizer steps of one pass over a "
    "rollout.",
    "ppo_mini_batch_size": "write algorithm.num_minibatches, the number of optimizer steps of one pass over "
    "a rollout, not their size.",
    "ppo_epochs": "write algorithm.num_iterations.",
    "num_ppo_epochs": "write algorithm.num_iterations.",
    "num_samples_per_prompt": "write rollout.num_generations.",
    "num_return_sequences": "write rollout.num_generations.",
    "group_size": "write rollout.num_generations.",
    "num_generations_eval": "write evaluation.num_samples.",
    "use_vllm": "write rollout.engine: vllm.",
    "vllm_mode": "write rollout.vllm.mode: colocate or server.",
    "vllm_gpu_memory_utilization": "write rollout.vllm.gpu_memory_utilization.",
    "vllm_tensor_parallel_size": "write rollout.vllm.tensor_parallel_size.",
    "vllm_server_base_url": "write rollout.vllm.server_url.",
    "vllm_server_host": "write rollout.vllm.server_url, such as http://localhost:8000.",
    "vllm_server_port": "write rollout.vllm.server_url, such as http://localhost:8000.",
    "vllm_server_timeout": "write rollout.vllm.server_timeout.",
    "use_transformers_paged": _ENGINE,
    "use_transformers_continuous_batching": _ENGINE,
    "transformers_continuous_batching_config": _ENGINE,
    "cache_implementation": _ENGINE,
    "ds3_gather_for_generation": _ENGINE,
    "repetition_penalty": "grpo trains the distribution that it samples, which has no such penalty in it; "
    "leave it out, or use the reward repetition.",
    "generation_kwargs": "the section rollout has the sampling settings.",
    # objective
    "loss_type": (
        "it is two keys here, algorithm.aggregation and algorithm.surrogate; dr_grpo is "
        "algorithm.aggregation: dr_grpo with algorithm.scale: none."
    ),
    "epsilon": "write algorithm.epsilon_low and algorithm.epsilon_high; optimizer.epsilon is AdamW's.",
    "cliprange": "write algorithm.epsilon_low and algorithm.epsilon_high.",
    "clip_ratio": "write algorithm.epsilon_low and algorithm.epsilon_high.",
    "scale_rewards": "write algorithm.scale: group, batch or none.",
    "importance_sampling_level": "write algorithm.importance_level.",
    "mask_truncated_completions": "write algorithm.mask_truncated.",
    "kl_coef": "write algorithm.beta.",
    "kl_loss_coef": "write algorithm.beta.",
    "adv_estimator": "write algorithm.baseline and algorithm.scale.",
    "entropy_coef": _ENTROPY,
    "entropy_coeff": _ENTROPY,
    "use_adaptive_entropy": _ENTROPY,
    "entropy_coef_min": _ENTROPY,
    "entropy_coef_max": _ENTROPY,
    "entropy_coef_delta": _ENTROPY,
    "entropy_target": _ENTROPY,
    "top_entropy_quantile": _UNUSED_LOSS,
    "off_policy_mask_threshold": _UNUSED_LOSS,
    "use_bias_correction_kl": "write algorithm.kl_bias_correction.",
    "sapo_temperature_neg": _UNUSED_LOSS,
    "sapo_temperature_pos": _UNUSED_LOSS,
    "vespo_k_pos": _UNUSED_LOSS,
    "vespo_k_neg": _UNUSED_LOSS,
    "vespo_lambda_pos": _UNUSED_LOSS,
    "vespo_lambda_neg": _UNUSED_LOSS,
    "sync_ref_model": _REFERENCE,
    "ref_model_mixup_alpha": _REFERENCE,
    "ref_model_sync_steps": _REFERENCE,
    "vllm_importance_sampling_correction": _CORRECTION,
    "vllm_importance_sampling_mode": _CORRECTION,
    "vllm_importance_sampling_cap": _CORRECTION,
    "vllm_importance_sampling_clip_max": _CORRECTION,
    "vllm_importance_sampling_clip_min": _CORRECTION,
    # optimizer
    "lr": "write optimizer.learning_rate.",
    "lr_scheduler_type": "write optimizer.schedule: constant, linear or cosine.",
    "lr_scheduler_kwargs": "write optimizer.schedule and optimizer.warmup_steps.",
    "warmup_ratio": "write optimizer.warmup_steps, a number of the steps that max_steps counts.",
    "optim": "the optimizer is AdamW; its settings are in the optimizer section.",
    "optim_args": "the optimizer is AdamW; its settings are in the optimizer section.",
    "adam_beta1": "write optimizer.betas: [0.9, 0.999], the decays of both moments.",
    "adam_beta2": "write optimizer.betas: [0.9, 0.999], the decays of both moments.",
    "adam_epsilon": "write optimizer.epsilon.",
    "num_train_epochs": _STEPS,
    "total_epochs": _STEPS,
    "num_epochs": _STEPS,
    # evaluation, checkpoints, logging
    "do_train": "the command says what is done; leave it out.",
    "do_eval": _EVALUATION,
    "do_predict": _EVALUATION,
    "eval_strategy": _EVALUATION,
    "evaluation_strategy": _EVALUATION,
    "eval_steps": "write evaluation.every_steps.",
    "eval_on_start": "write evaluation.at_start.",
    "per_device_eval_batch_size": _EVALUATION,
    "save_steps": "write checkpoint.every_steps.",
    "save_strategy": _CHECKPOINT,
    "save_total_limit": "write checkpoint.keep.",
    "save_only_model": "checkpoints hold the model and the state to resume from; leave it out.",
    "load_best_model_at_end": _BEST,
    "resume_from_checkpoint": _RESUME,
    "overwrite_output_dir": "nothing is overwritten; the second run of one run_name gets the folder "
    "run_name-2, and --resume goes on with a run.",
    "report_to": "write logging.trackers: [wandb].",
    "logging_steps": _LOG,
    "logging_strategy": _LOG,
    "logging_first_step": _LOG,
    "logging_dir": "everything is written to the run directory output_dir/run_name.",
    "log_level": _LOG,
    "disable_tqdm": "write logging.live: false.",
    "log_completions": "write logging.completions_every.",
    "num_completions_to_print": "write logging.show_completions.",
    "log_unique_prompts": "write logging.show_completions.",
    "wandb_project": "write logging.trackers: [wandb] and set WANDB_PROJECT in the environment.",
    "wandb_entity": "write logging.trackers: [wandb] and set WANDB_ENTITY in the environment.",
    "wandb_run_group": "write logging.trackers: [wandb] and set WANDB_RUN_GROUP in the environment.",
    "push_to_hub": _HUB,
    "push_to_hub_revision": _HUB,
    "benchmarks": _EVALUATION,
    "callbacks": "write hooks: [my_hooks.py:MyHook], a class whose methods are called during the run.",
    # launching
    "deepspeed": _DEEPSPEED,
    "fsdp": _LAUNCH,
    "num_processes": _LAUNCH,
    "use_cpu": "accelerate launch --cpu, or a machine without a GPU, runs on the CPU; leave it out.",
    "ddp_timeout": _LAUNCH,
    "ddp_find_unused_parameters": _LAUNCH,
    "accelerator_config": _LAUNCH,
    "full_determinism": "write seed; a run on a CPU repeats exactly.",
}

RETIRED_PREFIXES: dict[str, str] = {
    "vllm_": _VLLM,
    "cosine_": _REWARD_ARGUMENT,
    "hub_": _HUB,
    "fsdp_": _LAUNCH,
    "deepspeed_": _DEEPSPEED,
    "dataloader_": _DATALOADER,
    "lora_": _LORA,
    "wandb_": "write logging.trackers: [wandb]; wandb reads its own settings from WANDB_* variables of the "
    "environment.",
    "trackio_": "write logging.trackers: [trackio]; trackio reads its own settings from TRACKIO_* variables "
    "of the environment.",
}
"""The hint for every other key with this beginning."""

_MODELS = "list what is evaluated: models: [{path: NAME}]."
_BENCHMARKS = "write benchmarks, a list of names from docs/benchmarks.md, data files and hub names."
_ANSWER_LENGTH = "write max_completion_length."
_SAMPLES = "write num_samples, the completions of each problem."
_BATCH_TOKENS = "write batch_tokens, the tokens of an optimizer step."
_ROW_LENGTH = "write sequence_length; documents are packed into rows of so many tokens."

RETIRED_ELSEWHERE: dict[str, dict[str, str]] = {
    "EvaluateRecipe": {
        **dict.fromkeys(
            ("model", "model_path", "model_name", "model_name_or_path", "pretrained", "model_args"), _MODELS
        ),
        **dict.fromkeys(("tasks", "benchmark", "data", "dataset", "dataset_name", "data_path"), _BENCHMARKS),
        **dict.fromkeys(
            ("max_new_tokens", "max_tokens", "max_gen_toks", "max_response_length", "max_length"),
            _ANSWER_LENGTH,
        ),
        **dict.fromkeys(
            ("n", "n_sampling", "num_generations", "num_return_sequences", "num_samples_per_prompt"), _SAMPLES
        ),
        **dict.fromkeys(("limit", "max_samples", "num_test_sample"), "write num_problems."),
        "batch_size": "write max_rows, the completions that are decoded at once, or leave it out: as many "
        "as fit.",
        "do_sample": "write sampling.temperature: 0 is greedy.",
        "system_prompt": "write prompt.template: chat and prompt.system.",
        "torch_dtype": "write dtype for each entry of models.",
        "use_vllm": "a server samples for an entry of models that has endpoint: {url: "
        "http://localhost:8000/v1}.",
    },
    "PretrainRecipe": {
        **dict.fromkeys(
            ("batch_size", "train_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps"),
            _BATCH_TOKENS,
        ),
        **dict.fromkeys(
            ("max_length", "max_seq_length", "seq_length", "block_size", "context_length"), _ROW_LENGTH
        ),
        **dict.fromkeys(
            ("num_train_epochs", "num_epochs"), "training is counted in optimizer steps; write max_steps."
        ),
        **dict.fromkeys(("n_layer", "num_hidden_layers"), "write architecture.num_layers."),
        **dict.fromkeys(("n_head", "num_attention_heads"), "write architecture.num_heads."),
        **dict.fromkeys(("n_embd", "d_model"), "write architecture.hidden_size."),
        **dict.fromkeys(("torch_dtype", "bf16"), "write save_dtype, of the saved weights."),
        "lr": RETIRED["lr"],
        "lr_scheduler_type": RETIRED["lr_scheduler_type"],
        "warmup_ratio": RETIRED["warmup_ratio"],
        "dataset_name": "the text is generated: write corpus.tasks and corpus.habits.",
    },
}
"""The hints for other recipes than `GRPORecipe`, whose keys those above name, by the class of the recipe."""


def replacement(key: str, recipe: str = "GRPORecipe") -> str | None:
    """Return the hint for a key of another framework in a recipe of the class `recipe`, or None."""
    if recipe != "GRPORecipe":
        return RETIRED_ELSEWHERE.get(recipe, {}).get(key)
    if key in RETIRED:
        return RETIRED[key]
    return next((sentence for prefix, sentence in RETIRED_PREFIXES.items() if key.startswith(prefix)), None)
