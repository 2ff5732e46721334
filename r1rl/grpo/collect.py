"""The rollout phase: prompts in, groups of completions with their rewards out.

Legend: P prompts of a batch, G completions per prompt. A prompt's place in the batch of all processes is its
slot; process r of W holds the slots r, r + W, ... Random streams depend on (seed, step, slot, attempt) alone,
so the completions are the same for any number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from r1rl.grpo.recipe import GRPORecipe
from r1rl.objective.sampling import Sampling
from r1rl.rewards import RewardResult, RewardSet
from r1rl.rollout import RolloutEngine
from r1rl.seeds import derive_seed
from r1rl.types import Completion, Prompt

Number = TypeVar("Number", int, float)

Progress = Callable[[str, int, int], None]
"""A function that is told of progress: phase, done, total. An exception that it raises ends the work."""


@dataclass(frozen=True, slots=True)
class SampledGroup:
    """The G completions of one prompt, whose rewards may still be on their way."""

    slot: int
    prompt: Prompt
    completions: list[Completion]
    scoring: Future[RewardResult]


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """The G completions of one prompt and their rewards."""

    slot: int
    prompt: Prompt
    completions: list[Completion]
    rewards: RewardResult

    def outcome_spread(self) -> float:
        """Return the largest minus the smallest outcome (accuracy) in the group, or reward where no outcome
        is known; 0 with fewer than two.
        """
        known = [value for value in self.rewards.outcome if value is not None] or [
            value for value in self.rewards.total if value == value
        ]
        return max(known) - min(known) if known else 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """The events and sums of a rollout in one process; those of several rollouts add up."""

    events: Mapping[str, int] = field(default_factory=dict)
    """Everything that went wrong with rewards, in rows."""
    reward_seconds: Mapping[str, float] = field(default_factory=dict)
    tracebacks: Mapping[str, str] = field(default_factory=dict)
    """The first traceback of each reward that raised, for display."""
    waited_for_rewards: float = 0.0
    """Seconds between the last completion and the last reward: the part of the grading that neither the
    rollout nor an update hid.
    """
    sampled_tokens: int = 0
    """Completion tokens that this process sampled, those of groups that were replaced included."""

    @classmethod
    def of(cls, groups: Sequence[ScoredGroup], waited_for_rewards: float) -> Counts:
        """Return the counts of groups that were sampled and scored together."""
        total = cls(waited_for_rewards=waited_for_rewards)
        for group in groups:
            tokens = sum(len(completion.token_ids) for completion in group.completions)
            rewards = group.rewards
            total += cls(rewards.events, rewards.seconds, rewards.tracebacks, sampled_tokens=tokens)
        return total

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            events=_added(self.events, other.events),
            reward_seconds=_added(self.reward_seconds, other.reward_seconds),
            tracebacks={**other.tracebacks, **self.tracebacks},
            waited_for_rewards=self.waited_for_rewards + other.waited_for_rewards,
            sampled_tokens=self.sampled_tokens + other.sampled_tokens,
        )


def _added(one: Mapping[str, Number], other: Mapping[str, Number]) -> dict[str, Number]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in dict.fromkeys((*one, *other))}


@dataclass(frozen=True, slots=True)
class Rollout:
    """The scored groups of this process, in the order of their slots, and what happened on the way."""

    groups: list[ScoredGroup]
    counts: Counts
    refilled: int = 0
    """Groups that dynamic sampling replaced, over all processes."""
    lag: int = 0
    """Rollouts that the policy was trained on since it sampled this one: 0, or 1 with `rollout.one_step_off`.
    """

    def replaced_by(self, fresh: Rollout, refilled: int) -> Rollout:
        """Return these groups with those of `fresh` in the slots that they share; `refilled` slots were
        refilled in all processes.
        """
        by_slot = {group.slot: group for group in [*self.groups, *fresh.groups]}
        return Rollout(
            groups=[by_slot[slot] for slot in sorted(by_slot)],
            counts=self.counts + fresh.counts,
            refilled=self.refilled + refilled,
            lag=self.lag,
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
        """Take the engine and the rewards of a run. `refreshes`: the engine takes over the policy's weights
        before it samples; if false, whoever collects has it do so.
        """
        self.recipe = recipe
        self.engine = engine
        self.rewards = rewards
        self.sampling = sampling
        self.refreshes = refreshes

    def sample(
        self, prompts: Sequence[Prompt], slots: Sequence[int], step: int, attempt: int, progress: Progress
    ) -> list[SampledGroup]:
        """Return one group for each prompt, in order, whose rewards are being computed.

        `attempt` counts the refills of a step: a refilled slot draws from a stream of its own. `progress` is
        told of every finished group.
        """
        seeds = [derive_seed(self.recipe.seed, "rollout", step, slot, attempt) for slot in slots]
        num_generations = self.recipe.rollout.num_generations
        token_ids = [prompt.token_ids for prompt in prompts]
        sampled: dict[int, SampledGroup] = {}
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
            sampled[group.index] = SampledGroup(slots[group.index], prompt, group.completions, scoring)
            progress("rollout", len(sampled), len(prompts))
        return [sampled[place] for place in sorted(sampled)]

    @staticmethod
    def score(sampled: Sequence[SampledGroup]) -> Rollout:
        """Wait for the rewards of the groups."""
        started = time.perf_counter()
        groups = [
            ScoredGroup(group.slot, group.prompt, group.completions, group.scoring.result())
            for group in sampled
        ]
        return Rollout(groups, Counts.of(groups, time.perf_counter() - started))
