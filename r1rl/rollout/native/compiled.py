"""The decode step compiled: norms, rotations, activations and the draw of a token become a few kernels each.

All layers of one kind share one compiled function: what differs between them, weights and buffers of the
cache, reaches it as data. For that the cache that a layer is handed must be the same object each time, and
know by itself whose turn it is. Where a few layers follow one another with nothing between them, one function
runs them all, and the end of one is compiled with the beginning of the next.

Legend: R rows, H key/value heads, C columns, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from r1rl.attention.rollout import DecodePlan
from r1rl.rollout.native.cache import RowCache
from r1rl.rollout.native.rows import RowTensors

Backend = str | Callable[..., Any]
"""The compiler of torch.compile: "inductor", or a function."""

INDUCTOR_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "combo_kernels": True,
    "combo_kernel_allow_mixed_sizes": 2,
}
"""The options by which small operations that do not depend on each other become one kernel, such as the
rotations of queries and of keys.
"""
LAYERS_TOGETHER = 4
"""The most layers of one compiled function: each more saves less, and takes as much longer to compile as the
others.
"""


def choose_backend(asked: bool | None, device: torch.device) -> Backend | None:
    """Return the compiler that a recipe's `compile_layers` asks for; None says on a GPU."""
    return "inductor" if (device.type == "cuda" if asked is None else asked) else None


def layer_lists(model: PreTrainedModel) -> list[tuple[nn.Module, nn.ModuleList]]:
    """Return the lists of as many modules as the model has layers, each with its parent; the decoder's is
    first.
    """
    count = model.config.get_text_config().num_hidden_layers
    children = ((parent, child) for parent in model.modules() for child in parent.children())
    return [
        (parent, child)
        for parent, child in children
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]


class LayerTurn(Cache):
    """The cache of a decode step as one layer sees it."""

    def __init__(self, cache: RowCache, plan: DecodePlan, width: int | None) -> None:
        """Show the cache to one layer at a time.

        `width`: columns that are read; None: all, by the plan's kernel, which knows where each row ends.
        """
        super().__init__(layers=[])
        self.cache = cache
        self.plan = plan
        self.width = width
        self.take(0)

    def take(self, layer: int) -> None:
        """Turn to this layer."""
        self.keys, self.values = self.cache.keys[layer], self.cache.values[layer]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the columns in use before the step."""
        return (self.cache.columns if self.width is None else self.width) - 1

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token per row, see `RowCache.update`.

        `layer_idx` is not looked at: a compiled function would be made for each of its values.
        """
        if self.width is None:
            self.plan.arrived = key_states, value_states
            return self.keys, self.values
        rows = key_states.shape[0]
        rows_R = torch.arange(rows, device=key_states.device)
        self.keys[rows_R, :, self.plan.positions_R] = key_states[:, :, 0]
        self.values[rows_R, :, self.plan.positions_R] = value_states[:, :, 0]
        return self.keys[:rows, :, : self.width], self.values[:rows, :, : self.width]


class CompiledStep:
    """The decoder layers' forward compiled, while `installed`, and `RowTensors.draw` compiled."""

    def __init__(self, model: PreTrainedModel, backend: Backend) -> None:
        """Prepare the functions; nothing is compiled before the first forward.

        Raises ValueError if the layers can't be told from the other modules.
        """
        found = layer_lists(model)
        if not found or any("forward" in layer.__dict__ for layer in found[0][1]):
            raise ValueError("its decoder layers are not one list of modules with forwards of their own")
        parent, layers = found[0]
        self.layers = list(layers)
        self.around = [
            child for child in parent.children() if not isinstance(child, nn.ModuleList | nn.Embedding)
        ]
        """The modules that run before and after the layers: rotary frequencies, the last norm."""
        windows = {
            getattr(module, "sliding_window", None) for layer in self.layers for module in layer.modules()
        }
        self.windows = {None, *(window for window in windows if isinstance(window, int))}
        """The windows that the layers ask the attention's plan for: made before, they are data to the
        compiled function.
        """
        self.runs: list[list[int]] | None = None
        """The layers that run in one call, known once a step has shown how they are called."""
        options = INDUCTOR_OPTIONS if backend == "inductor" else None
        self._forward = torch.compile(forward_layers, backend=backend, options=options)
        self._forward_around = torch.compile(forward_around, backend=backend, options=options)
        self.draw: Callable[..., None] = torch.compile(RowTensors.draw, backend=backend, options=options)

    @contextmanager
    def installed(self, cache: RowCache, plan: DecodePlan, width: int | None) -> Iterator[LayerTurn]:
        """Run the layers compiled in here, on this step's cache; yield what the model is to be given as its
        cache.

        The very first step runs as it is, to see how the layers are called.
        """
        turns = [LayerTurn(cache, plan, width) for _ in range(LAYERS_TOGETHER)]
        calls: list[LayerCall] = []
        for index, layer in enumerate(self.layers):
            layer.__dict__["forward"] = partial(
                self._run if self.runs else partial(self._note, calls), turns, index
            )
        for module in self.around:
            module.__dict__["forward"] = partial(self._forward_around, module)
        try:
            yield turns[0]
        finally:
            for module in (*self.layers, *self.around):
                del module.__dict__["forward"]
        self.runs = self.runs or find_runs(calls)

    def _note(
        self, calls: list[LayerCall], turns: list[LayerTurn], index: int, *args: Any, **kwargs: Any
    ) -> Any:
        if index != len(calls):
            raise ValueError("its decoder layers do not run one after the other")
        turns[0].take(index)
        output = forward_layers([self.layers[index]], turns[:1], *args, **kwargs)
        calls.append(LayerCall(args, kwargs, output))
        return output

    def _run(self, turns: list[LayerTurn], index: int, *args: Any, **kwargs: Any) -> Any:
        """Run the layers that go with this one. There may be none: an earlier one took it along."""
        assert self.runs is not None
        run = self.runs[index]
        if not run:
            return args[0]
        for turn, layer in zip(turns, run, strict=False):
            turn.take(layer)
        return self._forward([self.layers[layer] for layer in run], turns[: len(run)], *args, **kwargs)


@dataclass(frozen=True, slots=True)
class LayerCall:
    """The record of a layer's arguments and its output."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    def leads_to(self, following: LayerCall) -> bool:
        """Return true if the next layer gets what comes out of this one, and else the very same arguments."""
        if not isinstance(self.output, Tensor) or not following.args or following.args[0] is not self.output:
            return False
        mine, others = (
            (*self.args[1:], *self.kwargs.values()),
            (*following.args[1:], *following.kwargs.values()),
        )
        return (
            self.kwargs.keys() == following.kwargs.keys()
            and len(mine) == len(others)
            and all(map(is_, mine, others))
        )


def find_runs(calls: Sequence[LayerCall]) -> list[list[int]]:
    """Return for each layer those that run when it is called: itself and the next ones.

    There are none where an earlier layer takes it along.
    """
    runs: list[list[int]] = []
    first = 0
    for index, call in enumerate(calls):
        runs.append([])
        if index and (index - first == LAYERS_TOGETHER or not calls[index - 1].leads_to(call)):
            first = index
        runs[first].append(index)
    return runs


def forward_layers(layers: Sequence[nn.Module], turns: Sequence[LayerTurn], *args: Any, **kwargs: Any) -> Any:
    """Run the layers one after the other, hooks aside.

    Among the arguments is the first one's turn of the cache; each of the others gets its own in that place.
    """
    for layer, turn in zip(layers, turns, strict=True):
        own = [turn if value is turns[0] else value for value in args]
        output = type(layer).forward(
            layer, *own, **{name: turn if value is turns[0] else value for name, value in kwargs.items()}
        )
        args = (output, *args[1:])
    return output


def forward_around(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run `module(...)` without its hooks: compiled functions are counted by the function they come from, and
    kept few.
    """
    return type(module).forward(module, *args, **kwargs)
