"""Linear layers with few outputs as a batched product over parts of their inputs, and the sum of the parts.

    y = sum_s x_s W_s^T

Here x_s and W_s are the s-th of S equal shares of the inputs and of the weight's columns. In a decode step
such a product has too few tiles to fill a GPU. cuBLAS then splits it as well, but adds up the parts in a
kernel of its own. This sum is an operation like any other, and becomes part of what is compiled after it, a
residual and a norm.

Legend: R rows, S parts, K inputs, N outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from r1rl.rollout.native.fused import LinearPart

PARTS = 4
MOST_OUTPUTS = 2048
"""The outputs of the widest layer that is split.

Measured with 896 and 1,536 outputs: each product is faster at 16 to 128 rows, at 512 the two of a layer
together. Wide layers have tiles enough.
"""
ALIGNMENT = 8
"""The entries of a part that a tensor core reads at once, in bfloat16: parts are multiples of that."""


class SplitLinear(nn.Linear):
    """The layer without bias whose product is split where it gets one token of each row."""

    def forward(self, input: Tensor) -> Tensor:
        """Return [R, 1, N] for [R, 1, K]; anything else goes the usual way.

        Parts are added up in float32, as they are within a product.
        """
        if input.dim() != 3 or input.shape[1] != 1:
            return super().forward(input)
        input_SRK = input.reshape(input.shape[0], PARTS, -1).transpose(0, 1)
        weight_SKN = self.weight.view(self.out_features, PARTS, -1).permute(1, 2, 0)
        if input.is_cuda and input.dtype is not torch.float32:
            parts_SRN = torch.bmm(input_SRK, weight_SKN, out_dtype=torch.float32)
        else:
            parts_SRN = torch.bmm(input_SRK, weight_SKN)
        return parts_SRN.sum(0).to(input.dtype)[:, None]


def split_linears(model: PreTrainedModel) -> int:
    """Make the narrow layers of a model that the engine owns split ones; return how many.

    The weights stay as they are.
    """
    chosen = [module for module in model.modules() if type(module) is nn.Linear and is_narrow(module)]
    for module in chosen:
        module.__class__ = SplitLinear
    return len(chosen)


def separate_linears(model: PreTrainedModel) -> None:
    """Make joined and split layers plain ones again. Their weights stay where they lie."""
    for module in model.modules():
        if type(module) in (LinearPart, SplitLinear):
            module.__class__ = nn.Linear


def is_narrow(layer: nn.Linear) -> bool:
    """Return true if there are few outputs, of no fewer inputs."""
    fits = layer.bias is None and layer.in_features % (PARTS * ALIGNMENT) == 0
    return fits and layer.out_features <= min(MOST_OUTPUTS, layer.in_features)
