"""The policy's forward made fast: compiled layers, and logprobs by kernels of our own.

torch.compile fuses the many small operations between a layer's matrix products. A layer is compiled once for
all shapes, in two parts: before and after its attention, which stays as it is. The layers are compiled in
place, so parameters keep their names; the rollout engine has layers of its own, since this needs bfloat16. On
a GPU in lower precision `r1rl.policy.logprob_kernel` passes over the logits once instead of a dozen times,
whether layers are compiled or not. Either is compared with the plain operations first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from r1rl.compute.graphs import describe
from r1rl.objective.sampling import Sampling
from r1rl.policy.layout import compare, packed_attention_in, probe
from r1rl.policy.logprobs import ChunkLogprobs, LogitHead, PolicyForward, chunk_logprobs
from r1rl.policy.packing import Layout


def wants_compiling(asked: bool | None, device: torch.device, dtype: torch.dtype, checkpointed: bool) -> bool:
    """What the recipe says; if it says nothing, where it pays and has been tried: on a GPU, in lower
    precision, without gradient checkpointing.
    """
    if asked is not None:
        return asked
    return device.type == "cuda" and dtype is not torch.float32 and not checkpointed


def compile_policy(policy: PolicyForward, layout: Layout, dtype: torch.dtype) -> str:
    """Compiles the forward and compares it with what it was; returns why it is left alone, or nothing.

    Raises whatever the comparison raises for lack of memory.
    """
    if dtype is torch.float32:
        return "The policy is not compiled: in float32 the rollout engine runs the same layers."
    if not layout.packed:
        return "The policy is not compiled: that needs packed sequences."
    model = policy.model
    layers = [
        module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())
    ]
    # A layer's numbers, as the scale of its adapters, are the same in all its calls: as inputs they would go
    # through code for the CPU.
    torch._dynamo.config.specialize_float = True
    with packed_attention_in(model):
        expected = probe(model, layout, dtype)
        hook = model.get_input_embeddings().register_forward_hook(ask_for_gradient)
        try:
            for layer in layers:
                layer.compile(dynamic=True)
            compare(probe(model, layout, dtype), expected, dtype)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler that is missing, a graph that it can't handle
            for layer in layers:
                layer._compiled_call_impl = None
            hook.remove()
            return f"The policy is not compiled: {describe(error)}"
    return ""


def ask_for_gradient(embedding: nn.Module, inputs: object, embedded: Tensor) -> None:
    """Where the embeddings are frozen, the first layer's input needs a gradient all the same: it is then the
    same code as the others, and not compiled once more.
    """
    if torch.is_grad_enabled() and not embedded.requires_grad:
        embedded.requires_grad_()


def uses_logprob_kernel(device: torch.device, dtype: torch.dtype, sampling: Sampling) -> bool:
    """Where the kernel pays: on a GPU in lower precision, for the softmax over the whole vocabulary."""
    return device.type == "cuda" and dtype is not torch.float32 and not sampling.truncates_vocabulary


def fuse_logprobs(policy: PolicyForward, dtype: torch.dtype) -> str:
    """Logprobs by the kernel, where it pays and gives what torch's operations give; returns why it is left
    out, or nothing.

    Raises whatever the comparison raises for lack of memory.
    """
    if not uses_logprob_kernel(policy.model.device, dtype, policy.sampling):
        return ""
    try:
        from r1rl.policy.logprob_kernel import fused_chunk_logprobs

        generator = torch.Generator().manual_seed(0)
        hidden_ND = torch.randn(
            20, policy.model.config.get_text_config().hidden_size, generator=generator
        ).to(policy.model.device)
        found, plain = (
            probe_chunk(policy, compute, hidden_ND, dtype)
            for compute in (fused_chunk_logprobs, chunk_logprobs)
        )
        compare(found, plain, dtype, "logprobs")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton is missing, or can't compile for this GPU
        return f"Logprobs are computed without a kernel: {describe(error)}"
    policy.chunk_logprobs = fused_chunk_logprobs
    return ""


def probe_chunk(
    policy: PolicyForward, compute: ChunkLogprobs, hidden_ND: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Logprobs and entropies of these states, and the gradient with respect to the states."""
    hidden_ND = hidden_ND.detach().requires_grad_()
    targets_N = torch.arange(hidden_ND.shape[0], device=hidden_ND.device)
    with torch.enable_grad(), torch.autocast(hidden_ND.device.type, dtype=dtype):
        logprobs_N, entropy_N = compute(
            LogitHead(policy.model), hidden_ND, targets_N, policy.sampling, "value"
        )
        assert entropy_N is not None
        return torch.cat([logprobs_N, entropy_N]).detach(), torch.autograd.grad(logprobs_N.sum(), hidden_ND)[
            0
        ]
