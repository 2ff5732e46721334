"""The rollouts of a run, one for each step: prompts drawn in the data's order, sampled, scored, and refilled
where that is asked for.

Legend: P prompts of all processes, G completions per prompt; a process holds every W-th prompt of W
processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator

from r1rl.compute.distributed import gather_shares, own_share
from r1rl.compute.phase_clock import PhaseClock
from r1rl.data import PromptOrder
from r1rl.grpo.collect import Collector, Progress, Rollout, SampledGroup
from r1rl.grpo.recipe import GRPORecipe
from r1rl.types import Prompt


class Rollouts:
    """The rollouts of a run that samples each when its step asks for it, from the policy as it is."""

    def __init__(
        self,
        recipe: GRPORecipe,
        accelerator: Accelerator,
        order: PromptOrder,
        prompts: Sequence[Prompt],
        collector: Collector,
        progress: Progress,
    ) -> None:
        """Take the prompts and what samples from them; `progress` is told of every finished group."""
        self.recipe = recipe
        self.accelerator = accelerator
        self.order = order
        self.prompts = prompts
        self.collector = collector
        self.progress = progress
        self.slots = range(recipe.rollout.num_prompts)

    def sample(self, step: int, clock: PhaseClock) -> list[SampledGroup]:
        """Return this process's groups of the rollout that step `step` (from 0) trains."""
        with clock.phase("rollout"):
            return self._sample(self.slots, step, 0, self.progress)

    def score(self, sampled: Sequence[SampledGroup], step: int, clock: PhaseClock) -> Rollout:
        """Wait for the rewards of the step's groups, and refill where the recipe asks for it."""
        with clock.phase("rollout"):
            rollout = self._refilled(self.collector.score(sampled), step)
        clock.split("rollout", "reward", rollout.counts.waited_for_rewards)
        return rollout

    @contextmanager
    def prefetch(self, step: int, clock: PhaseClock) -> Iterator[None]:
        """Surround the update before step `step`, beside which that step's rollout may be sampled. Here it is
        not.
        """
        yield

    def state_dict(self) -> dict[str, Any] | None:
        """Return what this process has sampled for the next step, as plain values for a checkpoint."""
        return None

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> str:
        """Take over the `state_dict` of every process that saved; return a sentence that a person should
        know, or nothing. Here nothing is sampled ahead, so nothing is used.
        """
        return ""

    def _refilled(self, rollout: Rollout, step: int) -> Rollout:
        """Return the rollout with fresh groups in the place of those without variance (dynamic sampling:
        DAPO, 2503.14476, section 3.2).

        Fresh prompts take the slots of the groups that they replace, in slot order, so that any number of
        processes does the same. Groups that still have no variance after `max_refills` rounds stay: their
        advantages are zero.
        """
        algorithm = self.recipe.algorithm
        if not algorithm.dynamic_sampling:
            return rollout
        for attempt in range(1, algorithm.max_refills + 1):
            flat = [group.outcome_spread() <= algorithm.variance_tolerance for group in rollout.groups]
            slots = [slot for slot, is_flat in enumerate(gather_shares(self.accelerator, flat)) if is_flat]
            if not slots:
                break
            fresh = self.collector.score(self._sample(slots, step, attempt, self.progress))
            rollout = rollout.replaced_by(fresh, refilled=len(slots))
        return rollout

    def _sample(
        self, slots: Sequence[int], step: int, attempt: int, progress: Progress
    ) -> list[SampledGroup]:
        """Sample groups for fresh prompts in these slots of all processes; return those of this one."""
        fresh = dict(zip(slots, self.order.take(len(slots)), strict=True))
        own = [slot for slot in own_share(self.accelerator, self.slots) if slot in fresh]
        return self.collector.sample(
            [self.prompts[fresh[slot]] for slot in own], own, step, attempt, progress
        )
