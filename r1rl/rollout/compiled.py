"""The decode step compiled: norms, rotations, activations and the draw of a token become a few kernels each.

All layers of one kind share one compiled function: what differs between them, weights and buffers of the cache, reaches it as
data. For that the cache that a layer is handed must be the same object each time, and know by itself whose turn it is.

Legend: R rows, H key/value heads, C columns, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from r1rl.rollout.cache import RowCache
from r1rl.rollout.rows import RowTensors

Backend = str | Callable[..., Any]
"""A compiler of torch.compile: "inductor", or a function."""


def choose_backend(asked: bool | None, device: torch.device) -> Backend | None:
    """The compiler of a recipe's `compile_layers`; None says on a GPU."""
    return "inductor" if (device.type == "cuda" if asked is None else asked) else None


class LayerTurns(Cache):
    """The cache of a decode step as its layers see it, one after the other."""

    def __init__(self, cache: RowCache, positions_R: Tensor, width: int | None) -> None:
        """`width`: columns that are read; None: all, by attention that knows where each row ends."""
        super().__init__(layers=[])
        self.cache = cache
        self.width = width
        self.positions_R = positions_R
        self.rows_R = torch.arange(positions_R.shape[0], device=positions_R.device)
        self.take(0)

    def take(self, layer: int) -> None:
        """It is this layer's turn."""
        self.keys, self.values = self.cache.keys[layer], self.cache.values[layer]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns in use before the step."""
        return (self.cache.columns if self.width is None else self.width) - 1

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See `RowCache.update`. `layer_idx` is not looked at: a compiled function would be made for each of its values."""
        rows = key_states.shape[0]
        self.keys[self.rows_R, :, self.positions_R] = key_states[:, :, 0]
        self.values[self.rows_R, :, self.positions_R] = value_states[:, :, 0]
        if self.width is None:
            return self.keys[:rows], self.values[:rows]
        return self.keys[:rows, :, : self.width], self.values[:rows, :, : self.width]


class CompiledStep:
    """A model's decoder layers with a compiled forward, while `installed`, and a compiled `RowTensors.draw`."""

    def __init__(self, model: PreTrainedModel, backend: Backend) -> None:
        """Nothing is compiled before the first forward. Raises ValueError if the layers can't be told from the other modules."""
        count = model.config.num_hidden_layers
        found = [
            (parent, child)
            for parent in model.modules()
            for child in parent.children()
            if isinstance(child, nn.ModuleList) and len(child) == count
        ]
        if not found or any("forward" in layer.__dict__ for layer in found[0][1]):
            raise ValueError("its decoder layers are not one list of modules with forwards of their own")
        parent, layers = found[0]
        self.layers = list(layers)
        self.around = [child for child in parent.children() if not isinstance(child, nn.ModuleList | nn.Embedding)]
        """What runs before and after the layers: rotary frequencies, the last norm."""
        windows = {getattr(module, "sliding_window", None) for layer in self.layers for module in layer.modules()}
        self.windows = {None, *(window for window in windows if isinstance(window, int))}
        """What the layers ask the attention's plan for: made before, it is data to the compiled function."""
        self._forward = torch.compile(forward_of_class, backend=backend)
        self._forward_around = torch.compile(forward_around, backend=backend)
        self.draw: Callable[..., None] = torch.compile(RowTensors.draw, backend=backend)

    @contextmanager
    def installed(self, turns: LayerTurns) -> Iterator[None]:
        """In here the layers run compiled, on this step's cache."""
        for index, layer in enumerate(self.layers):
            layer.__dict__["forward"] = partial(self._take_turn, turns, index, layer)
        for module in self.around:
            module.__dict__["forward"] = partial(self._forward_around, module)
        try:
            yield
        finally:
            for module in (*self.layers, *self.around):
                del module.__dict__["forward"]

    def _take_turn(self, turns: LayerTurns, index: int, layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        turns.take(index)
        return self._forward(layer, *args, **kwargs)


def forward_of_class(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What `layer(...)` computes, hooks aside."""
    return type(layer).forward(layer, *args, **kwargs)


def forward_around(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The same for modules around the layers: compiled functions are counted by the function they come from, and kept few."""
    return type(module).forward(module, *args, **kwargs)
