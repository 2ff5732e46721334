"""The choice between packed and padded sequences, made once per run by comparing the two.

Packing replaces the model's attention (`r1rl.attention.packed`), which not every architecture allows and not
every machine has a kernel for. So a few short sequences are computed both ways, forward and backward, on the
device and in the precision of the run. Where the results differ, or anything raises, sequences are padded and
the run says why.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from r1rl.attention.packed import PACKED_ATTENTION, register_packed_attention
from r1rl.attention.varlen import VarlenKernel
from r1rl.compute.distributed import max_over_processes
from r1rl.config.schema import UpdateConfig
from r1rl.errors import UserError
from r1rl.policy.batching import MicroBatch, build_train_batch, move
from r1rl.policy.costs import PassCosts
from r1rl.policy.logprobs import hidden_states
from r1rl.policy.packing import Layout, make_micro_batches
from r1rl.types import Completion, FinishReason

VARLEN_FUNCTIONS = (
    ("FlashAttention 3", "flash_attn_interface", "flash_attn_varlen_func"),
    ("torch's varlen_attn", "torch.nn.attention.varlen", "varlen_attn"),
    ("FlashAttention 2", "flash_attn", "flash_attn_varlen_func"),
)
"""The fastest first. They need a GPU and half precision."""


class DifferentResult(Exception):
    """The packed forward doesn't give what the plain one gives; the message completes "sequences are padded:
    ...".
    """


@contextmanager
def packed_attention_in(*models: PreTrainedModel) -> Iterator[None]:
    """Within it these models take plans of packed sequences, in forward passes and in recomputation; then
    they are as before.
    """
    before = [model.config._attn_implementation for model in models]
    for model in models:
        model.config._attn_implementation = PACKED_ATTENTION
    try:
        yield
    finally:
        for model, implementation in zip(models, before, strict=True):
            model.config._attn_implementation = implementation


def choose_layout(model: PreTrainedModel, config: UpdateConfig, dtype: torch.dtype) -> Layout:
    """The layout for this model on the device where it is, computing in `dtype`.

    Raises UserError if the recipe asks for packing and it doesn't work.
    """
    costs = PassCosts.of(model)
    if config.layout == "padded":
        return Layout(packed=False, shares_prompts=False, costs=costs)
    reasons = []
    for kernel in available_kernels(model.device, dtype):
        layout = Layout(packed=True, shares_prompts=config.share_prompts, costs=costs, kernel=kernel)
        try:
            compare_with_plain(model, layout, dtype)
            return layout
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model's code or a kernel raises says that it doesn't fit
            first_line = (str(error).strip().splitlines() or ["no message"])[0]
            message = (
                first_line if isinstance(error, DifferentResult) else f"{type(error).__name__}: {first_line}"
            )
            reasons.append(f"with {kernel.name if kernel else 'scaled_dot_product_attention'}, {message}")
    reason = f"Sequences are padded, because {type(model).__name__} can't compute them packed ({'; '.join(reasons)})."
    if config.layout == "packed":
        raise UserError(f"update.layout: packed is asked for. {reason} Use layout: auto.")
    return Layout(packed=False, shares_prompts=False, costs=costs, reason=reason)


def available_kernels(device: torch.device, dtype: torch.dtype) -> list[VarlenKernel | None]:
    """What can compute packed attention here, the fastest first; None stands for rectangles, which always
    can.
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


def varlen_kernel(name: str, function: Callable[..., Any]) -> VarlenKernel:
    """The kernel with what its signature says that this version can do; FlashAttention groups heads without
    being told.
    """
    keywords = frozenset(inspect.signature(function).parameters)
    return VarlenKernel(name, function, keywords, groups_heads="causal" in keywords)


def compare_with_plain(model: PreTrainedModel, layout: Layout, dtype: torch.dtype) -> None:
    """Raises DifferentResult if hidden states or gradients of packed sequences are not those of padded ones.

    Tolerances: 1e-3 of the standard deviation in exact float32, a quarter of it in lower precision (a wrong
    mask or position moves values by about one); gradients by their norm.
    """
    if not getattr(model, "_supports_attention_backend", False):
        raise DifferentResult("transformers doesn't let its attention be replaced")
    register_packed_attention()
    was_training = model.training
    model.eval()
    try:
        expected, expected_gradient = probe(
            model, Layout(packed=False, shares_prompts=False, costs=layout.costs), dtype
        )
        with packed_attention_in(model):
            found, gradient = probe(model, layout, dtype)
    finally:
        model.train(was_training)
    compare((found, gradient), (expected, expected_gradient), dtype)


def compare(
    found: tuple[Tensor, Tensor],
    expected: tuple[Tensor, Tensor],
    dtype: torch.dtype,
    what: str = "hidden states",
) -> None:
    """Raises DifferentResult if two `probe`s, of hidden states or `what` else and their gradients, differ by
    more than rounding.
    """
    exact = dtype is torch.float32 and torch.get_float32_matmul_precision() == "highest"
    tolerance = 1e-3 if exact else 0.25
    difference = ((found[0] - expected[0]).abs().max() / expected[0].std()).item()
    if not difference <= tolerance:
        raise DifferentResult(
            f"{what} differ from the plain forward's by {difference:.2g} standard deviations"
        )
    difference = ((found[1] - expected[1]).norm() / expected[1].norm()).item()
    if not difference <= tolerance:
        raise DifferentResult(f"gradients differ from the plain forward's by {difference:.2g} of their norm")


def probe(model: PreTrainedModel, layout: Layout, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Hidden states that predict 19 tokens of 5 completions of 2 prompts, and a gradient that passed every
    layer.
    """
    prompt_lengths, lengths = [3, 5], [4, 1, 6, 5, 3]
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> list[int]:
        # Not the padding token: its embedding may be zero, and a norm of zero multiplies gradients a
        # thousandfold in each layer.
        embedding: Any = model.get_input_embeddings()
        ids = torch.randint(embedding.weight.shape[0] - 1, (length,), generator=generator)
        padding = getattr(embedding, "padding_idx", None)
        return (ids if padding is None else ids + (ids >= padding)).tolist()

    prompts = [draw(length) for length in prompt_lengths]
    tokens = [draw(length) for length in lengths]
    batch = build_train_batch(
        [prompts[place // 3] for place in range(5)],
        [Completion(ids, [], "", FinishReason.EOS) for ids in tokens],
        torch.zeros(5),
    )
    states, places = [], []
    with (
        torch.enable_grad(),
        torch.autocast(model.device.type, dtype=dtype, enabled=dtype is not torch.float32),
    ):
        for micro_batch in make_micro_batches(batch, range(5), layout, UpdateConfig()):
            states.append(predicting_states(model, move(micro_batch, model.device)))
            places.append(micro_batch.tokens_N)
        hidden_ND = torch.cat(states)[torch.cat(places).argsort().to(model.device)].float()
    directions_ND = torch.randn(hidden_ND.shape, generator=generator).to(hidden_ND.device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    small = [parameter for parameter in trainable if parameter.ndim < 2] or trainable
    gradients = torch.autograd.grad((hidden_ND * directions_ND).sum(), small, allow_unused=True)
    return hidden_ND.detach(), torch.cat(
        [gradient.flatten().float() for gradient in gradients if gradient is not None]
    )


def predicting_states(model: PreTrainedModel, micro_batch: MicroBatch) -> Tensor:
    """The hidden states [N, D] that predict the micro-batch's completion tokens."""
    hidden_RTD = hidden_states(model, micro_batch.input_ids_RT, micro_batch.positions_RT, micro_batch.plan)
    return hidden_RTD.flatten(0, 1).index_select(0, micro_batch.predictors_N)


def agreed_layout(accelerator: Accelerator, own: Layout) -> Layout:
    """Packed where every process can, so that all of them make the same passes."""
    some_pad = max_over_processes(accelerator, int(not own.packed))
    if own.packed and some_pad:
        return replace(
            own,
            packed=False,
            shares_prompts=False,
            reason="Sequences are padded, because another process can't pack them.",
        )
    return own
