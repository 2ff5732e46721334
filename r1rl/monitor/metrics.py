"""The sums from which a step's metrics are made, over all processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    count: float = 0.0


class MetricAccumulator:
    """The sums of one step's figures, and the metrics made of them, over all processes.

    Means are kept as sums and counts, so that the result does not depend on how the batch was spread. A
    process need not have seen every metric: names are united.
    """

    def __init__(self) -> None:
        self._means: defaultdict[str, _Mean] = defaultdict(_Mean)
        self._counts: defaultdict[str, float] = defaultdict(float)
        self._maxima: dict[str, float] = {}

    def add(self, name: str, total: float, count: float = 1.0) -> None:
        """Add a sum over `count` things, for a mean over them."""
        mean = self._means[name]
        mean.total += total
        mean.count += count

    def add_values(self, name: str, values: Iterable[float | None]) -> None:
        """Add values for a mean; None does not count."""
        known = [value for value in values if value is not None]
        self.add(name, sum(known), len(known))

    def count(self, name: str, number: float = 1.0) -> None:
        """Count occurrences, whose number itself is the metric."""
        self._counts[name] += number

    def count_all(self, numbers: Mapping[str, float]) -> None:
        """Add many counts at once, such as the events of the rewards."""
        for name, number in numbers.items():
            self.count(name, number)

    def maximum(self, name: str, value: float) -> None:
        """Add a value of which the largest is the metric."""
        self._maxima[name] = max(self._maxima.get(name, value), value)

    def collect(self, gather: Callable[[list[_Record]], list[_Record]] | None = None) -> dict[str, float]:
        """Return the metrics of all processes, by name; a mean over nothing is left out.

        `gather` takes a list with this process's record and returns those of all processes, in the same order
        everywhere (accelerate's `gather_object` does); it is None with one process. Every process must call
        this.
        """
        own: _Record = (
            {name: (mean.total, mean.count) for name, mean in self._means.items()},
            dict(self._counts),
            dict(self._maxima),
        )
        merged = MetricAccumulator()
        for means, counts, maxima in [own] if gather is None else gather([own]):
            for name, (total, count) in means.items():
                merged.add(name, total, count)
            merged.count_all(counts)
            for name, value in maxima.items():
                merged.maximum(name, value)
        values = {name: mean.total / mean.count for name, mean in merged._means.items() if mean.count}
        return {**values, **merged._counts, **merged._maxima}


_Record = tuple[dict[str, tuple[float, float]], dict[str, float], dict[str, float]]
"""The record that a process gives to the others: sums and counts, counts, maxima."""
