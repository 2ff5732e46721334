"""The policy's forward made fast: compiled layers, and logprobs by kernels of our own.

torch.compile fuses the many small operations between a layer's matrix products. A layer is compiled once for
all shapes, in two parts: before and after its attention, which stays as it is. The layers are compiled in
place, so parameters keep their names; the rollout engine has layers of its own, since this needs bfloat16. On
a GPU in lower precision `r1rl.policy.logprob_kernel` passes over the logits once instead of a dozen times,
whether layers are compiled or not. Each is taken if it passes its trial (`r1rl.compute.trials`), whose record
is added to the policy's `trials`.

Legend: N completion tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from r1rl.compute.trials import Comparison, Outputs, Part, Standard, Trial, run_trial
from r1rl.objective.sampling import Sampling
from r1rl.policy.layout import packed_attention_in
from r1rl.policy.logprobs import ChunkLogprobs, LogitHead, PolicyForward, chunk_logprobs
from r1rl.policy.packing import Layout
from r1rl.policy.probe import PolicyProbe, evaluating, states_of

COMPILED = Part(
    "compiled layers of the policy", "The policy is not compiled", "an update takes about 1.4 times as long"
)
LOGPROB_KERNEL = Part(
    "kernel for logprobs", "Logprobs are computed without a kernel", "an update takes about 1.2 times as long"
)


def wants_compiling(asked: bool | None, device: torch.device, dtype: torch.dtype, checkpointed: bool) -> bool:
    """Return what the recipe says; if it says nothing, true where compiling pays and has been tried.

    That is on a GPU, in lower precision, without gradient checkpointing.
    """
    if asked is not None:
        return asked
    return device.type == "cuda" and dtype is not torch.float32 and not checkpointed


def compile_policy(
    policy: PolicyForward,
    layout: Layout,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Trial:
    """Compile the policy's layers, and leave them as they are if their trial refuses that; return its record.

    Raises OutOfMemoryError where memory is too short for the trial.
    """
    if dtype is torch.float32:
        trial = COMPILED.skipped("in float32 the rollout engine runs the same layers")
    elif not layout.packed:
        trial = COMPILED.skipped("that needs packed sequences")
    else:
        probe = PolicyProbe(policy.model, dtype, tokenizer)
        trial = run_trial(COMPILED, lambda: judge_compiled(probe, layout))
    policy.trials.append(trial)
    return trial


def judge_compiled(probe: PolicyProbe, layout: Layout) -> list[Comparison]:
    """Compile the layers in place and compare their results; undo it if the comparison fails or raises."""
    model, standard = probe.model, probe.standard
    layers = [
        module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())
    ]
    # A layer's numbers, as the scale of its adapters, are the same in all its calls: as inputs they would go
    # through code for the CPU.
    torch._dynamo.config.specialize_float = True
    hook = model.get_input_embeddings().register_forward_hook(ask_for_gradient)
    accepted = False
    try:
        for layer in layers:
            layer.compile(dynamic=True)
        with packed_attention_in(model):
            comparisons = standard.compare(probe.outputs(layout, probe.dtype))
        accepted = all(comparison.accepted for comparison in comparisons)
        return comparisons
    finally:
        if not accepted:
            for layer in layers:
                layer._compiled_call_impl = None
            hook.remove()


def ask_for_gradient(embedding: nn.Module, inputs: object, embedded: Tensor) -> None:
    """Make frozen embeddings' output ask for a gradient: the first layer is then the same code as the others,
    and not compiled once more.
    """
    if torch.is_grad_enabled() and not embedded.requires_grad:
        embedded.requires_grad_()


def uses_logprob_kernel(device: torch.device, dtype: torch.dtype, sampling: Sampling) -> bool:
    """Return true where the kernel pays: on a GPU in lower precision, for the softmax over all tokens."""
    return device.type == "cuda" and dtype is not torch.float32 and not sampling.truncates_vocabulary


def fuse_logprobs(
    policy: PolicyForward, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase | None = None
) -> Trial | None:
    """Compute logprobs by the kernel where it pays and passes its trial; return the record, or None.

    Call it before the policy is compiled, which would be compiled once more for it. Raises OutOfMemoryError
    where memory is too short for the trial.
    """
    if not uses_logprob_kernel(policy.model.device, dtype, policy.sampling):
        return None

    def judge() -> list[Comparison]:
        from r1rl.policy.logprob_kernel import fused_chunk_logprobs

        comparisons = judge_logprobs(
            policy, fused_chunk_logprobs, PolicyProbe(policy.model, dtype, tokenizer)
        )
        if all(comparison.accepted for comparison in comparisons):
            policy.chunk_logprobs = fused_chunk_logprobs
        return comparisons

    trial = run_trial(LOGPROB_KERNEL, judge)
    policy.trials.append(trial)
    return trial


def judge_logprobs(policy: PolicyForward, compute: ChunkLogprobs, probe: PolicyProbe) -> list[Comparison]:
    """Compare logprobs, entropies and gradients by `compute` with the plain ones, on the policy's states."""
    states: dict[str, tuple[Tensor, Tensor]] = {}
    for tokens, batch in probe.batches.items():
        with torch.no_grad(), evaluating(policy.model):
            states_ND = states_of(policy.model, probe.padded, batch, probe.dtype)
        states[tokens] = states_ND, batch.completion_ids_K.to(states_ND.device)
    standard = Standard(
        partial(logprob_outputs, policy, chunk_logprobs, states), policy.model.device, probe.dtype
    )
    return standard.compare(logprob_outputs(policy, compute, states, probe.dtype))


def logprob_outputs(
    policy: PolicyForward,
    compute: ChunkLogprobs,
    states: Mapping[str, tuple[Tensor, Tensor]],
    dtype: torch.dtype,
) -> Outputs:
    """Return logprobs and entropies [N, 1], and the states' gradient [N, D], for states [N, D] and targets
    [N].
    """
    found: dict[str, Tensor] = {}
    for tokens, (states_ND, targets_N) in states.items():
        states_ND = states_ND.detach().requires_grad_()
        low = dtype is not torch.float32
        with torch.enable_grad(), torch.autocast(states_ND.device.type, dtype=dtype, enabled=low):
            logprobs_N, entropy_N = compute(
                LogitHead(policy.model), states_ND, targets_N, policy.sampling, "value"
            )
            assert entropy_N is not None
            (gradient_ND,) = torch.autograd.grad(logprobs_N.sum(), states_ND)
        found |= {
            f"logprobs of {tokens}": logprobs_N.detach()[:, None],
            f"entropies of {tokens}": entropy_N.detach()[:, None],
            f"logprobs' gradients of {tokens}": gradient_ND,
        }
    return found
