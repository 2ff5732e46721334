"""Evaluations within a training run: completions of held-out problems, scored by the recipe's rewards while
the others are still being written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict

from r1rl.objective.sampling import Sampling
from r1rl.rewards import RewardResult, RewardSet
from r1rl.rollout import RolloutEngine
from r1rl.scoring.completions import ScoredCompletion, ScoredProblem, Traits
from r1rl.scoring.record import Evaluation
from r1rl.seeds import derive_seed
from r1rl.types import CompletionGroup, Prompt

FORMAT_REWARD = "format"
"""The reward whose full marks mean that a completion is well-formed."""


def evaluate(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    rewards: RewardSet,
    num_samples: int,
    sampling: Sampling,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    gather: Callable[[list[ScoredProblem]], list[ScoredProblem]] | None = None,
) -> Evaluation:
    """Sample `num_samples` completions of each prompt and score them with the recipe's rewards.

    The samples of a problem depend on (seed, problem id) alone: they are the same for any subset, order and
    number of processes, and two models are compared on the same random streams. With several processes,
    `prompts` are this process's share and `gather` merges the shares on each of them. `progress(done, total)`
    is called for each finished prompt.
    """
    seeds = [derive_seed(seed, "evaluation", prompt.problem.id) for prompt in prompts]
    pending: list[tuple[CompletionGroup, Future[RewardResult]]] = []
    for group in engine.generate([prompt.token_ids for prompt in prompts], num_samples, sampling, seeds):
        prompt = prompts[group.index]
        scoring = rewards.submit(
            [prompt] * num_samples, group.completions, sampling.max_completion_length, prompt.prefill
        )
        pending.append((group, scoring))
        if progress is not None:
            progress(len(pending), len(prompts))
    pending.sort(key=lambda pair: pair[0].index)
    scored = [_scored(prompts[group.index], group, scoring.result(), rewards) for group, scoring in pending]
    problems = scored if gather is None else gather(scored)
    return Evaluation(problems, num_samples, seed, asdict(sampling))


def _scored(
    prompt: Prompt, group: CompletionGroup, result: RewardResult, rewards: RewardSet
) -> ScoredProblem:
    problem = prompt.problem
    return ScoredProblem(
        id=problem.id,
        problem=problem.problem,
        answer=problem.answer,
        prompt=prompt.text,
        samples=[
            ScoredCompletion(
                sample=row,
                text=completion.text,
                num_tokens=len(completion.token_ids),
                finish_reason=completion.finish_reason.value,
                correct=reaches_one(result.outcome[row]),
                traits=Traits.of(prompt, completion.text),
                well_formed=reaches_one(result.by_name[FORMAT_REWARD][row])
                if FORMAT_REWARD in result.by_name
                else None,
                rewards={name: values[row] for name, values in result.by_name.items()},
            )
            for row, completion in enumerate(group.completions)
        ],
        groups={column: str(problem.columns.get(column)) for column in rewards.where_columns},
        has_outcome=rewards.has_outcome(problem),
        events=dict(result.events),
    )


def reaches_one(value: float | None) -> bool | None:
    """Return whether a reward gives full marks; None where it tells nothing."""
    return None if value is None else value >= 1.0
