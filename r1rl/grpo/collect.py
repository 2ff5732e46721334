"""The rollout phase: prompts in, groups of completions with their rewards out.

Legend: P prompts of a batch, G completions per prompt. A prompt's place in the batch of all processes is its
slot; process r of W holds the slots r, r + W, ... Random streams depend on (seed, step, slot, attempt) alone,
so the completions are the same for any number of processes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from r1rl.grpo.recipe import GRPORecipe
from r1rl.objective.sampling import Sampling
from r1rl.rewards import RewardResult, RewardSet
from r1rl.rollout import RolloutEngine
from r1rl.seeds import derive_seed
from r1rl.types import Completion, Prompt


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """The G completions of one prompt and what the rewards said of them."""

    slot: int
    prompt: Prompt
    completions: list[Completion]
    rewards: RewardResult

    def outcome_spread(self) -> float:
        """Largest minus smallest outcome (accuracy) in the group, or reward where no outcome is known; 0 with
        fewer than two.
        """
        known = [value for value in self.rewards.outcome if value is not None] or [
            value for value in self.rewards.total if value == value
        ]
        return max(known) - min(known) if known else 0.0


@dataclass(slots=True)
class Collected:
    """The groups of this process, in the order of their slots, and what happened on the way."""

    groups: list[ScoredGroup]
    events: Counter[str] = field(default_factory=Counter)
    reward_seconds: dict[str, float] = field(default_factory=dict)
    tracebacks: dict[str, str] = field(default_factory=dict)
    """The first traceback of each reward that raised, for display."""
    waited_for_rewards: float = 0.0
    """Seconds between the last completion and the last reward: the part of the grading that neither the
    rollout nor an update hid.
    """
    refilled: int = 0
    """Groups that dynamic sampling replaced, over all processes."""
    sampled_tokens: int = 0
    """Completion tokens that this process sampled, those of groups that were replaced included."""
    lag: int = 0
    """Rollouts that the policy was trained on since it sampled this one: 0, or 1 with `rollout.one_step_off`.
    """

    def replaced_by(self, fresh: Collected, refilled: int) -> Collected:
        """These groups with those of `fresh` in the slots that they share; `refilled` slots were refilled in
        all processes.
        """
        by_slot = {group.slot: group for group in [*self.groups, *fresh.groups]}
        names = {*self.reward_seconds, *fresh.reward_seconds}
        return Collected(
            groups=[by_slot[slot] for slot in sorted(by_slot)],
            events=self.events + fresh.events,
            reward_seconds={
                name: self.reward_seconds.get(name, 0.0) + fresh.reward_seconds.get(name, 0.0)
                for name in names
            },
            waited_for_rewards=self.waited_for_rewards + fresh.waited_for_rewards,
            tracebacks={**fresh.tracebacks, **self.tracebacks},
            refilled=self.refilled + refilled,
            sampled_tokens=self.sampled_tokens + fresh.sampled_tokens,
        )


class Collector:
    """Samples groups and has each rewarded while the others still decode."""

    def __init__(
        self,
        recipe: GRPORecipe,
        engine: RolloutEngine,
        rewards: RewardSet,
        sampling: Sampling,
        refreshes: bool = True,
    ) -> None:
        """`refreshes`: the engine takes over the policy's weights before it samples. Otherwise whoever
        collects sees to that.
        """
        self.recipe = recipe
        self.engine = engine
        self.rewards = rewards
        self.sampling = sampling
        self.refreshes = refreshes

    def collect(
        self,
        prompts: Sequence[Prompt],
        slots: Sequence[int],
        step: int,
        attempt: int,
        progress: Callable[[str, int, int], None],
    ) -> Collected:
        """One group for each prompt. `attempt` counts the refills of a step: a refilled slot draws from a
        stream of its own. `progress(phase, done, total)` is told of every finished group; what it raises ends
        the rollout.
        """
        seeds = [derive_seed(self.recipe.seed, "rollout", step, slot, attempt) for slot in slots]
        num_generations = self.recipe.rollout.num_generations
        pending = []
        token_ids = [prompt.token_ids for prompt in prompts]
        for group in self.engine.generate(
            token_ids, num_generations, self.sampling, seeds, refresh=self.refreshes
        ):
            prompt = prompts[group.index]
            scoring = self.rewards.submit(
                [prompt] * num_generations,
                group.completions,
                self.sampling.max_completion_length,
                prompt.prefill,
            )
            pending.append((group, scoring))
            progress("rollout", len(pending), len(prompts))
        finished_at = time.perf_counter()
        collected = Collected(groups=[])
        for group, scoring in sorted(pending, key=lambda pair: pair[0].index):
            result = scoring.result()
            collected.groups.append(
                ScoredGroup(slots[group.index], prompts[group.index], group.completions, result)
            )
            collected.sampled_tokens += sum(len(completion.token_ids) for completion in group.completions)
            collected.events.update(result.events)
            collected.tracebacks.update(result.tracebacks)
            for name, seconds in result.seconds.items():
                collected.reward_seconds[name] = collected.reward_seconds.get(name, 0.0) + seconds
        collected.waited_for_rewards = time.perf_counter() - finished_at
        return collected
