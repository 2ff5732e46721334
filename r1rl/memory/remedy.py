"""The advice for a recipe that needs more memory than a GPU has."""

from __future__ import annotations

from dataclasses import replace

from r1rl.memory.plan import MemoryPlan, plan_memory
from r1rl.memory.work import GB, Launch, ModelShape, Work


def remedy(shape: ModelShape, launch: Launch, work: Work, keys: dict[str, str]) -> str:
    """Return the single change that helps most, in words: the first that makes it fit, of those that cost
    least. Empty if none is known.

    `keys`: the recipe's names of the settings update_tokens, logit_tokens and gradient_checkpointing.
    """
    plan = plan_memory(shape, launch, work)
    options: list[tuple[str, MemoryPlan]] = []
    if "logit_tokens" in keys and work.logit_tokens > 1024:
        options.append(
            (f"{keys['logit_tokens']}: 1024", plan_memory(shape, launch, replace(work, logit_tokens=1024)))
        )
    if "update_tokens" in keys and work.update_tokens > work.length > 0:
        fitting = _fitting_tokens(shape, launch, work)
        options.append(
            (
                f"{keys['update_tokens']}: {fitting}",
                plan_memory(shape, launch, replace(work, update_tokens=fitting)),
            )
        )
    if "gradient_checkpointing" in keys and not work.gradient_checkpointing and work.trains:
        changed = plan_memory(shape, launch, replace(work, gradient_checkpointing=True, compiled=False))
        options.append((f"{keys['gradient_checkpointing']}: true", changed))
    if work.trains and not launch.sharded and work.adapters is None:
        processes = max(launch.processes, 8)
        sharded = plan_memory(shape, replace(launch, processes=processes, sharded=True), work)
        options.append((f"recipes/accelerate/fsdp2.yaml on {processes} GPUs", sharded))
    options += [
        (f"{processes} GPUs", plan_memory(shape, replace(launch, processes=processes), work))
        for processes in _more(launch, work)
    ]
    useful = [(words, changed) for words, changed in options if changed.total < plan.total]
    if not useful:
        return ""
    words, changed = next(
        (pair for pair in useful if pair[1].fits), min(useful, key=lambda pair: pair[1].total)
    )
    doubt = "" if changed.fits else ", which is still too much"
    return f"{words} would make it {changed.total / GB:.1f} GB{doubt}"


def _more(launch: Launch, work: Work) -> list[int]:
    """Return larger numbers of GPUs, which help where the training state is shared out."""
    return [launch.processes * factor for factor in (2, 4)] if launch.sharded and work.trains else []


def _fitting_tokens(shape: ModelShape, launch: Launch, work: Work) -> int:
    """Return the largest power of two of tokens in a micro-batch that fits, at least one row's length."""
    tokens = (1 << (work.update_tokens - 1).bit_length()) // 2
    while tokens > work.length and not plan_memory(shape, launch, replace(work, update_tokens=tokens)).fits:
        tokens //= 2
    return max(tokens, work.length)
