"""A whole run of `r1rl grpo` on a GPU: its fast ways stay in use, and its passes do not wait for the
device.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import prepare, train

from r1rl.grpo.update import PolicyUpdate
from r1rl.rollout import engine as engines_module
from r1rl.rollout.native.engine import NativeEngine

pytestmark = pytest.mark.gpu


def test_a_run_keeps_what_makes_it_fast(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Evaluations and training decode in workspaces of different sizes, with different sampling."""
    engines: list[NativeEngine] = []

    class Watched(NativeEngine):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            engines.append(self)

    def accumulate(self: PolicyUpdate, *arguments: Any) -> Sequence[Any]:
        steps.append(len(steps))
        if len(steps) == 1:  # compiles, and looks for fast products
            return plain(self, *arguments)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return plain(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    steps: list[int] = []
    plain = PolicyUpdate._accumulate
    monkeypatch.setattr(PolicyUpdate, "_accumulate", accumulate)
    monkeypatch.setattr(engines_module, "NativeEngine", Watched)
    prepare(tmp_path)
    with caplog.at_level(logging.WARNING, logger="r1rl"):
        train(
            tmp_path,
            "model.dtype=bfloat16",
            "evaluation.every_steps=2",
            "rollout.num_prompts=8",
            "rollout.max_completion_length=40",
        )
    assert [record.getMessage() for record in caplog.records if record.name.startswith("r1rl")] == []
    said = " ".join(capsys.readouterr().out.split())
    assert "its decode steps are captured and replayed" in said
    assert "not compiled" not in said
    (engine,) = engines
    assert engine.allocator.method.capture is not None
    assert engine.allocator.method.capture.fault is None
    assert len(steps) == 4
