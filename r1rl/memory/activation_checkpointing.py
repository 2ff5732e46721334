"""The choice of a run to recompute its activations, where the recipe leaves it to the memory of the GPU
(`model.gradient_checkpointing: null`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from accelerate import Accelerator

from r1rl.compute.distributed import from_main_process, is_sharded
from r1rl.memory.estimate import NotEstimated, estimate
from r1rl.memory.work import Launch
from r1rl.rollout.native.memory import total_bytes

Recipe = TypeVar("Recipe", bound=Any)


def settle_checkpointing(recipe: Recipe, accelerator: Accelerator) -> tuple[Recipe, list[str]]:
    """Return the recipe with `model.gradient_checkpointing` true or false, the same in every process, and a
    sentence where it was turned on.
    """
    if recipe.model.gradient_checkpointing is not None:
        return recipe, []
    recomputes, sentences = from_main_process(accelerator, lambda: _decide(recipe, accelerator))
    return replace(recipe, model=replace(recipe.model, gradient_checkpointing=recomputes)), sentences


def _decide(recipe: Any, accelerator: Accelerator) -> tuple[bool, list[str]]:
    if accelerator.device.type != "cuda":
        return False, []
    launch = Launch(
        accelerator.num_processes, is_sharded(accelerator), card_bytes=total_bytes(accelerator.device)
    )
    try:
        found = estimate(recipe, launch, None, None)
    except NotEstimated:  # whoever loads the model says so
        return False, []
    assert found is not None  # a recipe that trains has a model
    return found.work.gradient_checkpointing, [
        f"{found.decided[0].upper()}{found.decided[1:]}."
    ] if found.decided else []
