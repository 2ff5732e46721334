"""The grading of sampled completions by the rule of a benchmark, and the answers that a majority vote counts
as the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from r1rl.config.benchmarks import CONTINUATION, BenchmarkConfig
from r1rl.grading import Outcome, grade_many
from r1rl.grading.extract import answer_region, answer_tag
from r1rl.rewards.loader import load_reward
from r1rl.scoring.completions import UNDECIDED, ScoredCompletion, ScoredProblem, Traits, Votes
from r1rl.types import Prompt, Sample


def grade_problems(
    config: BenchmarkConfig, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]
) -> list[ScoredProblem]:
    """Grade each prompt's completions, whole and as every lower limit would have cut them; `samples[i]` are
    those of `prompts[i]`.
    """
    pairs = [(prompt, sample) for prompt, own in zip(prompts, samples, strict=True) for sample in own]
    shorter = [
        (prompt, replace(sample, text=sample.text[:end]))
        for prompt, sample in pairs
        for _, end in sample.cuts
    ]
    verdicts = _graders()[config.grading]([*pairs, *shorter])
    outcomes = iter(outcome for outcome, _ in verdicts[len(pairs) :])
    graded = iter(
        ScoredCompletion(
            sample=sample.sample,
            text=sample.text,
            num_tokens=sample.tokens,
            finish_reason=sample.finish_reason,
            correct=None if outcome in UNDECIDED else outcome == Outcome.CORRECT,
            traits=Traits.of(prompt, sample.text),
            well_formed=_is_well_formed(prompt, sample),
            outcome=outcome,
            extracted=extracted,
            outcome_at={limit: next(outcomes) for limit, _ in sample.cuts},
        )
        for (prompt, sample), (outcome, extracted) in zip(pairs, verdicts[: len(pairs)], strict=True)
    )
    problems = []
    for prompt, own in zip(prompts, samples, strict=True):
        problem, done = prompt.problem, [next(graded) for _ in own]
        groups = {
            column: str(problem.columns[column])
            for column in config.group_by
            if problem.columns.get(column) is not None
        }
        problems.append(
            ScoredProblem(
                id=problem.id,
                problem=problem.problem,
                answer=problem.answer,
                prompt=prompt.text,
                samples=done,
                groups=groups,
                votes=count_votes(done) if config.grading in ("strict", "lenient") else None,
            )
        )
    return problems


Pairs = Sequence[tuple[Prompt, Sample]]
Verdicts = list[tuple[str, str | None]]


def _graders() -> Mapping[str, Callable[[Pairs], Verdicts]]:
    """Return the graders by what `grading` may say in a recipe."""
    return {
        "strict": lambda pairs: _grade_answers(pairs, "strict"),
        "lenient": lambda pairs: _grade_answers(pairs, "lenient"),
        "countdown": lambda pairs: [_grade_countdown(prompt, sample) for prompt, sample in pairs],
        CONTINUATION: lambda pairs: [_grade_continuation(prompt, sample) for prompt, sample in pairs],
    }


def _grade_answers(pairs: Pairs, mode: str) -> Verdicts:
    verdicts: Verdicts = [(Outcome.UNPARSEABLE_GOLD.value, None)] * len(pairs)
    by_prefill: dict[str, list[int]] = {}
    for row, (prompt, _) in enumerate(pairs):
        if prompt.problem.answer is not None:
            by_prefill.setdefault(prompt.prefill, []).append(row)
    for prefill, rows in by_prefill.items():
        texts = [pairs[row][1].text for row in rows]
        grades = grade_many(texts, [str(pairs[row][0].problem.answer) for row in rows], mode, prefill)
        for row, grade in zip(rows, grades, strict=True):
            verdicts[row] = (grade.outcome.value, grade.extracted)
    return verdicts


@lru_cache(maxsize=2)
def _reward(name: str) -> Callable[..., Any]:
    """Return a built-in reward, whose rule is the same here and in training."""
    return load_reward(name, Path()).function


def _is_well_formed(prompt: Prompt, sample: Sample) -> bool:
    return bool(_reward("format")([sample.text], prompt.prefill) == [1.0])


def _grade_countdown(prompt: Prompt, sample: Sample) -> tuple[str, str | None]:
    """Grade by the countdown reward: its event is the outcome; it reads the answer tag, as is done here."""
    columns = prompt.problem.columns
    events: Counter[str] = Counter()
    _reward("countdown")(
        [sample.text], [columns.get("numbers")], [columns.get("target")], prompt.prefill, events=events
    )
    (event,) = events
    return event.removeprefix("grading/"), answer_tag(
        answer_region(sample.text, prompt.prefill) or "", prompt.prefill
    )


def _grade_continuation(prompt: Prompt, sample: Sample) -> tuple[str, str | None]:
    """Grade as right if the completion begins with the words of the answer, whatever the space between."""
    expected, words = str(prompt.problem.answer).split(), sample.text.split()
    if not words:
        return Outcome.NO_ANSWER.value, None
    return (Outcome.CORRECT if words[: len(expected)] == expected else Outcome.WRONG).value, " ".join(
        words[: len(expected)]
    )


def count_votes(samples: Sequence[ScoredCompletion]) -> Votes:
    """Return the majority vote of a problem's completions.

    All right answers are one class, by the grader's own verdict. The others are put together where the grader
    takes one for the other. Answers that it could not decide on are votes for something else than the gold
    answer.
    """
    correct = sum(bool(sample.correct) for sample in samples)
    others = Counter(
        sample.extracted for sample in samples if not sample.correct and sample.extracted is not None
    )
    classes: list[tuple[str, int]] = []
    for text, count in others.items():
        same = grade_many(
            [f"\\boxed{{{text}}}"] * len(classes), [representative for representative, _ in classes]
        )
        place = next((place for place, grade in enumerate(same) if grade.correct), None)
        if place is None:
            classes.append((text, count))
        else:
            classes[place] = (classes[place][0], classes[place][1] + count)
    sizes = [size for _, size in classes]
    abstained = len(samples) - correct - sum(sizes)
    return tuple([*sizes, correct] if correct else sizes), len(sizes) if correct else None, abstained
