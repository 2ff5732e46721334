"""The choice of kernels that `scaled_dot_product_attention` has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def steady_attention() -> Iterator[None]:
    """Leave cuDNN's attention out in here.

    It makes a plan for each new shape, and the shapes of prompts and completions are new all the time: on an
    H100 the first 511 decode steps took 38 s more than later ones of the same shapes.
    """
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield
