"""LoRA: small trained matrices beside the frozen ones of a model (2106.09685, section 4.1), through PEFT.

    h = W x + scale B A x,      scale = alpha / rank
    A [rank, in] is drawn at random; B [out, rank] is zero at the start

Only this module imports PEFT. Adapters are put into the model in place, so it stays the class of transformers
that it was. W keeps its precision and is never written to; A and B are float32. Nothing is ever merged into
the policy: a rollout has a copy of its own (`r1rl.rollout.weights`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from r1rl.config.schema import LoRAConfig
from r1rl.errors import UserError
from r1rl.models import ADAPTER_CONFIG

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""The beginning that PEFT gives to the names of an adapter's weights in a file."""
NAME = "default"
"""PEFT's name of a model's only adapter."""


def adapted_linears(model: PreTrainedModel, config: LoRAConfig) -> dict[str, nn.Module]:
    """Return the linear layers that get an adapter, by name: those of the decoder that `target_modules`
    names, all of them if it is empty.

    Raises UserError for a name that fits none. The model may be on the "meta" device.
    """
    decoder = set(model.get_decoder().modules())
    linears: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if module in decoder and isinstance(module, (nn.Linear, Conv1D))
    }
    chosen: dict[str, nn.Module] = {}
    for target in config.target_modules:
        fitting = {name: module for name, module in linears.items() if f".{name}".endswith(f".{target}")}
        if not fitting:
            raise UserError(
                f"model.lora.target_modules names {target}, which is no linear layer of "
                f"{type(model).__name__}'s decoder; "
                f"these are: {', '.join(last_names(linears))}. Leave the list empty for all of them."
            )
        chosen |= fitting
    return chosen or linears


def last_names(linears: dict[str, nn.Module]) -> list[str]:
    """Return the last parts of the layers' names, each once, such as q_proj and k_proj."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in linears))


def add_adapters(
    model: PreTrainedModel, config: LoRAConfig, base: str, revision: str | None, seed: int
) -> None:
    """Put adapters into the model in place and freeze everything else; the model computes what it did, since
    B is zero.

    `base`: the path or hub name that a saved adapter names as its model. A is drawn from `seed`; torch's
    random state stays as it is. Raises UserError for targets that the model does not have and for layers that
    PEFT can't adapt.
    """
    from peft import LoraConfig, inject_adapter_in_model

    linears = adapted_linears(model, config)
    targets = sorted(config.target_modules or last_names(linears))
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        revision=revision,
    )
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="fan_in_fan_out is set to False"
            )  # of GPT-2's layers; PEFT then sets it
            torch.manual_seed(seed)
            inject_adapter_in_model(settings, model, NAME)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"model.lora: PEFT can't adapt {type(model).__name__}: {str(error).splitlines()[0]}"
        ) from error
    found = adapted_layers(model)
    if found.keys() != linears.keys():
        outside = next(iter(found.keys() ^ linears.keys()))
        raise UserError(
            f"model.lora.target_modules also fits {outside}, outside of the decoder: write longer names."
        )
    injected: Any = model
    injected.peft_config[
        NAME
    ].target_modules = targets  # PEFT makes a set of them, which would be saved in any order
    for layer in found.values():
        # Autocast chooses the precision; PEFT would first copy every input to float32.
        layer.cast_input_dtype_enabled = False
        for matrix in (layer.lora_A[NAME], layer.lora_B[NAME]):
            matrix.float()


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """Return the model's LoRA layers by name; PEFT is not looked at for a model without adapters."""
    if not hasattr(model, "peft_config"):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def adapted_weight(layer: Any) -> Tensor:
    """Return W + scale B A of a LoRA layer, in float32, laid out as W is."""
    weight: Tensor = layer.get_delta_weight(NAME)
    return weight.add_(layer.base_layer.weight)


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Run a block with the model as it was before it got adapters; afterwards they are there again and
    trained as before.
    """
    layers = adapted_layers(model).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapter(model: PreTrainedModel, weights: dict[str, Tensor], folder: Path) -> None:
    """Write the adapter as PEFT's `save_pretrained` would: its configuration and its float32 weights.
    `weights`: the model's.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    held: Any = model
    adapter = get_peft_model_state_dict(
        model, weights, NAME, save_embedding_layers=False
    )  # "auto" asks the hub
    contiguous = {f"{PREFIX}{name}": tensor.detach().cpu().contiguous() for name, tensor in adapter.items()}
    save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
    settings = held.peft_config[NAME]
    trains, settings.inference_mode = settings.inference_mode, True
    settings.save_pretrained(str(folder))
    settings.inference_mode = trains


def load_adapter_weights(model: PreTrainedModel, folder: Path, base: str) -> None:
    """Give the model's adapters the values that `save_adapter` wrote; `base` is what this model is called.

    Raises UserError if the folder holds no adapter, one of another model or one of another shape.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{folder} holds no adapter, but the recipe has model.lora: go on with the recipe that the run "
            f"began with."
        )
    owner = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    if owner != base:
        raise UserError(
            f"model.path: the adapter in {folder} belongs to {owner}, and this is {base}: go on with "
            f"model.path={owner}."
        )
    saved = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(path).items()}
    advice = "go on with the rank and target_modules that the run began with."
    try:
        result: Any = set_peft_model_state_dict(model, saved, NAME)
    except RuntimeError as error:  # shapes
        raise UserError(f"model.lora: the adapter in {folder} has other shapes: {advice}") from error
    lost = [*result.unexpected_keys, *(name for name in result.missing_keys if ".lora_" in name)]
    if lost:
        raise UserError(
            f"model.lora: {len(lost)} weights of the adapter in {folder} have no counterpart, such as "
            f"{lost[0]}: {advice}"
        )


def open_adapter(model: PreTrainedModel, path: str, revision: str | None) -> Any:
    """Wrap PEFT's model around this one, with any kind of adapter from a folder or the hub. Raises what PEFT
    raises.
    """
    from peft import PeftModel

    return PeftModel.from_pretrained(model, path, revision=revision)
