"""Compiled decoder layers: torch.compile fuses the many small operations between a layer's matrix products.

A layer is compiled once for all shapes, in two parts: before and after its attention, which stays as it is. The layers are compiled in
place, so parameters keep their names; the rollout engine has layers of its own, since this needs bfloat16.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from r1rl.grpo.layout import compare, packed_attention_in, probe
from r1rl.grpo.packed_attention import packed_attention, register_packed_attention
from r1rl.grpo.packing import Layout


def compile_layers(model: PreTrainedModel, layout: Layout, dtype: torch.dtype) -> str:
    """Compiles the decoder's layers and compares them with what they were; returns why they are left alone, or nothing.

    Raises whatever the comparison raises for lack of memory.
    """
    if dtype is torch.float32:
        return "Layers are not compiled: in float32 the rollout engine runs the same ones."
    if not layout.packed:
        return "Layers are not compiled: that needs packed sequences."
    layers = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
    with packed_attention_in(model):
        expected = probe(model, layout, dtype)
        register_packed_attention(torch.compiler.disable(packed_attention))
        try:
            for layer in layers:
                layer.compile(dynamic=True)
            compare(probe(model, layout, dtype), expected, dtype)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler that is missing, a graph that it can't handle
            for layer in layers:
                layer._compiled_call_impl = None
            register_packed_attention()
            first_line = (str(error).strip().splitlines() or ["no message"])[0]
            return f"Layers are not compiled: {type(error).__name__}: {first_line}"
    return ""
