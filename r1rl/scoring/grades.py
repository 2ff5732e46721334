"""From sampled completions to graded ones, and the answers that count as the same in a majority vote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from r1rl.config.benchmarks import CONTINUATION, BenchmarkConfig
from r1rl.grading import Outcome, grade_many
from r1rl.grading.extract import answer_region, answer_tag
from r1rl.rewards.loader import load_reward
from r1rl.text.language import LANGUAGES, consistency, language_share, main_language
from r1rl.text.reflection import reflects
from r1rl.text.tags import thoughts
from r1rl.types import Prompt, Sample

NO_ANSWER = (Outcome.NO_ANSWER, Outcome.MALFORMED)
"""The answer could not be extracted. These count as not right, under their own names and never as wrong."""
UNDECIDED = (Outcome.TIMEOUT, Outcome.CRASHED, Outcome.UNPARSEABLE_GOLD)
"""The grader could not tell. These are in no score."""


@dataclass(frozen=True, slots=True)
class GradedSample:
    """One completion and what is known of it."""

    sample: int
    text: str
    tokens: int
    finish_reason: str
    outcome: str
    """A value of `r1rl.grading.Outcome`."""
    extracted: str | None
    """The answer that was compared with the gold answer."""
    reflects: bool
    language: float | None
    """The share of the words that are in the completion's main language; None without words."""
    asked_language: float | None = None
    """The share of the words of the thoughts that are in the problem's language (DeepSeek-R1, 2501.12948,
    section 2.3.2); None without words in either.
    """
    well_formed: bool = False
    """Full marks of the format reward: thoughts in think tags, then an answer in answer tags, and nothing
    else.
    """
    outcome_at: dict[int, str] = field(default_factory=dict)
    """The outcome at each lower token limit that would have cut the completion; empty where that can't be
    told.
    """

    @property
    def is_correct(self) -> bool:
        """Graded as right."""
        return self.outcome == Outcome.CORRECT

    @property
    def is_decided(self) -> bool:
        """The grader could tell."""
        return self.outcome not in UNDECIDED

    @property
    def is_truncated(self) -> bool:
        """Cut off by the token limit."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class GradedProblem:
    """One problem with all its graded completions."""

    id: str
    problem: str
    answer: str | None
    groups: dict[str, str]
    """The values of the benchmark's group_by columns."""
    samples: list[GradedSample]
    votes: tuple[tuple[int, ...], int | None, int] | None
    """Sizes of the classes of equivalent answers, the index of the right one, and how many completions gave
    none; None where a vote makes no sense.
    """

    @property
    def num_decided(self) -> int:
        """Completions whose outcome is known."""
        return sum(sample.is_decided for sample in self.samples)

    @property
    def num_correct(self) -> int:
        """Completions that are right."""
        return sum(sample.is_correct for sample in self.samples)

    @property
    def accuracy(self) -> float | None:
        """The share of right ones among those whose outcome is known; None if there are none."""
        return self.num_correct / self.num_decided if self.num_decided else None


def grade_problems(
    config: BenchmarkConfig, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]
) -> list[GradedProblem]:
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
        GradedSample(
            sample=sample.sample,
            text=sample.text,
            tokens=sample.tokens,
            finish_reason=sample.finish_reason,
            outcome=outcome,
            extracted=extracted,
            reflects=reflects(sample.text),
            language=consistency(sample.text),
            asked_language=_share_of_asked_language(prompt, sample),
            well_formed=_is_well_formed(prompt, sample),
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
        votes = count_votes(done) if config.grading in ("strict", "lenient") else None
        problems.append(GradedProblem(problem.id, problem.problem, problem.answer, groups, done, votes))
    return problems


Pairs = Sequence[tuple[Prompt, Sample]]
Verdicts = list[tuple[str, str | None]]


def _graders() -> Mapping[str, Callable[[Pairs], Verdicts]]:
    """What `grading` may say in a recipe."""
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
    """A built-in reward, whose rule is the same here and in training."""
    return load_reward(name, Path()).function


def _share_of_asked_language(prompt: Prompt, sample: Sample) -> float | None:
    asked = main_language(prompt.problem.problem)
    return language_share(thoughts(prompt.prefill + sample.text), asked) if asked in LANGUAGES else None


def _is_well_formed(prompt: Prompt, sample: Sample) -> bool:
    return bool(_reward("format")([sample.text], prompt.prefill) == [1.0])


def _grade_countdown(prompt: Prompt, sample: Sample) -> tuple[str, str | None]:
    """The countdown reward has the rule, and its event is the outcome; it reads the answer tag, as here."""
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
    """Right if the completion begins with the words of the answer, whatever the space between them."""
    expected, words = str(prompt.problem.answer).split(), sample.text.split()
    if not words:
        return Outcome.NO_ANSWER.value, None
    return (Outcome.CORRECT if words[: len(expected)] == expected else Outcome.WRONG).value, " ".join(
        words[: len(expected)]
    )


def count_votes(samples: Sequence[GradedSample]) -> tuple[tuple[int, ...], int | None, int]:
    """The classes of a majority vote: their sizes, the index of the right one (None if no completion is
    right), and the number of completions without an answer.

    All right answers are one class, by the grader's own verdict. The others are put together where the grader
    takes one for the other. Answers that it could not decide on are votes for something else than the gold
    answer.
    """
    correct = sum(sample.is_correct for sample in samples)
    others = Counter(
        sample.extracted for sample in samples if not sample.is_correct and sample.extracted is not None
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
