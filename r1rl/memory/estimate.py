"""The memory that a recipe needs on each GPU, estimated from the model's config.json without its weights.

The record of the recipe's command names the function that says what is done with the model
(`r1rl.config.commands.Command.memory`); what those functions share is here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from r1rl import models
from r1rl.config.awaited import AWAITED_MODEL
from r1rl.config.commands import command_of, resolve
from r1rl.config.schema import LoRAConfig, ModelConfig, UpdateConfig
from r1rl.errors import RecipeError, first_line
from r1rl.memory.plan import MemoryPlan, plan_memory
from r1rl.memory.work import GB, Adapters, Launch, ModelShape, Work
from r1rl.models.loading import resolve_dtype
from r1rl.models.lora import adapted_linears
from r1rl.objective.sampling import DrawSettings, Sampling
from r1rl.policy.compilation import uses_logprob_kernel, wants_compiling
from r1rl.rollout.native.compiled import layer_lists

ASSUMED_PROMPT = 512
"""Tokens of the longest prompt where the prompts could not be rendered and the recipe sets no limit."""
MANY_ROWS = 256
"""Rows of a batch that samples without training; where they do not fit, fewer decode at once."""
CHECKPOINTING = {"gradient_checkpointing": "model.gradient_checkpointing"}
"""The name that every recipe which trains gives to the setting."""


class NotEstimated(Exception):
    """The error of a model whose config.json is neither here nor reachable, or whose decoder is built in
    another way than the estimate knows.
    """


@dataclass(slots=True)
class Estimate:
    """The memory that a recipe needs, and the assumptions behind it."""

    model: str
    shape: ModelShape
    launch: Launch
    work: Work
    keys: dict[str, str]
    """The recipe's names of the settings that a remedy may change."""
    assumptions: list[str] = field(default_factory=list)
    checkpointing_is_open: bool = False
    """A flag, true if the recipe leaves activation checkpointing to the estimate."""
    decided: str = ""
    """The choice that the recipe left to the estimate, as a sentence where it changes something."""

    @property
    def plan(self) -> MemoryPlan:
        """The estimate's parts."""
        return plan_memory(self.shape, self.launch, self.work)


def shape_of(config: PretrainedConfig) -> ModelShape:
    """Return the shape of a model, which is made without memory for its weights ("meta" device) and counted.

    Raises NotEstimated.
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
    """Return the sizes of a model's adapters, rank x in and out x rank each. Raises UserError for targets
    that it lacks.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    matrices = [layer.get_parameter("weight") for layer in adapted_linears(model, lora).values()]
    return Adapters(
        lora.rank * sum(sum(matrix.shape) for matrix in matrices), sum(matrix.numel() for matrix in matrices)
    )


def read_config(path: str, revision: str | None, file: str | None) -> PretrainedConfig:
    """Return a model's configuration: from `file` (a config.json or its folder) if that is given, else from
    the model's folder, the hub's cache or the hub.

    Raises NotEstimated if none has it, and RecipeError for a file that can't be read.
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
    # What is in the cache is found without waiting for a network that is not there.
    for only_local in (True, False):
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
    """Return the estimate of a recipe of any command; None for one that loads no model. Raises NotEstimated.

    `prompt_tokens`: tokens of the longest prompt, None if they were not counted. `config_file`: a config.json
    in the place of the model's own. Where the recipe leaves `model.gradient_checkpointing` open, activations
    are recomputed if they do not fit otherwise.
    """
    memory = command_of(recipe).memory
    if memory is None:
        return None
    found: Estimate | None = resolve(memory)(recipe, launch, prompt_tokens, config_file)
    if found is None or not found.checkpointing_is_open or found.plan.fits or not launch.on_gpu:
        return found
    work = replace(found.work, gradient_checkpointing=True, compiled=False)
    before, after = found.plan.total / GB, plan_memory(found.shape, launch, work).total / GB
    decided = (
        f"activations are recomputed in the backward pass (model.gradient_checkpointing): {after:.1f} GB "
        f"instead of {before:.1f}, of {launch.card_bytes / GB:.0f}"
    )
    return replace(found, work=work, decided=decided) if after < before else found


def is_compiled(update: UpdateConfig, launch: Launch, model: ModelConfig) -> bool:
    """Return whether the policy's forward will be compiled, as far as the recipe decides."""
    device, dtype = arithmetic(launch, model)
    wanted = wants_compiling(update.compile, device, dtype, bool(model.gradient_checkpointing))
    return wanted and launch.on_gpu and dtype is not torch.float32 and update.layout != "padded"


def fuses_logits(drawn: DrawSettings, launch: Launch, model: ModelConfig) -> bool:
    """Return whether logprobs will come from a kernel, as far as the recipe decides."""
    return uses_logprob_kernel(*arithmetic(launch, model), Sampling.of(drawn, 1, (), ()))


def arithmetic(launch: Launch, model: ModelConfig) -> tuple[torch.device, torch.dtype]:
    """Return the device and the precision in which the policy will compute."""
    device = torch.device("cuda" if launch.on_gpu else "cpu")
    return device, resolve_dtype(model.dtype, device)


def sampling_estimate(
    model: str, shape: ModelShape, launch: Launch, prompt_tokens: int | None, completion: int, max_rows: int
) -> Estimate:
    """Return the estimate of a model that only samples: as many rows at once as fit, or as allowed."""
    prompt, assumptions = prompt_length(prompt_tokens, None)
    return Estimate(
        model,
        shape,
        launch,
        Work(trains=False, rows=max_rows or MANY_ROWS, length=prompt + completion),
        {},
        assumptions,
    )


def prompt_length(measured: int | None, limit: int | None) -> tuple[int, list[str]]:
    """Return the tokens of the longest prompt, as measured, by the recipe's limit or assumed, and a sentence
    about an assumption.
    """
    if measured is not None:
        return measured, []
    if limit is not None:
        return limit, [f"prompts of data.max_prompt_tokens, {limit} tokens"]
    return ASSUMED_PROMPT, [
        f"prompts of {ASSUMED_PROMPT} tokens: the recipe sets no limit, and they were not looked at"
    ]


def micro_batch_tokens(tokens: int, sequences: int | None, rows: int, length: int) -> int:
    """Return the tokens of the largest micro-batch: the limit, or all that a process trains at once if that
    is less.
    """
    return max(length, min(tokens, min(sequences or rows, rows) * length))
