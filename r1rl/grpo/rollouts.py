"""The rollouts of a run, one for each step: prompts drawn in the data's order, sampled, scored, and refilled
where that is asked for.

Legend: P prompts of all processes, G completions per prompt; a process holds every W-th prompt of W
processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator

from r1rl.compute.distributed import gather_shares, own_share
from r1rl.compute.phase_clock import PhaseClock
from r1rl.data import PromptOrder
from r1rl.grpo.collect import Collected, Collector
from r1rl.grpo.recipe import GRPORecipe
from r1rl.types import Prompt

Progress = Callable[[str, int, int], None]


class Rollouts:
    """Each rollout is sampled when its step asks for it, from the policy as it is."""

    def __init__(
        self,
        recipe: GRPORecipe,
        accelerator: Accelerator,
        order: PromptOrder,
        prompts: Sequence[Prompt],
        collector: Collector,
        progress: Progress,
    ) -> None:
        """`progress(phase, done, total)` is told of every finished group."""
        self.recipe = recipe
        self.accelerator = accelerator
        self.order = order
        self.prompts = prompts
        self.collector = collector
        self.progress = progress
        self.slots = range(recipe.rollout.num_prompts)

    def take(self, step: int, clock: PhaseClock) -> Collected:
        """This process's part of the rollout that step `step` (from 0) trains."""
        with clock.phase("rollout"):
            collected = self._refilled(self._sample(self.slots, step, 0, self.progress), step)
        clock.split("rollout", "reward", collected.waited_for_rewards)
        return collected

    @contextmanager
    def meanwhile(self, step: int, clock: PhaseClock) -> Iterator[None]:
        """Around the update before step `step`. Nothing happens beside it here."""
        yield

    def saved(self) -> dict[str, Any] | None:
        """What this process has sampled ahead, for a checkpoint, as plain values."""
        return None

    def go_on(self, saved: Sequence[dict[str, Any]]) -> str:
        """Takes over what all processes had `saved`; returns what a person should know. Here nothing is
        ahead, so nothing is used.
        """
        return ""

    def _refilled(self, collected: Collected, step: int) -> Collected:
        """Dynamic sampling replaces groups without variance by groups of fresh prompts (DAPO, section 3.2).

        Fresh prompts take the slots of the groups that they replace, in slot order, so that any number of
        processes does the same. Groups that still have no variance after `max_refills` rounds stay: their
        advantages are zero.
        """
        algorithm = self.recipe.algorithm
        if not algorithm.dynamic_sampling:
            return collected
        for attempt in range(1, algorithm.max_refills + 1):
            flat = [group.outcome_spread() <= algorithm.variance_tolerance for group in collected.groups]
            slots = [slot for slot, is_flat in enumerate(gather_shares(self.accelerator, flat)) if is_flat]
            if not slots:
                break
            collected = collected.replaced_by(
                self._sample(slots, step, attempt, self.progress), refilled=len(slots)
            )
        return collected

    def _sample(self, slots: Sequence[int], step: int, attempt: int, progress: Progress) -> Collected:
        """Groups for fresh prompts in these slots of all processes; returns those of this one."""
        fresh = dict(zip(slots, self.order.take(len(slots)), strict=True))
        own = [slot for slot in own_share(self.accelerator, self.slots) if slot in fresh]
        return self.collector.collect(
            [self.prompts[fresh[slot]] for slot in own], own, step, attempt, progress
        )
