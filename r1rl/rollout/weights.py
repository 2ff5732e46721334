"""The weights that a rollout reads: the policy's own, or a copy refreshed in place, in another precision or
with merged adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from r1rl.attention.steady import steady_attention
from r1rl.models.lora import adapted_layers, adapted_weight
from r1rl.policy.copies import convert_copy, duplicate


class RolloutWeights:
    """A model to sample from, which leaves the policy as it was.

    If the policy computes in the rollout's precision already, its own modules run and nothing is ever
    synchronized. Otherwise there is one copy of the parameters: for float32 master weights and a bfloat16
    rollout, a sharded policy, or one that changes while it is sampled from. Buffers keep their precision,
    since rounding rotary frequencies would move the positions.

    The copy of a policy with adapters (`r1rl.models.lora`) is a plain model, with W + scale B A in the place
    of each adapted layer. The engines run it as fast as any other, and their captured steps stay valid.
    Frozen weights without an adapter are the policy's own in the rollout's precision, so the copy takes the
    memory of the adapted matrices only.
    """

    def __init__(
        self, policy: PreTrainedModel, dtype: torch.dtype | None = None, own_copy: bool = False
    ) -> None:
        """Prepare the weights of a policy for sampling.

        `dtype` None is bfloat16 for float32 weights on a GPU, and the weights' own precision otherwise.
        `own_copy` says that the policy's parameters can't be read while sampling, because they will be
        sharded over processes, or change meanwhile. Frozen weights of a policy with adapters stay shared.
        """
        self.policy = policy
        parameter: torch.Tensor = next(policy.parameters())
        if dtype is None:
            dtype = (
                torch.bfloat16
                if parameter.device.type == "cuda" and parameter.dtype is torch.float32
                else parameter.dtype
            )
        self.dtype = dtype
        self.device = parameter.device
        self.merged: list[tuple[Any, Any]] = []
        """Each adapted layer of the policy, and the plain one of the copy."""
        other_precision = any(p.is_floating_point() and p.dtype is not dtype for p in policy.parameters())
        self.is_copy = own_copy or other_precision or bool(adapted_layers(policy))
        if adapted_layers(policy):
            self.model, self.merged = plain_copy(policy, dtype)
            self.refresh()
        else:
            self.model = convert_copy(policy, dtype) if self.is_copy else policy

    @property
    def input_vocabulary(self) -> int:
        """Rows of the embedding: token ids below it can be fed."""
        embedding: Any = self.model.get_input_embeddings()
        return embedding.weight.shape[0]

    @property
    def output_vocabulary(self) -> int:
        """Width of the logits."""
        head: Any = self.model.get_output_embeddings()
        return head.weight.shape[0]

    def addresses(self) -> tuple[int, ...]:
        """Return the addresses of parameters and buffers; steps that were captured with them are void if they
        change.
        """
        return tuple(tensor.data_ptr() for tensor in (*self.model.parameters(), *self.model.buffers()))

    def refresh(self) -> None:
        """Bring the copy up to date with the policy. This does nothing if the policy's own weights are
        read.
        """
        if not self.is_copy:
            return
        with torch.no_grad():
            if self.merged:  # nothing else changes
                for adapted, plain in self.merged:
                    plain.weight.copy_(adapted_weight(adapted))
            elif any(isinstance(parameter, DTensor) for parameter in self.policy.parameters()):
                # One parameter at a time is gathered: the whole float32 policy need not fit beside the copy.
                for mine, sharded in zip(self.model.parameters(), self.policy.parameters(), strict=True):
                    mine.copy_(sharded.full_tensor() if isinstance(sharded, DTensor) else sharded)
            else:
                torch._foreach_copy_(list(self.model.parameters()), list(self.policy.parameters()))
            for buffer, source in zip(self.model.buffers(), self.policy.buffers(), strict=True):
                buffer.copy_(source)

    @contextmanager
    def borrowed(self, attention: str | None = None) -> Iterator[PreTrainedModel]:
        """Give the model in eval mode, in inference mode and without autocast, and restore its state
        afterwards.

        `attention` names another attention function for that time.
        """
        config = self.model.config
        training = [module for module in self.model.modules() if module.training]
        implementation = config._attn_implementation
        for module in training:
            module.training = False
        if attention is not None:
            config._attn_implementation = attention
        try:
            # inference_mode takes a tenth off the cost of launching small operations, where no_grad would do.
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), steady_attention():
                yield self.model
        finally:
            with torch.inference_mode(False):
                release_inference_buffers(self.model)
            if attention is not None:
                config._attn_implementation = implementation
            for module in training:
                module.training = True


def release_inference_buffers(model: PreTrainedModel) -> None:
    """Replace buffers that a forward made in inference mode (dynamic rotary frequencies), which training
    could not use.
    """
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_inference():
                module._buffers[name] = buffer.clone()


def plain_copy(policy: PreTrainedModel, dtype: torch.dtype) -> tuple[PreTrainedModel, list[tuple[Any, Any]]]:
    """Return a copy without adapters, and each adapted layer beside the plain layer in its place.

    The weight of such a plain layer is its own. The other parameters are the policy's if they have `dtype`
    already; nobody trains them.
    """
    replaced: dict[int, object] = {}
    merged = []
    with torch.inference_mode(False), torch.no_grad():
        layers = list(adapted_layers(policy).values())
        for weight in (layer.base_layer.weight for layer in layers):
            replaced[id(weight)] = torch.nn.Parameter(
                torch.empty_like(weight, dtype=dtype), requires_grad=False
            )
        for parameter in (parameter for parameter in policy.parameters() if id(parameter) not in replaced):
            same = parameter.dtype is dtype or not parameter.is_floating_point()
            replaced[id(parameter)] = (
                parameter if same else torch.nn.Parameter(parameter.to(dtype), requires_grad=False)
            )
        for layer in layers:
            plain = copy.deepcopy(layer.base_layer, replaced)
            replaced[id(layer)] = plain
            merged.append((layer, plain))
    model = duplicate(policy, replaced)
    del model.peft_config
    return model, merged
