"""The memory that a recipe needs on each GPU: from the model's config.json, without its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from r1rl import models
from r1rl.config.schema import LoRAConfig, ModelConfig, UpdateConfig
from r1rl.distill.recipe import DistillRecipe
from r1rl.errors import RecipeError
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.generate.recipe import GenerateRecipe
from r1rl.grpo.recipe import GRPORecipe
from r1rl.memory.plan import GB, Adapters, Launch, MemoryPlan, ModelShape, Work, plan_memory
from r1rl.models.lora import adapted_linears
from r1rl.objective.sampling import DrawSettings, Sampling
from r1rl.policy.compilation import uses_logprob_kernel, wants_compiling
from r1rl.preflight.awaited import AWAITED_MODEL
from r1rl.preflight.prompts import first_line
from r1rl.reward_model.recipe import RewardModelRecipe
from r1rl.rollout.native.compiled import layer_lists
from r1rl.sft.recipe import SFTRecipe

ASSUMED_PROMPT = 512
"""Tokens of the longest prompt where the prompts could not be rendered and the recipe sets no limit."""


class NotEstimated(Exception):
    """The model's config.json is neither here nor reachable, or tells of a decoder that is built in another
    way than the estimate knows.
    """


@dataclass(slots=True)
class Estimate:
    """What a recipe needs, and what had to be assumed for it."""

    model: str
    shape: ModelShape
    launch: Launch
    work: Work
    keys: dict[str, str]
    """What the recipe calls the settings that a remedy may change."""
    assumptions: list[str] = field(default_factory=list)
    decided: str = ""
    """What the recipe leaves to the estimate, as a sentence where that changes something."""

    @property
    def plan(self) -> MemoryPlan:
        """The estimate's parts."""
        return plan_memory(self.shape, self.launch, self.work)


def shape_of(config: PretrainedConfig) -> ModelShape:
    """The shape of a model, which is made without memory for its weights ("meta" device) and counted. Raises
    NotEstimated.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    try:
        return _shape(model, config.get_text_config())
    except AttributeError as error:
        raise NotEstimated(
            f"{type(model).__name__} is not built like the decoders that the estimate knows ({error})"
        ) from error


def _shape(model: PreTrainedModel, text: PretrainedConfig) -> ModelShape:
    lists = layer_lists(model)
    if not lists:
        raise NotEstimated(f"the layers of {type(model).__name__} are not one list")
    _, layers = lists[0]
    inside = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers]
    total = sum(parameter.numel() for parameter in model.parameters())
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelShape(
        parameters=total,
        largest_layer=max(inside),
        outside_layers=total - sum(inside),
        layers=len(inside),
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,  # GPT-2's default
        queries=heads * head,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * head,
        vocabulary=text.vocab_size,
        context=getattr(text, "max_position_embeddings", None),
        norms_heads=any(hasattr(module, "q_norm") for module in layers.modules()),
    )


def adapters_of(config: PretrainedConfig, lora: LoRAConfig) -> Adapters:
    """The sizes of a model's adapters, rank x in and out x rank each. Raises UserError for targets that it
    lacks.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    matrices = [layer.get_parameter("weight") for layer in adapted_linears(model, lora).values()]
    return Adapters(
        lora.rank * sum(sum(matrix.shape) for matrix in matrices), sum(matrix.numel() for matrix in matrices)
    )


def read_config(path: str, revision: str | None, file: str | None) -> PretrainedConfig:
    """A model's configuration: from `file` (a config.json or its folder) if that is given, else from the
    model's folder, the hub's cache or the hub. Raises NotEstimated if none has it, and RecipeError for a file
    that can't be read.
    """
    if file is not None:
        place = Path(file) / "config.json" if Path(file).is_dir() else Path(file)
        try:
            content = json.loads(place.read_text(encoding="utf-8"))
            return AutoConfig.for_model(content.pop("model_type"), **content)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise RecipeError(f"--model-config: {place} is no model's config.json ({reason}).") from error
    if path == AWAITED_MODEL:
        raise NotEstimated("the model is not there yet")
    source = models.resolve(path)
    for only_local in (
        True,
        False,
    ):  # what is in the cache is found without waiting for a network that is not there
        try:
            return AutoConfig.from_pretrained(source, revision=revision, local_files_only=only_local)
        except (OSError, ValueError) as error:
            reason = first_line(error)
    raise NotEstimated(
        f"the config.json of {path} is not here ({reason}). Name a copy of it: --model-config FILE"
    )


def estimate(
    recipe: Any, launch: Launch, prompt_tokens: int | None, config_file: str | None
) -> Estimate | None:
    """The estimate of a recipe that names a model; None for one that loads none. Raises NotEstimated.

    Where the recipe leaves `model.gradient_checkpointing` open, activations are recomputed if they do not fit
    otherwise.
    """
    found = _as_written(recipe, launch, prompt_tokens, config_file)
    if (
        found is None
        or not found.work.trains
        or recipe.model.gradient_checkpointing is not None
        or found.plan.fits
        or not launch.on_gpu
    ):
        return found
    if isinstance(recipe, GRPORecipe) and recipe.update.compile:
        return found  # as the recipe asks for it, and a compiled layer can't be recomputed
    work = replace(found.work, gradient_checkpointing=True, compiled=False)
    before, after = found.plan.total / GB, plan_memory(found.shape, launch, work).total / GB
    decided = (
        f"activations are recomputed in the backward pass (model.gradient_checkpointing): {after:.1f} GB "
        f"instead of {before:.1f}, "
        f"of {launch.card_bytes / GB:.0f}"
    )
    return replace(found, work=work, decided=decided) if after < before else found


def _as_written(
    recipe: Any, launch: Launch, prompt_tokens: int | None, config_file: str | None
) -> Estimate | None:
    if isinstance(recipe, GRPORecipe):
        return _grpo(recipe, launch, prompt_tokens, config_file)
    if isinstance(recipe, DistillRecipe):
        return _distill(recipe, launch, prompt_tokens, config_file)
    if isinstance(recipe, SFTRecipe):
        return _sft(recipe, launch, config_file)
    if isinstance(recipe, RewardModelRecipe):
        shape = shape_of(read_config(recipe.model.path, recipe.model.revision, config_file))
        tokens = 2 * recipe.micro_batch_size * recipe.max_length  # both answers of a pair
        recomputes = bool(recipe.model.gradient_checkpointing)
        work = Work(length=2 * recipe.max_length, update_tokens=tokens, gradient_checkpointing=recomputes)
        return Estimate(recipe.model.path, shape, launch, work, CHECKPOINTING)
    if isinstance(recipe, GenerateRecipe) and recipe.model.endpoint is None:
        shape = shape_of(read_config(recipe.model.path, recipe.model.revision, config_file))
        return _sampling(
            recipe.model.path, shape, launch, prompt_tokens, recipe.max_completion_length, recipe.max_rows
        )
    if isinstance(recipe, EvaluateRecipe):
        from r1rl.evaluation.benchmarks import benchmarks_of

        length = max(benchmark.max_completion_length for benchmark in benchmarks_of(recipe))
        here = [model for model in recipe.models if model.endpoint is None and model.path != AWAITED_MODEL]
        shapes = [(one.path, shape_of(read_config(one.path, one.revision, config_file))) for one in here]
        path, largest = max(shapes, key=lambda pair: pair[1].parameters, default=("", None))
        return (
            None
            if largest is None
            else _sampling(path, largest, launch, prompt_tokens, length, recipe.max_rows)
        )
    return None


def _grpo(recipe: GRPORecipe, launch: Launch, prompt_tokens: int | None, config_file: str | None) -> Estimate:
    rollout, update = recipe.rollout, recipe.update
    config = read_config(recipe.model.path, recipe.model.revision, config_file)
    prompt, assumptions = _prompt_length(prompt_tokens, recipe.data.max_prompt_tokens)
    length = prompt + rollout.max_completion_length
    rows = -(-rollout.num_prompts // launch.processes) * rollout.num_generations
    tokens = _update_tokens(
        update.micro_batch_tokens,
        update.micro_batch_sequences,
        rows // recipe.algorithm.num_minibatches,
        length,
    )
    work = Work(
        rows=rows,
        max_rows=rollout.max_rows,
        length=length,
        update_tokens=tokens,
        logit_tokens=min(update.logprob_chunk, tokens),
        gradient_checkpointing=bool(recipe.model.gradient_checkpointing),
        compiled=is_compiled(update, launch, recipe.model),
        fused_logits=fuses_logits(rollout, launch, recipe.model),
        has_reference=recipe.algorithm.beta != 0,
        overlaps=rollout.one_step_off,
        adapters=None if recipe.model.lora is None else adapters_of(config, recipe.model.lora),
    )
    shape = shape_of(config)
    keys = {
        "update_tokens": "update.micro_batch_tokens",
        "logit_tokens": "update.logprob_chunk",
    } | CHECKPOINTING
    return Estimate(recipe.model.path, shape, launch, work, keys, assumptions)


def is_compiled(update: UpdateConfig, launch: Launch, model: ModelConfig) -> bool:
    """Whether the policy's forward will be compiled, as far as the recipe decides."""
    device, dtype = arithmetic(launch, model)
    wanted = wants_compiling(update.compile, device, dtype, bool(model.gradient_checkpointing))
    return wanted and launch.on_gpu and dtype is not torch.float32 and update.layout != "padded"


def fuses_logits(drawn: DrawSettings, launch: Launch, model: ModelConfig) -> bool:
    """Whether logprobs will come from a kernel, as far as the recipe decides."""
    return uses_logprob_kernel(*arithmetic(launch, model), Sampling.of(drawn, 1, (), ()))


def arithmetic(launch: Launch, model: ModelConfig) -> tuple[torch.device, torch.dtype]:
    """Where the policy will compute, and in what precision."""
    usual = "bfloat16" if launch.on_gpu else "float32"
    dtype = (
        torch.bfloat16 if (usual if model.dtype == "auto" else model.dtype) == "bfloat16" else torch.float32
    )
    return torch.device("cuda" if launch.on_gpu else "cpu"), dtype


CHECKPOINTING = {"gradient_checkpointing": "model.gradient_checkpointing"}


def _distill(
    recipe: DistillRecipe, launch: Launch, prompt_tokens: int | None, config_file: str | None
) -> Estimate:
    rollout, update = recipe.rollout, recipe.update
    prompt, assumptions = _prompt_length(
        prompt_tokens, recipe.data.max_prompt_tokens if recipe.data is not None else None
    )
    length = prompt + rollout.max_completion_length
    share = rollout.num_generations / launch.processes
    tokens = _update_tokens(
        update.micro_batch_tokens, update.micro_batch_sequences, round(rollout.num_prompts * share), length
    )
    work = Work(
        rows=round(recipe.on_policy_prompts * share),
        max_rows=rollout.max_rows,
        length=length,
        update_tokens=tokens,
        logit_tokens=min(update.logit_chunk, tokens),
        logit_vocabularies=2,
        gradient_checkpointing=bool(recipe.model.gradient_checkpointing),
        teacher=_teacher(recipe, assumptions),
    )
    shape = shape_of(read_config(recipe.model.path, recipe.model.revision, config_file))
    keys = {
        "update_tokens": "update.micro_batch_tokens",
        "logit_tokens": "update.logit_chunk",
    } | CHECKPOINTING
    return Estimate(recipe.model.path, shape, launch, work, keys, assumptions)


def _sft(recipe: SFTRecipe, launch: Launch, config_file: str | None) -> Estimate:
    evaluation = recipe.evaluation
    sampled = (
        -(-evaluation.num_problems * evaluation.num_samples // launch.processes)
        if evaluation.data is not None
        else 0
    )
    tokens = recipe.micro_batch_size * recipe.max_length
    work = Work(
        rows=sampled,
        max_rows=evaluation.max_rows,
        length=ASSUMED_PROMPT + evaluation.max_completion_length if sampled else recipe.max_length,
        update_tokens=tokens,
        logit_tokens=min(TRL_LOGIT_TOKENS, tokens),
        gradient_checkpointing=bool(recipe.model.gradient_checkpointing),
    )
    shape = shape_of(read_config(recipe.model.path, recipe.model.revision, config_file))
    keys = CHECKPOINTING | ({"update_tokens": "max_length"} if recipe.micro_batch_size == 1 else {})
    return Estimate(recipe.model.path, shape, launch, work, keys)


TRL_LOGIT_TOKENS = 1024
"""TRL goes through the head in tiles; this many tokens' logits are more than one of them holds."""


def _teacher(recipe: DistillRecipe, assumptions: list[str]) -> ModelShape | None:
    """The teacher's shape; None, and a sentence among the assumptions, if its configuration is not here."""
    try:
        return shape_of(read_config(recipe.teacher.path, recipe.teacher.revision, None))
    except NotEstimated:
        assumptions.append(
            "no memory for the teacher, whose config.json is not here: name a folder that has it, "
            "teacher.path=FOLDER"
        )
        return None


def _sampling(
    model: str, shape: ModelShape, launch: Launch, prompt_tokens: int | None, completion: int, max_rows: int
) -> Estimate:
    """A model that only writes: as many rows at once as fit, or as the recipe allows."""
    prompt, assumptions = _prompt_length(prompt_tokens, None)
    return Estimate(
        model,
        shape,
        launch,
        Work(trains=False, rows=max_rows or MANY_ROWS, length=prompt + completion),
        {},
        assumptions,
    )


MANY_ROWS = 256
"""Rows of a batch that samples without training; where they do not fit, fewer decode at once."""


def _prompt_length(measured: int | None, limit: int | None) -> tuple[int, list[str]]:
    if measured is not None:
        return measured, []
    if limit is not None:
        return limit, [f"prompts of data.max_prompt_tokens, {limit} tokens"]
    return ASSUMED_PROMPT, [
        f"prompts of {ASSUMED_PROMPT} tokens: the recipe sets no limit, and they were not looked at"
    ]


def _update_tokens(tokens: int, sequences: int | None, rows: int, length: int) -> int:
    """Tokens of the largest micro-batch: the limit, or all that a process trains at once if that is less."""
    return max(length, min(tokens, min(sequences or rows, rows) * length))
