"""The order in which a run visits its prompts, epoch by epoch, and the same wherever the run was
interrupted.
"""

from __future__ import annotations

import random
from typing import Any

from r1rl.errors import DataError
from r1rl.seeds import derive_seed


class PromptOrder:
    """Indices of prompts, without end: every epoch visits each prompt once, in a permutation of its own.

    An epoch's permutation depends on the seed and the epoch's number alone, so the order's whole state is its
    position. The order knows nothing of processes: take a batch for all of them and give each its share.
    """

    def __init__(self, num_prompts: int, seed: int, shuffle: bool) -> None:
        if num_prompts < 1:
            raise ValueError("there is nothing to order: num_prompts must be at least 1")
        self.num_prompts = num_prompts
        self.seed = seed
        self.shuffle = shuffle
        self.position = 0
        """The number of prompts taken since the run began."""
        self._permutation = self._permutation_of(0)

    @property
    def epoch(self) -> float:
        """The number of epochs so far, with the fraction of the current one."""
        return self.position / self.num_prompts

    def take(self, count: int) -> list[int]:
        """Return the next `count` indices. A batch may reach over the end of an epoch."""
        taken: list[int] = []
        while len(taken) < count:
            within = self.position % self.num_prompts
            if within == 0:
                self._permutation = self._permutation_of(self.position // self.num_prompts)
            chunk = self._permutation[within : within + count - len(taken)]
            taken += chunk
            self.position += len(chunk)
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, in JSON values only."""
        return {
            "position": self.position,
            "num_prompts": self.num_prompts,
            "seed": self.seed,
            "shuffle": self.shuffle,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint. Raise `DataError` if that one had other data or another order."""
        for key, mine in (("num_prompts", self.num_prompts), ("seed", self.seed), ("shuffle", self.shuffle)):
            if state[key] != mine:
                raise DataError(
                    f"The checkpoint can't be resumed in the same data order: {key} was {state[key]} and is "
                    f"{mine} now. "
                    f"Restore the data and the recipe, or start a new run from the checkpoint with "
                    f"model.path."
                )
        self.position = state["position"]
        self._permutation = self._permutation_of(self.position // self.num_prompts)

    def _permutation_of(self, epoch: int) -> list[int]:
        indices = list(range(self.num_prompts))
        if self.shuffle:
            random.Random(derive_seed(self.seed, "order", epoch)).shuffle(indices)
        return indices
