"""The launch that a recipe is meant for: from the remarks at its top, or from the command line."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import yaml

from r1rl.config.bundled import find_recipe
from r1rl.errors import RecipeError, UserError
from r1rl.memory.work import Launch

ACCELERATE = re.compile(r"accelerate launch (.*?)-m r1rl")
HARDWARE = re.compile(r"^# Hardware\s+(.*)$", re.MULTILINE)
ANY_GPU = re.compile(r"GPU|\b[ABH]\d00\b")


def find_launch(recipe_path: Path, gpus: str | None, accelerate: str | None) -> tuple[Launch, str]:
    """Return the launch and where it comes from, in words. Flags come before the recipe's header; without
    either it is one GPU.

    Raises UserError for a number of GPUs or a configuration that can't be read.
    """
    header = recipe_path.read_text(encoding="utf-8").split("\nrun_name:")[0]
    launch, source = _from_header(header)
    if accelerate is not None:
        launch, source = _from_configuration(accelerate), f"as in {accelerate}"
    if gpus is not None:
        if not gpus.isdigit() or int(gpus) < 1:
            raise UserError(f"--gpus is {gpus}; it must be a whole number, at least 1.")
        launch = replace(launch, processes=int(gpus), on_gpu=True)
        source = f"--gpus {gpus}, {source}" if launch.sharded else f"--gpus {gpus}"
    return launch, source


def describe(launch: Launch) -> str:
    """Return a launch in words, such as "8 GPUs, FSDP2"."""
    if not launch.on_gpu:
        return "1 process on a CPU" if launch.processes == 1 else f"{launch.processes} processes on a CPU"
    if launch.processes == 1:
        return "1 GPU"
    return f"{launch.processes} GPUs, {'FSDP2' if launch.sharded else 'each with a whole model'}"


def _from_header(header: str) -> tuple[Launch, str]:
    hardware = HARDWARE.search(header)
    words = hardware[1] if hardware is not None else ""
    on_gpu = not words or ("no GPU" not in words and ANY_GPU.search(words) is not None)
    source = "the recipe's header" if hardware is not None else "the recipe's header names no hardware"
    command = ACCELERATE.search(header)
    if command is None:
        return Launch(on_gpu=on_gpu), source
    launch = Launch(on_gpu=on_gpu)
    options = iter(shlex.split(command[1]))
    for option in options:
        name, _, value = option.partition("=")
        if name == "--config_file":
            launch = _from_configuration(value or next(options))
        elif name == "--num_processes":
            launch = replace(launch, processes=int(value or next(options)))
        elif name == "--cpu":
            launch = replace(launch, on_gpu=False)
    return launch, source


def _from_configuration(file: str) -> Launch:
    path = find_recipe(file)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = str(content["distributed_type"])
        version = int((content.get("fsdp_config") or {}).get("fsdp_version", 1))
        processes = int(content["num_processes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"{path} is no accelerate configuration that says distributed_type and num_processes ({error})."
        ) from error
    if kind not in ("NO", "MULTI_GPU", "MULTI_CPU", "FSDP") or (kind == "FSDP" and version != 2):
        raise RecipeError(
            f"{path}: distributed_type is {kind}{' 1' if kind == 'FSDP' else ''}; r1rl trains with NO, "
            f"MULTI_GPU or FSDP2."
        )
    return Launch(
        processes, sharded=kind == "FSDP", on_gpu=kind != "MULTI_CPU" and not content.get("use_cpu")
    )
