"""Group Relative Policy Optimization: the loop, one step of it, and what surrounds it.

A step, with pi_old the policy that samples (DeepSeekMath 2402.03300, section 4.1; DeepSeek-R1 2501.12948,
section 2.2.1):

    for each of P prompts q:   o_1 .. o_G ~ pi_old(. | q)                                       rollout
                               r_i = sum_k weight_k reward_k(q, o_i)                            rewards
                               A_i = (r_i - mean(r)) / std(r)                                   advantages
    J(theta) = sum_i w_i sum_t min(rho_it A_i, clip(rho_it, 1 - eps_low, 1 + eps_high) A_i)     update
               - beta KL(pi_theta || pi_ref),      rho_it = pi_theta(o_it | q, o_i<t) / pi_old(o_it | q, o_i<t)

pi_old is the policy that the update starts from, or with `rollout.one_step_off` the one before: then the next
rollout is sampled while the update runs. docs/algorithms.md has the variants and the recipe keys that choose
them.

Legend: P prompts of all processes, G completions per prompt, B = P * G; a process holds every W-th prompt of
W processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r1rl.compute.distributed import gather_shares
from r1rl.compute.phase_clock import PhaseClock
from r1rl.errors import RewardError
from r1rl.grpo.collect import ScoredGroup
from r1rl.grpo.recipe import GRPORecipe
from r1rl.grpo.report import step_metrics
from r1rl.grpo.setup import GRPOParts
from r1rl.objective.advantages import group_advantages
from r1rl.policy.batching import build_train_batch
from r1rl.runs.checkpoint import TrainingState


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step: its metrics (the same in every process), and this process's groups with their advantages
    [groups, G].
    """

    metrics: dict[str, float]
    groups: list[ScoredGroup]
    advantages_PG: Tensor
    tracebacks: dict[str, str]
    """Of rewards that raised for the first time."""


class GRPOTrainer:
    """Runs GRPO steps. It owns the step's order; everything that does work is in `GRPOParts`."""

    def __init__(self, recipe: GRPORecipe, parts: GRPOParts, state: TrainingState) -> None:
        self.recipe = recipe
        self.parts = parts
        self.state = state

    def step(self) -> StepResult:
        """One GRPO step; the equation is above."""
        clock = PhaseClock(self.parts.accelerator)
        collected = self.parts.rollouts.take(self.state.step, clock)
        self.state.order = self.parts.order.state_dict()
        advantages_PG = self._advantages(collected.groups)
        with self.parts.rollouts.meanwhile(self.state.step + 1, clock), clock.phase("update"):
            batch = build_train_batch(
                [group.prompt.token_ids for group in collected.groups for _ in group.completions],
                [completion for group in collected.groups for completion in group.completions],
                advantages_PG.flatten(),
                with_sampler_logprobs=True,
                lagged=collected.lag > 0,
            )
            update = self.parts.update.run(
                batch, lambda done, total: self.parts.display.phase("update", done, total)
            )
        self.state.step += 1
        self.state.seconds += clock.stop()
        metrics = step_metrics(self.recipe, collected, clock.slowest(), self.parts.accelerator)
        return StepResult({**metrics, **update}, collected.groups, advantages_PG, collected.tracebacks)

    def _advantages(self, groups: list[ScoredGroup]) -> Tensor:
        """Advantages of this process's groups; computed over all processes, because a batch's deviation needs
        every reward.
        """
        accelerator = self.parts.accelerator
        rewards_PG = torch.tensor(
            gather_shares(accelerator, [group.rewards.total for group in groups]), dtype=torch.float64
        )
        if self.state.step == 0 and bool(rewards_PG.isnan().all()):
            raised = [
                trace.strip().splitlines()[-1]
                for group in groups
                for trace in group.rewards.tracebacks.values()
            ]
            raise RewardError(
                f"rewards: none applied to any completion of the first step, so there is nothing to learn. "
                f"{' '.join(raised)}"
            )
        advantages_PG = group_advantages(rewards_PG, self.recipe.algorithm, self.parts.estimator)
        return advantages_PG[accelerator.process_index :: accelerator.num_processes]
