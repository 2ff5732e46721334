"""Which kernels `scaled_dot_product_attention` may choose from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def steady_attention() -> Iterator[None]:
    """In here cuDNN's attention is not taken: it makes a plan for each new shape, which takes about 70 ms on an H100, and the shapes of
    prompts and completions are new all the time."""
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield
