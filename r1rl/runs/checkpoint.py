"""Checkpoints: a model that `AutoModelForCausalLM.from_pretrained` loads, plus everything that the next step
depends on.

    checkpoints/step-000100/
      config.json, model.safetensors, tokenizer...   the policy, float32 master weights; of a policy with
                                                     adapters instead:
      adapter_config.json, adapter_model.safetensors the adapters as PEFT saves them, with the name of their
      model
      training/state.json                            step, place in the data order, counters
      training/optimizer.pt                          optimizer and schedule; under FSDP instead:
      training/sharded/, training/schedule.pt        the optimizer's shards, the schedule
      training/random-00000.pt                       torch's random state, one file per process
      training/ahead-00000.pt                        what a process has sampled ahead (rollout.one_step_off)

A checkpoint is written under another name and renamed when it is whole, so a folder named step-* can always
be trusted.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.compute.distributed import is_sharded
from r1rl.compute.optimization import restore_schedule
from r1rl.errors import UserError
from r1rl.models.checkpoint_folders import checkpoint_path, whole_checkpoints
from r1rl.models.lora import adapted_layers, save_adapter


@dataclass
class TrainingState:
    """The memory of a run besides tensors: together with the weights, it determines every later step."""

    step: int
    """Steps done."""
    order: dict[str, Any]
    """The place in the data order (PromptOrder.state_dict)."""
    evaluations: dict[str, Any]
    """Figures of the evaluations made so far, by name; the final summary compares them."""
    seconds: float
    """Training time so far."""


def read_training_state(checkpoint: Path) -> TrainingState:
    """Return the state of a checkpoint, without its tensors. Raises UserError if the folder holds none."""
    path = checkpoint / "training" / "state.json"
    if not path.exists():
        raise UserError(
            f"{checkpoint}: there is no training/state.json in it, so it is no checkpoint that "
            f"a run can go on from."
        )
    return TrainingState(**json.loads(path.read_text()))


def check_launch(checkpoint: Path, sharded: bool) -> None:
    """Raise UserError if the checkpoint was saved by the other kind of launch. `sharded`: this one uses
    FSDP2.
    """
    was_sharded = (checkpoint / "training" / "sharded").exists()
    if was_sharded != sharded:
        kinds = {True: "in shards (FSDP2)", False: "whole"}
        raise UserError(
            f"{checkpoint}: its optimizer was saved {kinds[was_sharded]}, and this launch keeps it "
            f"{kinds[sharded]}. Go on with the kind "
            f"of launch that the run began with, or begin a new run with its weights: "
            f"model.path={checkpoint}."
        )


def read_ahead(checkpoint: Path) -> list[dict[str, Any]]:
    """Return what the processes that wrote the checkpoint had made for the next step, in their order; nothing
    if they had made nothing.
    """
    return [
        torch.load(file, weights_only=True) for file in sorted((checkpoint / "training").glob("ahead-*.pt"))
    ]


class Checkpointer:
    """The checkpoints of one run. Every process calls each method; the main one writes the shared files."""

    def __init__(self, folder: Path, accelerator: Accelerator, keep: int) -> None:
        self.folder = folder
        self.accelerator = accelerator
        self.keep = keep

    def save(
        self,
        state: TrainingState,
        policy: torch.nn.Module,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        ahead: dict[str, Any] | None = None,
    ) -> Path:
        """Write the checkpoint of `state.step` and drop those beyond `keep`.

        `policy` is what accelerate prepared, `model` the Hugging Face model inside it. `ahead`: plain values
        that this process has made for the next step already; `read_ahead` returns them.
        """
        path = checkpoint_path(self.folder, state.step)
        partial = path.with_suffix(".partial")
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "training").mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self._save_model(partial, policy, model, tokenizer)
        if not is_sharded(self.accelerator):
            if self.accelerator.is_main_process:
                torch.save(
                    {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()},
                    partial / "training" / "optimizer.pt",
                )
        else:
            self.accelerator.save_state(str(partial / "training" / "sharded"))
            if self.accelerator.is_main_process:  # save_state knows only of what accelerate prepared
                torch.save(schedule.state_dict(), partial / "training" / "schedule.pt")
        torch.save(random_state(), partial / "training" / f"random-{self.accelerator.process_index:05d}.pt")
        if ahead is not None:
            torch.save(ahead, partial / "training" / f"ahead-{self.accelerator.process_index:05d}.pt")
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (partial / "training" / "state.json").write_text(json.dumps(asdict(state), indent=1))
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
            self._drop_old()
        self.accelerator.wait_for_everyone()
        return path

    def _save_model(
        self, path: Path, policy: torch.nn.Module, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        # get_state_dict gathers shards; its keys are those of `policy`, which is the model, or holds it as
        # its `model`.
        weights = self.accelerator.get_state_dict(policy)
        if self.accelerator.is_main_process:
            prefix = "" if isinstance(extract_model_from_parallel(policy), PreTrainedModel) else "model."
            weights = {
                name.removeprefix(prefix): tensor
                for name, tensor in weights.items()
                if name.startswith(prefix)
            }
            for tied in (
                dict(model.named_parameters(remove_duplicate=False)).keys()
                - dict(model.named_parameters()).keys()
            ):
                weights.pop(tied, None)  # gathered shards are two tensors where the model has one
            if adapted_layers(model):
                save_adapter(model, weights, path)
            else:
                model.save_pretrained(path, state_dict=weights)
            tokenizer.save_pretrained(path)

    def _drop_old(self) -> None:
        if self.keep > 0:
            for old in whole_checkpoints(self.folder)[: -self.keep]:
                shutil.rmtree(old)

    def load(
        self, path: Path, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR
    ) -> TrainingState:
        """Restore optimizer, schedule and random states; the caller has loaded the model from `path` already.

        The moments and the place in the schedule are the checkpoint's; the settings (learning rate, weight
        decay, ...) stay those that `optimizer` and `schedule` were made with, so that a recipe that was
        changed before going on has its effect.
        """
        state = read_training_state(path)
        settings = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        if not is_sharded(self.accelerator):
            saved = torch.load(path / "training" / "optimizer.pt", map_location="cpu", weights_only=True)
            optimizer.load_state_dict(saved["optimizer"])
            schedule_state = saved["schedule"]
        else:
            self.accelerator.load_state(str(path / "training" / "sharded"))
            schedule_state = torch.load(path / "training" / "schedule.pt", weights_only=True)
        for group, setting in zip(optimizer.param_groups, settings, strict=True):
            group.update(setting)
        restore_schedule(optimizer, schedule, schedule_state)
        own = path / "training" / f"random-{self.accelerator.process_index:05d}.pt"
        if own.exists():  # a run may go on with another number of processes
            restore_random_state(torch.load(own, weights_only=True))
        return state


def random_state() -> dict[str, Any]:
    """Return torch's random state on the CPU and on every GPU. Nothing in training draws from Python's or
    numpy's.
    """
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Set torch's random state to what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
