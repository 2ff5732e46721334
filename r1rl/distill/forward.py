"""Student and teacher side by side, without ever holding the logits of a whole batch.

Each decoder runs without its language-model head; only the hidden states before completion tokens go through
the heads, a chunk of them at a time, through both. Each chunk is checkpointed: the backward pass computes its
logits again, the student's and the teacher's, so memory never holds more than one chunk's.

Legend: R rows and T positions of a micro-batch, N completion tokens, C tokens of a chunk, D and E hidden
sizes of student and teacher, V ids that are compared, K figures of `r1rl.distill.divergences.STATISTICS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from r1rl.distill.divergences import compare, divergence, statistics
from r1rl.distill.recipe import DivergenceConfig
from r1rl.policy.logprobs import LogitHead


@dataclass(frozen=True, slots=True)
class TeacherStates:
    """The teacher's hidden states [N, E] before the completion tokens, and its head.

    An object of its own, because wrappers cast the tensors that a forward pass is given to the student's
    precision.
    """

    head: LogitHead
    hidden_NE: Tensor

    def split(self, chunk: int) -> list[TeacherStates]:
        """Return the same in chunks of so many tokens."""
        return [TeacherStates(self.head, hidden_CE) for hidden_CE in self.hidden_NE.split(chunk)]

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Return the teacher's logits of these states, over its whole vocabulary and in its own precision."""
        with torch.autocast(self.hidden_NE.device.type, enabled=False):
            return self.head(self.hidden_NE)


class Teacher:
    """The frozen teacher. It is no module: nothing that trains, saves or shards the student may find its
    parameters.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.requires_grad_(False).eval()

    @torch.no_grad()
    def states(self, input_ids_RT: Tensor, predictors_N: Tensor) -> TeacherStates:
        """Return its hidden states before the completion tokens, in its own precision."""
        with torch.autocast(input_ids_RT.device.type, enabled=False):
            return TeacherStates(LogitHead(self.model), states(self.model, input_ids_RT, predictors_N))


class StudentForward(nn.Module):
    """The student as a module whose forward pass gives divergences, so that DDP's and accelerate's hooks on
    `forward` apply.
    """

    def __init__(self, model: PreTrainedModel, config: DivergenceConfig, shared: int, chunk: int) -> None:
        """Take the student; `shared` is the number of ids that are compared, `chunk` that of completion
        tokens whose logits exist at the same time.
        """
        super().__init__()
        self.model = model
        self._no_split_modules = model._no_split_modules  # the layers that FSDP wraps one by one
        self.config = config
        self.shared = shared
        self.chunk = chunk

    def forward(
        self, input_ids_RT: Tensor, predictors_N: Tensor, teacher: TeacherStates
    ) -> tuple[Tensor, Tensor]:
        """Return the divergence [N] from the teacher at the places `predictors_N`, and the statistics [N, K],
        which have no gradient.
        """
        hidden_ND = states(self.model, input_ids_RT, predictors_N)
        head = LogitHead(self.model)
        chunks = []
        for hidden_CD, taught in zip(hidden_ND.split(self.chunk), teacher.split(self.chunk), strict=True):
            if torch.is_grad_enabled():
                chunks.append(checkpoint(self._compare, head, hidden_CD, taught, use_reentrant=False))
            else:
                chunks.append(self._compare(head, hidden_CD, taught))
        divergences, figures = zip(*chunks, strict=True)
        return torch.cat(divergences), torch.cat(figures)

    def _compare(self, head: LogitHead, hidden_CD: Tensor, teacher: TeacherStates) -> tuple[Tensor, Tensor]:
        pair = compare(head(hidden_CD), teacher.logits(), self.config.temperature, self.shared)
        divergence_C = divergence(pair, self.config)
        # Last, and without gradient: the recomputation in the backward pass ends before it gets here.
        return divergence_C, statistics(pair)


def states(model: PreTrainedModel, input_ids_RT: Tensor, predictors_N: Tensor) -> Tensor:
    """Return the decoder's last hidden states at the places `predictors_N` of the R * T positions [N, D].

    There is no attention mask: under causal attention no token sees the padding to its right.
    """
    hidden_RTD = model.get_decoder()(input_ids=input_ids_RT, use_cache=False).last_hidden_state
    return hidden_RTD.flatten(0, 1).index_select(0, predictors_N)
