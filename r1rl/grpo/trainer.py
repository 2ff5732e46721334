"""Group Relative Policy Optimization: one step of it, as four calls.

A step, with pi_old the policy that samples (DeepSeekMath 2402.03300, section 4.1; DeepSeek-R1 2501.12948,
section 2.2.1):

    for each of P prompts q:   o_1 .. o_G ~ pi_old(. | q)                                       rollout
                               r_i = sum_k weight_k reward_k(q, o_i)                            rewards
                               A_i = (r_i - mean(r)) / std(r)                                   advantages
    J(theta) = sum_i w_i sum_t min(rho_it A_i, clip(rho_it, 1 - eps_low, 1 + eps_high) A_i)     update
               - beta KL(pi_theta || pi_ref),     rho_it = pi_theta(o_it | q, o_i<t) / pi_old(o_it | q, o_i<t)

pi_old is the policy that the update starts from, or with `rollout.one_step_off` the one before: then the next
rollout is sampled while the update runs. docs/algorithms.md has the variants and the recipe keys that choose
them.

Legend: P prompts of all processes, G completions per prompt, B = P * G; a process holds every W-th prompt of
W processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r1rl.compute.distributed import gather_shares
from r1rl.compute.phase_clock import PhaseClock
from r1rl.errors import RewardError
from r1rl.grpo.collect import Rollout, SampledGroup, ScoredGroup
from r1rl.grpo.recipe import GRPORecipe
from r1rl.grpo.report import step_metrics
from r1rl.grpo.setup import GRPOParts
from r1rl.objective.advantages import group_advantages
from r1rl.policy.batching import build_train_batch
from r1rl.runs.checkpoint import TrainingState


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one step: its metrics (the same in every process), and this process's groups with their
    advantages [groups, G].
    """

    metrics: dict[str, float]
    groups: list[ScoredGroup]
    advantages_PG: Tensor
    tracebacks: dict[str, str]
    """The tracebacks of rewards that raised for the first time, by reward."""


class GRPOTrainer:
    """The steps of a GRPO run. It owns a step's order; everything that does work is in `GRPOParts`."""

    def __init__(self, recipe: GRPORecipe, parts: GRPOParts, state: TrainingState) -> None:
        self.recipe = recipe
        self.parts = parts
        self.state = state
        self.clock = PhaseClock(parts.accelerator)
        """The times of the step that is under way."""
        self.result = StepResult({}, [], torch.empty(0, 0), {})
        """The result of the last step; empty before the first."""

    def step(self) -> StepResult:
        """Do one GRPO step; the equation is above."""
        sampled = self.rollout()
        rollout = self.rewards(sampled)
        advantages_PG = self.advantages(rollout)
        return self.update(rollout, advantages_PG)

    def rollout(self) -> list[SampledGroup]:
        """Begin a step: sample this process's groups of completions. Each is being rewarded while others
        decode.
        """
        self.clock = PhaseClock(self.parts.accelerator)
        return self.parts.rollouts.sample(self.state.step, self.clock)

    def rewards(self, sampled: Sequence[SampledGroup]) -> Rollout:
        """Wait for the rewards. Dynamic sampling then puts fresh groups in the place of those without
        variance.
        """
        return self.parts.rollouts.score(sampled, self.state.step, self.clock)

    def advantages(self, rollout: Rollout) -> Tensor:
        """Return the advantages [groups of this process, G]; computed over all processes, because a batch's
        deviation needs every reward. Raises RewardError if no reward applied in the whole first step.
        """
        accelerator = self.parts.accelerator
        rewards_PG = torch.tensor(
            gather_shares(accelerator, [group.rewards.total for group in rollout.groups]), dtype=torch.float64
        )
        if self.state.step == 0 and bool(rewards_PG.isnan().all()):
            raise _nothing_to_learn(rollout.groups)
        advantages_PG = group_advantages(rewards_PG, self.recipe.algorithm, self.parts.estimator)
        return advantages_PG[accelerator.process_index :: accelerator.num_processes]

    def update(self, rollout: Rollout, advantages_PG: Tensor) -> StepResult:
        """Train the policy on the groups with their advantages, and end the step."""
        order = self.parts.order.state_dict()  # a prefetch draws further prompts
        with self.parts.rollouts.prefetch(self.state.step + 1, self.clock), self.clock.phase("update"):
            batch = build_train_batch(
                [group.prompt.token_ids for group in rollout.groups for _ in group.completions],
                [completion for group in rollout.groups for completion in group.completions],
                advantages_PG.flatten(),
                with_sampler_logprobs=True,
                lagged=rollout.lag > 0,
            )
            update = self.parts.update.run(
                batch, lambda done, total: self.parts.display.phase("update", done, total)
            )
        self.state.step += 1
        self.state.order = order
        self.state.seconds += self.clock.stop()
        metrics = step_metrics(self.recipe, rollout, self.clock.slowest(), self.parts.accelerator)
        self.result = StepResult(
            {**metrics, **update}, rollout.groups, advantages_PG, dict(rollout.counts.tracebacks)
        )
        return self.result


def _nothing_to_learn(groups: Sequence[ScoredGroup]) -> RewardError:
    raised = [
        trace.strip().splitlines()[-1] for group in groups for trace in group.rewards.tracebacks.values()
    ]
    return RewardError(
        f"rewards: none applied to any completion of the first step, so there is nothing to learn. "
        f"{' '.join(raised)}"
    )
