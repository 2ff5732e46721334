"""The types of what a command brings to a training run, which `r1rl.runs.training_run` and its subclasses are
written in.

A command has a recipe (`RunRecipe`), prepares what can be known before the model is loaded (`Prepared`),
builds the parts that a run works with (`RunParts`), and each of its steps returns a `StepRecord`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Protocol

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.config.schema import CheckpointConfig, LoggingConfig, ModelConfig
from r1rl.monitor.progress import ProgressDisplay


class EvaluationTimes(Protocol):
    """The steps at which a run measures its model on held-out data."""

    every_steps: int
    at_start: bool


class RunRecipe(Protocol):
    """A recipe (a dataclass) of a command that trains in steps."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    run_name: str
    output_dir: str
    seed: int
    max_steps: int
    hooks: list[str]
    checkpoint: CheckpointConfig
    logging: LoggingConfig

    @property
    def model(self) -> ModelConfig:
        """The model that is trained."""
        ...

    @property
    def evaluation(self) -> EvaluationTimes:
        """The held-out data and the steps at which it is looked at."""
        ...


class Prepared(Protocol):
    """Everything that a command finds out before it loads its model."""

    @property
    def messages(self) -> Sequence[str]:
        """Sentences that are shown when the run starts."""
        ...

    def close(self) -> None:
        """End what it holds, such as the processes of rewards."""
        ...


class DataOrder(Protocol):
    """The place of a run in its data."""

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the place as JSON values, for a checkpoint."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the place of a checkpoint."""
        ...


@dataclass(kw_only=True)
class RunParts:
    """The parts that every training run works with; each command adds its own."""

    accelerator: Accelerator
    display: ProgressDisplay
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    """The Hugging Face model inside `policy`."""
    policy: torch.nn.Module
    """The module that is trained, as accelerate prepared it."""
    order: DataOrder
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR


class StepRecord(Protocol):
    """The result of one step."""

    @property
    def metrics(self) -> dict[str, float]:
        """The figures of the step, the same in every process."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of an evaluation on held-out data."""

    figures: dict[str, Any]
    """Figures by name, which the run's state and its summary keep."""
    record: dict[str, Any]
    """The content of evaluations/<name>.json."""
