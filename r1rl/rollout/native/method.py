"""How an engine runs its decode steps."""

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
    """What is faster than the model's plain operations, one after the other; each is None, or torch's, where
    it is not used.
    """

    capture: Capture | None = None
    """Makes steps replayable."""
    compiled: CompiledStep | None = None
    """Compiled layers and sampling."""
    kernel: RowKernel | None = None
    """Attention that reads each row's own columns."""
    ops: LogitOps = TORCH_OPS
    """What draws a token from the logits."""

    def draw(self, tensors: RowTensors, rows: slice, logits_RV: Tensor, sampling: Sampling) -> None:
        """See `RowTensors.draw`."""
        function = RowTensors.draw if self.compiled is None else self.compiled.draw
        function(tensors, rows, logits_RV, sampling, self.ops)

    @property
    def reads_whole_rows(self) -> bool:
        """True where a step costs the more, the more columns it is told to read: attention masks them."""
        return self.kernel is None
