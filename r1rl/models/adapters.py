"""PEFT adapters: what is in a folder or hub repository with adapter_config.json, merged into the model that
it was trained on.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils.hub import cached_file, extract_commit_hash
from transformers.utils.peft_utils import find_adapter_config_file

from r1rl.errors import RecipeError, UserError
from r1rl.models import ADAPTER_CONFIG
from r1rl.models.lora import open_adapter

EXTRA = "peft"
"""The optional dependency, which is called like the package."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter and the model that it belongs to."""

    path: str
    """Its folder or hub name."""
    revision: str | None
    base: str
    """The folder or hub name of the model, as the adapter's own configuration or the recipe has it."""
    base_revision: str | None
    commit: str | None
    """The hub commit of the adapter; None for a folder."""
    has_tokenizer: bool
    """A flag, true if a tokenizer was saved with the adapter, which then is the one to use."""


def find_adapter(path: str, revision: str | None, base: str | None, key: str) -> Adapter | None:
    """Return the adapter in a folder or hub repository; None if there is none, or if the whole model is
    there.

    `base` replaces the model that the adapter's configuration names; `key` is the recipe's, for messages.
    Raises RecipeError if the configuration names no model or can't be read, and if peft is not installed.
    """
    found = find_adapter_config_file(path, revision=revision)
    if found is None or _holds(path, revision, "config.json"):
        return None
    try:
        content = json.loads(Path(found).read_text(encoding="utf-8"))
        named, named_revision = content.get("base_model_name_or_path"), content.get("revision")
    except (OSError, ValueError, AttributeError) as error:
        raise RecipeError(
            f"{key}.path: {path} holds a PEFT adapter whose {ADAPTER_CONFIG} can't be read ({error})."
        ) from error
    if not (base or named):
        raise RecipeError(
            f"{key}.path: {path} holds a PEFT adapter, but its {ADAPTER_CONFIG} names no model: write "
            f"{key}.base."
        )
    if importlib.util.find_spec(EXTRA) is None:
        raise RecipeError(
            f"{key}.path: {path} holds a PEFT adapter, and peft is not installed: pip install "
            f"'r1rl[{EXTRA}]'."
        )
    return Adapter(
        path=path,
        revision=revision,
        base=base or str(named),
        base_revision=None if base else named_revision,
        commit=None if Path(path).is_dir() else extract_commit_hash(found, None),
        has_tokenizer=_holds(path, revision, "tokenizer_config.json"),
    )


def merge_adapter(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """Return the model with the adapter's weights added to its own, in the model's precision.

    Raises UserError for an adapter of another model, and for one that can't be merged (prompt tuning and the
    like).
    """
    whose = f"models: the adapter {adapter.path}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error below
            wrapped = open_adapter(model, adapter.path, adapter.revision)
        # The same weights again: only this call tells which of them found no place.
        loaded = wrapped.load_adapter(adapter.path, wrapped.active_adapter, revision=adapter.revision)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{whose} can't be loaded onto {adapter.base}: {_beginning(error)}") from error
    if not hasattr(wrapped.base_model, "merge_and_unload"):
        kind = wrapped.peft_config[wrapped.active_adapter].peft_type
        raise UserError(f"{whose} is of a kind ({kind}) that can't be merged into its model.")
    lost = [*loaded.missing_keys, *loaded.unexpected_keys]
    if lost:
        raise UserError(
            f"{whose} does not fit {adapter.base}: {len(lost)} of its weights have no counterpart, such as "
            f"{lost[0]}."
        )
    try:
        return wrapped.merge_and_unload(safe_merge=True)
    except ValueError as error:  # NaNs
        raise UserError(f"{whose} can't be merged into {adapter.base}: {_beginning(error)}") from error


def _holds(path: str, revision: str | None, file: str) -> bool:
    if Path(path).is_dir():
        return (Path(path) / file).is_file()
    found = cached_file(
        path,
        file,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found is not None


def _beginning(error: Exception) -> str:
    """Return the first two lines of a message: torch's errors about sizes say something in the second line
    only.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()[:2]]
    return " ".join(lines) or type(error).__name__
