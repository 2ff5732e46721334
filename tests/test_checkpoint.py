"""Checkpoints of models that accelerate shards; whole runs are resumed in test_grpo_run.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from tiny_policy import save_tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.config.schema import OptimizerConfig
from r1rl.runs.checkpoint import Checkpointer, TrainingState


class ShardingAccelerator:
    """A stand-in for accelerate under FSDP, whose `save_state` writes what accelerate prepared: the
    optimizer, not our schedule.
    """

    distributed_type = DistributedType.FSDP
    is_main_process = True
    process_index = 0

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def wait_for_everyone(self) -> None:
        pass

    def get_state_dict(self, policy: torch.nn.Module) -> dict[str, Any]:
        return policy.state_dict()

    def save_state(self, path: str) -> None:
        Path(path).mkdir()
        torch.save(self.optimizer.state_dict(), Path(path) / "optimizer.bin")

    def load_state(self, path: str) -> None:
        self.optimizer.load_state_dict(torch.load(Path(path) / "optimizer.bin"))


def test_sharded_run_goes_on_at_its_place_in_the_schedule(tmp_path: Path) -> None:
    save_tiny_policy(tmp_path / "policy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    policy = torch.nn.ModuleDict({"model": model})
    config = OptimizerConfig(learning_rate=0.1, schedule="linear", warmup_steps=0)
    state = TrainingState(step=3, order={}, evaluations={}, seconds=0.0)
    rates = []
    for resumes in (False, True):
        optimizer = make_optimizer(policy, config)
        schedule = make_schedule(optimizer, 4, config)
        checkpointer = Checkpointer(tmp_path, ShardingAccelerator(optimizer), keep=0)  # type: ignore[arg-type]
        if resumes:
            assert checkpointer.load(tmp_path / "step-000003", optimizer, schedule) == state
        else:
            for _ in range(3):
                optimizer.step()
                schedule.step()
            checkpointer.save(state, policy, model, tokenizer, optimizer, schedule)
        rates.append((optimizer.param_groups[0]["lr"], schedule.get_last_lr()[0], schedule.last_epoch))
    assert rates[0] == rates[1]
    assert rates[1][0] == pytest.approx(0.1 * (1 - 3 / 4))
