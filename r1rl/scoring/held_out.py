"""Answer held-out problems with an engine, grade the answers while the others are still being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict

from r1rl.objective.sampling import Sampling
from r1rl.rewards import RewardResult, RewardSet
from r1rl.rollout import RolloutEngine
from r1rl.scoring.record import AnsweredProblem, Evaluation, SampledAnswer
from r1rl.seeds import derive_seed
from r1rl.text.language import consistency
from r1rl.text.reflection import reflects
from r1rl.types import CompletionGroup, Prompt


def evaluate(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    rewards: RewardSet,
    num_samples: int,
    sampling: Sampling,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    gather: Callable[[list[AnsweredProblem]], list[AnsweredProblem]] | None = None,
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
    answered = [
        _answered(prompts[group.index], group, scoring.result(), rewards) for group, scoring in pending
    ]
    problems = answered if gather is None else gather(answered)
    return Evaluation(problems, num_samples, seed, asdict(sampling))


def _answered(
    prompt: Prompt, group: CompletionGroup, result: RewardResult, rewards: RewardSet
) -> AnsweredProblem:
    samples = [
        SampledAnswer(
            text=completion.text,
            length=len(completion.token_ids),
            finish_reason=completion.finish_reason.value,
            outcome=result.outcome[row],
            rewards={name: values[row] for name, values in result.by_name.items()},
            reflects=reflects(completion.text),
            language=consistency(completion.text),
        )
        for row, completion in enumerate(group.completions)
    ]
    problem = prompt.problem
    return AnsweredProblem(
        id=problem.id,
        problem=problem.problem,
        answer=problem.answer,
        prompt=prompt.text,
        samples=samples,
        events=dict(result.events),
        has_outcome=rewards.has_outcome(problem),
        values={column: str(problem.columns.get(column)) for column in rewards.where_columns},
    )
