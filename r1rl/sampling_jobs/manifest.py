"""Manifests of sampled completions: hashes of texts and weights, and what differs between two manifests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from r1rl.errors import UserError
from r1rl.models import ADAPTER_CONFIG
from r1rl.sampling_jobs.sample_log import PATTERN
from r1rl.sampling_jobs.targets import Target


def differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two mappings, a phrase each: "sampling.temperature: 0.6 and 1.0"."""
    found = []
    for key in dict.fromkeys([*first, *second]):
        one, other = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}: {one} and {other}")
    return found


def digest(texts: Any) -> str:
    """Return a short hash of texts and their order."""
    joined = hashlib.blake2b(digest_size=8)
    for text in texts:
        joined.update(text.encode("utf-8", errors="backslashreplace") + b"\0\n")
    return joined.hexdigest()


def model_weights(target: Target, commit: str | None) -> dict[str, Any]:
    """Return the version of the weights that were evaluated, as {"weights": version}. An adapter has its own
    version, and that of its model under "base".

    `commit` is the hub commit that the model was loaded from, None for a folder. A server does not tell.
    """
    if target.given is not None:
        return {"weights": _version_in_memory(target.given.model)}
    if target.config.endpoint is not None:
        return {"weights": "unknown: behind a server"}
    adapter = target.adapter
    if adapter is None:
        return {"weights": _version(target.path, commit)}
    base = {"path": target.path, "revision": target.revision, "weights": _version(target.path, commit)}
    return {"weights": _version(adapter.path, adapter.commit), "base": base}


def _version(path: str, commit: str | None) -> str:
    """Return the hub commit, or a hash of the weight files of a folder, an adapter's configuration included,
    which has the scale.
    """
    folder = Path(path)
    if not folder.is_dir():
        return f"commit {commit}"
    joined = hashlib.blake2b(digest_size=16)
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob(ADAPTER_CONFIG)]):
        with file.open("rb") as content:
            joined.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return joined.hexdigest()


def _version_in_memory(model: PreTrainedModel) -> str:
    """Return a hash of the names, types and values of all parameters."""
    joined = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        flat = parameter.detach().contiguous().view(-1).view(torch.uint8).cpu()
        joined.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        joined.update(flat.numpy().tobytes())
    return f"in memory {joined.hexdigest()}"


MANIFEST = "manifest.json"


def refuse_other_completions(
    folder: Path,
    logs: Path,
    manifest: Mapping[str, Any],
    compare: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]],
) -> None:
    """Raise UserError if the folder has completions that were sampled in another way than the manifest says.

    `logs` is the folder with the completions, and `compare(earlier, now)` lists what differs, a phrase each.
    """
    earlier = read_manifest(folder)
    has_completions = any(path.stat().st_size for path in logs.glob(PATTERN))
    reasons = compare(earlier, manifest) if earlier is not None and has_completions else []
    if reasons:
        listed = "\n".join(f"  {reason}" for reason in reasons)
        raise UserError(
            f"{folder} holds completions that were sampled in another way (then and now):\n{listed}\n"
            "Choose another run_name, or remove that folder."
        )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of completions that were sampled before; None if there are none."""
    path = folder / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
