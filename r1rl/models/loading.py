"""Loading of configurations, tokenizers and models for every command, and the choice of their precision.

Whatever can't be loaded ends in one sentence that names the key of the recipe. A name that is no folder here
is looked for on the hub. Where a path is expected, an object that is in memory already may be given instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from r1rl import models
from r1rl.config.schema import ModelConfig
from r1rl.errors import HubUnreachable, UserError, first_line
from r1rl.models.adapters import Adapter, merge_adapter
from r1rl.models.lora import adapted_layers


@dataclass(frozen=True, slots=True)
class ModelKind:
    """A class of transformers that loads models with one kind of head."""

    auto_class: Any
    name: str
    """The words that messages have for it."""


CAUSAL_LM = ModelKind(AutoModelForCausalLM, "causal language model")
SCORER = ModelKind(AutoModelForSequenceClassification, "sequence classification model")


@dataclass(frozen=True, slots=True)
class InMemory:
    """A model, and perhaps its tokenizer, that the caller holds in memory."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None = None
    """The model's tokenizer; None for that of the folder or hub name that the model was loaded from."""


def resolve_dtype(setting: str, device: torch.device) -> torch.dtype:
    """Return the precision that "auto", "bfloat16" or "float32" stands for: "auto" is bfloat16 on a GPU and
    float32 on a CPU.
    """
    if setting == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[setting]


def default_device() -> torch.device:
    """Return the kind of device that this process computes on, before accelerate has chosen its number."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_config(
    path: str, revision: str | None = None, key: str = "model.path", label: str | None = None
) -> PretrainedConfig:
    """Load a model's configuration. `key` and `label` are as in `load_model`, and so are the errors."""
    source = models.resolve(path)
    try:
        return AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise not_loadable("configuration", source, error, key, label) from error


def load_tokenizer(
    source: str | PreTrainedTokenizerBase,
    revision: str | None = None,
    key: str = "model.path",
    label: str | None = None,
) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, or take the one that is given, and see to its padding token.

    A tokenizer without one gets its EOS token for that: padding is masked by length. `key` and `label` are as
    in `load_model`, and so are the errors.
    """
    tokenizer: PreTrainedTokenizerBase
    if isinstance(source, str):
        path = models.resolve(source)
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
        except (OSError, ValueError) as error:
            raise not_loadable("tokenizer", path, error, key, label) from error
    else:
        tokenizer = source
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    source: str | PreTrainedModel,
    dtype: torch.dtype | str,
    *,
    revision: str | None = None,
    kind: ModelKind = CAUSAL_LM,
    adapter: Adapter | None = None,
    key: str = "model.path",
    label: str | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Load a model onto the CPU with parameters in `dtype`, or take the one that is given.

    A given model is not copied: its parameters are converted in place where they have another precision.
    "auto" for `dtype` is the precision of the saved weights. `adapter` is added to the weights in float32,
    and the sum is rounded to `dtype` once. Buffers keep their precision: rounded rotary frequencies would be
    other positions. `key` is the recipe's, for messages, and `label` names one of several models under that
    key; `settings` go to `from_pretrained`.

    Raises UserError for a folder without such a model, HubUnreachable for anything else that can't be loaded,
    and UserError where transformers found an adapter instead of a model.
    """
    if isinstance(source, str):
        path = models.resolve(source)
        wanted = dtype if adapter is None else torch.float32
        try:
            model = kind.auto_class.from_pretrained(path, revision=revision, dtype=wanted, **settings)
        except (OSError, ValueError) as error:
            raise not_loadable(kind.name, path, error, key, label) from error
    else:
        path, model = source.name_or_path or type(source).__name__, source
    if adapted_layers(model):  # transformers loads an adapter of the hub onto its model
        raise UserError(
            f"{key}: {path} holds a PEFT adapter and no whole model: merge it into its model first "
            f"(docs/lora.md)."
        )
    if adapter is not None:
        model = merge_adapter(model, adapter)
    # What transformers loaded has its precision: some models keep a few parameters in float32.
    if isinstance(dtype, torch.dtype) and (adapter is not None or model is source):
        convert_parameters(model, dtype)
    return model


def load_trained(
    config: ModelConfig,
    checkpoint: Path | None = None,
    dtype: torch.dtype = torch.float32,
    kind: ModelKind = CAUSAL_LM,
    given: PreTrainedModel | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Load a model to train: from `checkpoint`, else the model `given` in memory, else the recipe's path.

    Weights are float32 masters unless `dtype` says otherwise, which is for those that will be frozen. There
    is no dropout, and activations are recomputed where the recipe says so. Errors are those of `load_model`.
    """
    source = config.path if given is None else given
    if checkpoint is not None:
        model = load_model(str(checkpoint), dtype, kind=kind, **settings)
    else:
        model = load_model(source, dtype, revision=config.revision, kind=kind, **settings)
    disable_dropout(model)
    if config.gradient_checkpointing:
        # transformers 5.23 has a new name for it; 5.17 has only the old one.
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
        model.train()  # transformers recomputes activations in training mode only
    return model


def load_policy(
    config: ModelConfig,
    checkpoint: Path | None = None,
    dtype: torch.dtype = torch.float32,
    given: PreTrainedModel | None = None,
) -> PreTrainedModel:
    """Load a causal language model to train; see `load_trained`.

    Raises UserError for a checkpoint that holds adapters only.
    """
    if checkpoint is not None and (checkpoint / models.ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{checkpoint} holds an adapter: go on with the recipe that the run began with, which has "
            f"model.lora."
        )
    return load_trained(config, checkpoint, dtype, given=given)


def convert_parameters(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Convert the floating-point parameters in place, and no buffer."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.dtype is not dtype:
            parameter.data = parameter.data.to(dtype)


def disable_dropout(model: PreTrainedModel) -> None:
    """Set every dropout probability to 0: the sampler has none, and the distribution that is trained must be
    the one that was sampled.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module.__dict__.get("attention_dropout"), float):
            module.__dict__["attention_dropout"] = 0.0  # a plain number that attention functions read


def not_loadable(what: str, source: str, error: Exception, key: str, label: str | None) -> UserError:
    """Return the error for something that transformers could not load, with the first line of its message:
    the rest is advice about options of transformers.
    """
    is_folder = Path(source).is_dir()
    where = source if is_folder else f"{source}, which is no folder here, so it was looked for on the hub"
    beginning = f"no {what} could be loaded" if label is None else f"{label} can't be loaded"
    kind = UserError if is_folder else HubUnreachable
    return kind(f"{key}: {beginning} from {where}: {first_line(error)}")
