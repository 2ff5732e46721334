"""Metrics of the loss, summed on the device and read once per optimizer step.

Legend: N completion tokens of a micro-batch, M metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class LossMetrics:
    """Sums, maxima and minima over the trained tokens of a micro-batch, or of several after `merge`.
    Everything is detached.
    """

    trained_N: Tensor | None
    """Bool: the tokens that count; None after `merge`."""
    count: Tensor
    """The number of trained tokens, the denominator of every mean."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    maxima: dict[str, Tensor] = field(default_factory=dict)
    minima: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def start(cls, trained_N: Tensor) -> LossMetrics:
        """Return empty metrics of a micro-batch."""
        return cls(trained_N, trained_N.sum())

    def mean(self, name: str, values_N: Tensor) -> None:
        """Record a value per token, to be reported as its mean."""
        self.sums[name] = torch.where(self._trained(), values_N.detach(), 0).sum()

    def maximum(self, name: str, values_N: Tensor) -> None:
        """Record a value per token, to be reported as its maximum."""
        self.maxima[name] = torch.where(self._trained(), values_N.detach(), -torch.inf).amax()

    def extremes(self, name: str, values_N: Tensor) -> None:
        """Record a value per token, to be reported as NAME/min and NAME/max."""
        self.maximum(f"{name}/max", values_N)
        self.minima[f"{name}/min"] = torch.where(self._trained(), values_N.detach(), torch.inf).amin()

    def _trained(self) -> Tensor:
        if self.trained_N is None:
            raise ValueError("metrics that are merged take no further values")
        return self.trained_N

    @classmethod
    def merge(cls, parts: Sequence[LossMetrics]) -> LossMetrics:
        """Return the metrics of all tokens of several micro-batches of the same configuration."""
        first = parts[0]
        return cls(
            trained_N=None,
            count=torch.stack([part.count for part in parts]).sum(),
            sums={name: torch.stack([part.sums[name] for part in parts]).sum() for name in first.sums},
            maxima={name: torch.stack([part.maxima[name] for part in parts]).amax() for name in first.maxima},
            minima={name: torch.stack([part.minima[name] for part in parts]).amin() for name in first.minima},
        )

    def values(
        self,
        reduce_sum: Callable[[Tensor], Tensor] | None = None,
        reduce_max: Callable[[Tensor], Tensor] | None = None,
    ) -> dict[str, float]:
        """Return means and extremes by name, empty when no token was trained. This is the one place that
        waits for the device.

        `reduce_sum` and `reduce_max` combine a float64 vector over processes; each is called at most once.
        """
        totals_M = torch.stack([self.count, *self.sums.values()]).double()
        totals = (reduce_sum(totals_M) if reduce_sum else totals_M).tolist()
        extremes: list[float] = []
        if self.maxima or self.minima:
            extremes_M = torch.stack(
                [*self.maxima.values(), *(-value for value in self.minima.values())]
            ).double()
            extremes = (reduce_max(extremes_M) if reduce_max else extremes_M).tolist()
        if totals[0] == 0:
            return {}
        result = {name: total / totals[0] for name, total in zip(self.sums, totals[1:], strict=True)}
        result.update(zip(self.maxima, extremes[: len(self.maxima)], strict=True))
        result.update(
            {name: -value for name, value in zip(self.minima, extremes[len(self.maxima) :], strict=True)}
        )
        return result
