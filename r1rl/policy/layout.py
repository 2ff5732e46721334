"""The choice between packed and padded sequences, made once per run by a trial.

Packing replaces the model's attention (`r1rl.attention.packed`), which not every architecture allows and not
every machine has a kernel for. So a few short sequences are computed packed, forward and backward, on the
device and in the precision of the run, and judged by the criterion of `r1rl.compute.trials`. The plain way is
the padded forward; the reference is the same without autocast, from the float32 weights. Where no kernel
passes, sequences are padded and the run says why.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.attention.packed import PACKED_ATTENTION, register_packed_attention
from r1rl.attention.varlen import VarlenKernel
from r1rl.compute.distributed import max_over_processes
from r1rl.compute.trials import Comparison, DifferentResult, Part, run_trial
from r1rl.config.schema import UpdateConfig
from r1rl.errors import UserError
from r1rl.policy.costs import PassCosts
from r1rl.policy.packing import Layout
from r1rl.policy.probe import PolicyProbe, evaluating

VARLEN_FUNCTIONS = (
    ("FlashAttention 3", "flash_attn_interface", "flash_attn_varlen_func"),
    ("torch's varlen_attn", "torch.nn.attention.varlen", "varlen_attn"),
    ("FlashAttention 2", "flash_attn", "flash_attn_varlen_func"),
)
"""Functions for packed attention, the fastest first. They need a GPU and half precision."""
PACKED = Part("packed sequences", "Sequences are padded", "an update takes about 1.7 times as long")


@contextmanager
def packed_attention_in(*models: PreTrainedModel) -> Iterator[None]:
    """Let these models take plans of packed sequences in here, in forward passes and in recomputation."""
    before = [model.config._attn_implementation for model in models]
    for model in models:
        model.config._attn_implementation = PACKED_ATTENTION
    try:
        yield
    finally:
        for model, implementation in zip(models, before, strict=True):
            model.config._attn_implementation = implementation


def choose_layout(
    model: PreTrainedModel,
    config: UpdateConfig,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Layout:
    """Return the layout for this model on the device where it is, computing in `dtype`.

    With a `tokenizer` packing is tried on text as well as on random tokens. Raises UserError if the recipe
    asks for packing and it doesn't work.
    """
    costs = PassCosts.of(model)
    padded = Layout(packed=False, shares_prompts=False, costs=costs)
    if config.layout == "padded":
        return padded
    probe = PolicyProbe(model, dtype, tokenizer)
    trials, reasons = [], []
    for kernel in available_kernels(model.device, dtype):
        layout = Layout(packed=True, shares_prompts=config.share_prompts, costs=costs, kernel=kernel)
        trial = run_trial(packing_by(kernel), partial(judge_packing, probe, layout))
        trials.append(trial)
        if trial.accepted:
            return replace(layout, trials=tuple(trials))
        reasons.append(f"with {kernel.name if kernel else 'scaled_dot_product_attention'}, {trial.reason}")
    reason = (
        f"Sequences are padded, because {type(model).__name__} can't compute them packed "
        f"({'; '.join(reasons)})."
    )
    if config.layout == "packed":
        raise UserError(f"update.layout: packed is asked for. {reason} Use layout: auto.")
    return replace(padded, reason=reason, trials=tuple(trials))


def packing_by(kernel: VarlenKernel | None) -> Part:
    """Return the part that is tried with this kernel.

    Rectangles (None) come last: without them there is no packing.
    """
    if kernel is None:
        return PACKED
    return Part(f"packed attention by {kernel.name}", f"Packed attention is not computed by {kernel.name}")


def available_kernels(device: torch.device, dtype: torch.dtype) -> list[VarlenKernel | None]:
    """Return what can compute packed attention here, the fastest first.

    The last is None, for rectangles, which always can.
    """
    kernels: list[VarlenKernel | None] = []
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        for name, module, function in VARLEN_FUNCTIONS:
            try:
                found = getattr(importlib.import_module(module), function)
            except (ImportError, AttributeError, OSError, RuntimeError):
                continue
            kernels.append(varlen_kernel(name, found))
    return [*kernels, None]


def varlen_kernel(name: str, function: Callable[..., object]) -> VarlenKernel:
    """Return the kernel with what its signature says that this version can do.

    FlashAttention groups heads without being told.
    """
    keywords = frozenset(inspect.signature(function).parameters)
    return VarlenKernel(name, function, keywords, groups_heads="causal" in keywords)


def judge_packing(probe: PolicyProbe, layout: Layout) -> list[Comparison]:
    """Compare hidden states and gradients of packed sequences with those of padded ones.

    Raises DifferentResult if the model's attention can't be replaced at all.
    """
    model = probe.model
    if not getattr(model, "_supports_attention_backend", False):
        raise DifferentResult("transformers doesn't let its attention be replaced")
    register_packed_attention()
    standard = probe.standard  # with the model's own attention
    with evaluating(model), packed_attention_in(model):
        return standard.compare(probe.outputs(layout, probe.dtype))


def agreed_layout(accelerator: Accelerator, own: Layout) -> Layout:
    """Return a layout that is packed where every process can pack, so that all make the same passes."""
    some_pad = max_over_processes(accelerator, int(not own.packed))
    if own.packed and some_pad:
        refused = PACKED.refused("another process can't pack them")
        return replace(
            own,
            packed=False,
            shares_prompts=False,
            reason="Sequences are padded, because another process can't pack them.",
            trials=(*own.trials, refused),
        )
    return own
