"""Shared by all tests: one thread for torch, and tests marked `gpu` are skipped without a CUDA device."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# The tests' tensors are tiny. With two threads every operation waits for both, which on a machine with other
# work takes up to
# forty times as long. Set before torch is imported, and inherited by the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a GPU on machines that have none.

    torch is imported only if such a test was collected.
    """
    needing_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not needing_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="module")
def on_the_cpu() -> Iterator[None]:
    """Keep a module's runs on the CPU even if there is a GPU, for runs that are compared to the last
    digit.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield
