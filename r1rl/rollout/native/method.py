"""The ways in which an engine runs its decode steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from r1rl.attention.rollout import RowKernel
from r1rl.compute.graphs import Capture
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.compiled import CompiledStep
from r1rl.rollout.native.rows import RowTensors
from r1rl.rollout.sampler import TORCH_OPS, LogitOps


@dataclass(frozen=True, slots=True)
class StepMethod:
    """The choice among ways that are faster than the model's plain operations.

    Each is None, or torch's, where it is not used.
    """

    capture: Capture | None = None
    """The capture that makes steps replayable."""
    compiled: CompiledStep | None = None
    """The compiled layers and sampling."""
    kernel: RowKernel | None = None
    """The attention that reads each row's own columns."""
    ops: LogitOps = TORCH_OPS
    """The operations that draw a token from the logits."""

    def draw(self, tensors: RowTensors, rows: slice, logits_RV: Tensor, sampling: Sampling) -> None:
        """Draw the next token of these rows, see `RowTensors.draw`."""
        function = RowTensors.draw if self.compiled is None else self.compiled.draw
        function(tensors, rows, logits_RV, sampling, self.ops)

    @property
    def reads_whole_rows(self) -> bool:
        """The property of steps that cost the more, the more columns they are told to read: attention masks
        them.
        """
        return self.kernel is None
