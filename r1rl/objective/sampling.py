"""The distribution that is sampled, defined once: the rollout engine draws from it and the loss trains it.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class DrawSettings(Protocol):
    """The sampling parameters of a recipe's section, whichever section has them."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float


@dataclass(frozen=True, slots=True)
class Sampling:
    """The parameters of sampling. `temperature=0` is greedy decoding."""

    max_completion_length: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    eos_token_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        drawn: DrawSettings,
        max_completion_length: int,
        eos_token_ids: Sequence[int],
        stop: Sequence[str],
        repetition_penalty: float = 1.0,
    ) -> Sampling:
        """Return the parameters as a section of a recipe says, for a model with these EOS ids.

        `repetition_penalty` is apart, because sections of what is trained have none: the trained distribution
        can't follow a penalty.
        """
        return cls(
            max_completion_length=max_completion_length,
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            top_k=drawn.top_k,
            min_p=drawn.min_p,
            repetition_penalty=repetition_penalty,
            eos_token_ids=tuple(eos_token_ids),
            stop=tuple(stop),
        )

    @property
    def law(self) -> tuple[float, ...]:
        """The values that decide the distribution of the next token, not when a completion ends."""
        return self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty

    @property
    def truncates_vocabulary(self) -> bool:
        """The fact that some tokens get probability zero, so that the full softmax is not the sampled
        distribution.
        """
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0


def process_logits(logits_BV: Tensor, sampling: Sampling, keep_B: Tensor | None = None) -> Tensor:
    """Return the logits whose softmax is the sampled distribution: temperature, then top-k, top-p and min-p.

    Returns float32 [B, V] with -inf outside the support; the input is not changed. Each filter looks at the
    tempered distribution that the one before it left. `keep_B` names one token per row that stays in the
    support whatever the filters say: the trainer passes the sampled tokens, whose place at the border a
    rounding difference could move. The choice of the support carries no gradient. Greedy decoding
    (temperature 0) leaves the logits as they are.
    """
    logits_BV = logits_BV.float()
    if sampling.temperature not in (0.0, 1.0):
        logits_BV = logits_BV / sampling.temperature
    if not sampling.truncates_vocabulary:
        return logits_BV
    with torch.no_grad():
        kept_BV = logits_BV.clone()
        if 0 < sampling.top_k < kept_BV.shape[-1]:
            threshold_B1 = kept_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
            kept_BV.masked_fill_(kept_BV < threshold_B1, -torch.inf)
        if sampling.top_p < 1.0:
            sorted_BV = kept_BV.sort(dim=-1, descending=True).values
            probabilities_BV = sorted_BV.softmax(-1)
            # A token stays while the mass before it is short of top_p, so the likeliest always stays; so do
            # those as likely as the last.
            outside_BV = probabilities_BV.cumsum(-1) - probabilities_BV >= sampling.top_p
            threshold_B1 = sorted_BV.masked_fill(outside_BV, torch.inf).amin(-1, keepdim=True)
            kept_BV.masked_fill_(kept_BV < threshold_B1, -torch.inf)
        if sampling.min_p > 0.0:
            probabilities_BV = kept_BV.softmax(-1)
            kept_BV.masked_fill_(
                probabilities_BV < sampling.min_p * probabilities_BV.amax(-1, keepdim=True), -torch.inf
            )
        removed_BV = kept_BV == -torch.inf
        if keep_B is not None:
            removed_BV.scatter_(-1, keep_B[:, None], False)
    return logits_BV.masked_fill(removed_BV, -torch.inf)
