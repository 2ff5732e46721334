"""An advantage estimator of one's own, named by its path in a recipe:

    algorithm: {advantage: examples/own_advantage.py:ranks}

It takes the place of `baseline` and `scale`. The function is tried on small groups of rewards before a model
is loaded, so a mistake costs seconds.

Legend: P prompts of all processes, G completions per prompt.
"""

from __future__ import annotations

from torch import Tensor

from r1rl.objective.config import AlgorithmConfig


def ranks(rewards_PG: Tensor, config: AlgorithmConfig) -> Tensor:
    """Return the share of a group's other rewards that are smaller minus the share that are larger, [P, G].

        A_i = (number of r_j < r_i  -  number of r_j > r_i) / (n - 1)        n known rewards in the group

    The result lies in [-1, 1] whatever the size of the rewards, and is 0 in a group whose rewards are all
    equal. NaN marks completions that no reward applied to: comparisons with NaN are false, so they count for
    nobody, and their own advantage is 0.
    """
    higher_PGG = rewards_PG[:, :, None] > rewards_PG[:, None, :]
    wins_PG = higher_PGG.sum(2) - higher_PGG.sum(1)
    known_P1 = (~rewards_PG.isnan()).sum(1, keepdim=True)
    return wins_PG / (known_P1 - 1).clamp(min=1).to(rewards_PG.dtype)
