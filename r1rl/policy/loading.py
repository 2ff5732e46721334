"""Loading a tokenizer and a model from a recipe's path, with a sentence for everything that can't be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from r1rl import models
from r1rl.config.schema import ModelConfig
from r1rl.errors import UserError
from r1rl.models.lora import adapted_layers


def load_tokenizer(
    source: str | PreTrainedTokenizerBase, revision: str | None = None, key: str = "model.path"
) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, or take the one that is given, and see to its padding token (the EOS token where
    the tokenizer has none: padding is masked by length).
    """
    tokenizer: PreTrainedTokenizerBase
    if isinstance(source, str):
        try:
            tokenizer = AutoTokenizer.from_pretrained(models.resolve(source), revision=revision)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{key}: no tokenizer could be loaded from {source!r}: {first_sentence(error)}"
            ) from error
    else:
        tokenizer = source
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(
    model: ModelConfig,
    checkpoint: Path | None = None,
    dtype: torch.dtype = torch.float32,
    given: PreTrainedModel | None = None,
) -> PreTrainedModel:
    """The policy from the recipe's path or from a checkpoint, with float32 master weights, or in `dtype`
    where they will be frozen.

    Raises UserError for a checkpoint that holds adapters only.
    """
    if checkpoint is not None and (checkpoint / models.ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{checkpoint} holds an adapter: go on with the recipe that the run began with, which has "
            f"model.lora."
        )
    return load_trained(AutoModelForCausalLM, "causal language model", model, checkpoint, dtype, given)


def load_trained(
    kind: Any,
    name: str,
    model: ModelConfig,
    checkpoint: Path | None = None,
    dtype: torch.dtype = torch.float32,
    given: PreTrainedModel | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """A model to train, of one of transformers' Auto classes, with float32 master weights; `name` is what
    messages call it. `given`: take this one, and change it in place, unless there is a checkpoint.
    """
    if given is not None and checkpoint is None:
        source, loaded = given.name_or_path, torch.nn.Module.to(given, dtype)
    else:
        source = str(checkpoint or models.resolve(model.path))
        try:
            loaded = kind.from_pretrained(
                source, revision=None if checkpoint else model.revision, dtype=dtype, **settings
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"model.path: no {name} could be loaded from {source!r}: {first_sentence(error)}"
            ) from error
    if adapted_layers(loaded):  # transformers loads an adapter of the hub onto its model
        raise UserError(
            f"model.path: {source} holds a PEFT adapter and no whole model: merge it into its model first "
            f"(docs/lora.md)."
        )
    disable_dropout(loaded)
    if model.gradient_checkpointing:
        # transformers 5.23 has a new name for it; 5.17 has only the old one.
        enable = (
            getattr(loaded, "activation_checkpointing_enable", None) or loaded.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
        loaded.train()  # transformers recomputes activations in training mode only
    return loaded


def first_sentence(error: Exception) -> str:
    """The first line of an error of another library: the rest is advice about that library's own options."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def disable_dropout(policy: PreTrainedModel) -> None:
    """No dropout in the policy: the sampler has none, and the distribution that is trained must be the one
    that was sampled.
    """
    for module in policy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module.__dict__.get("attention_dropout"), float):
            module.__dict__["attention_dropout"] = 0.0  # a plain number that attention functions read
