"""Linear layers that read the same input as one matrix product: queries, keys and values, or gate and up.

In a decode step each product reads its weights once and computes little; launching it, and filling the GPU
with it, is what it costs. The weights of such layers are laid side by side in one tensor, of which each
layer's own weight stays a view: copying new weights into the model changes both. This is for a model that the
engine owns, a copy in the rollout's precision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel


@dataclass(eq=False)
class Together:
    """A group of layers that are computed at once, by the first of them; each takes its part when its turn
    comes.
    """

    weight: Tensor
    bias: Tensor | None
    sizes: list[int]
    parts: list[Tensor] = field(default_factory=list)


class LinearPart(nn.Linear):
    """A layer of a group. Its `forward` is to be called in the group's order, with the same input."""

    together: Together
    place: int

    def forward(self, input: Tensor) -> Tensor:
        """Return this layer's part of the group's product."""
        if self.place == 0:
            self.together.parts = list(
                linear(input, self.together.weight, self.together.bias).split(self.together.sizes, -1)
            )
        part = self.together.parts[self.place]
        if self.place + 1 == len(self.together.sizes):
            self.together.parts = []
        return part


def fuse_linears(model: PreTrainedModel, policy: PreTrainedModel) -> int:
    """Join the layers that a forward pass of the model shows to read the same input; return the number of
    groups.

    Layers whose weight is the policy's own are left alone. Call it in inference mode.
    """
    foreign = {id(parameter) for parameter in policy.parameters()}
    groups = [
        group for group in find_groups(model) if not any(id(layer.weight) in foreign for layer in group)
    ]
    for group in groups:
        join(group)
    return len(groups)


def find_groups(model: PreTrainedModel) -> list[list[nn.Linear]]:
    """Find layers that are called once each with the very same tensor, one right after the other."""
    calls: list[tuple[nn.Linear, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(module, nn.Linear)
        calls.append((module, inputs[0]))

    candidates = [
        module for module in model.modules() if type(module) is nn.Linear and not module._forward_pre_hooks
    ]
    hooks = [module.register_forward_pre_hook(note) for module in candidates]
    try:
        model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    groups: list[list[nn.Linear]] = []
    previous: Tensor | None = None
    for module, given in calls:
        if given is not previous or not alike(groups[-1][0], module):
            groups.append([])
        groups[-1].append(module)
        previous = given
    seen = [module for module, _ in calls]
    return [group for group in groups if len(group) > 1 and all(seen.count(module) == 1 for module in group)]


def alike(first: nn.Linear, second: nn.Linear) -> bool:
    """Return true if the two can be one layer."""
    return first.weight.dtype is second.weight.dtype and (first.bias is None) == (second.bias is None)


def join(group: list[nn.Linear]) -> None:
    """Lay the weights side by side, and make the layers parts of one."""
    with torch.inference_mode(False), torch.no_grad():
        weight = torch.cat([layer.weight.detach() for layer in group])
        biases = [layer.bias.detach() for layer in group if layer.bias is not None]
        bias = torch.cat(biases) if biases else None
        sizes = [layer.out_features for layer in group]
        together = Together(weight, bias, sizes)
        for place, layer in enumerate(group):
            layer.weight.data = weight.split(sizes)[place]
            if bias is not None:
                layer.bias.data = bias.split(sizes)[place]
            layer.__class__ = LinearPart
            assert isinstance(layer, LinearPart)
            layer.together, layer.place = together, place
