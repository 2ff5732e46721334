"""The rounds of `r1rl generate`: what is asked in each, and the sampling of what a round's log still lacks.

The first round answers every problem `num_samples` times. The second, where the recipe has a `verification`,
shows each of those answers and asks to check and improve it. Completion g of problem p has the same key, (p's
id, g), in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from r1rl.errors import DataError, RecipeError
from r1rl.generate.recipe import COMPLETION
from r1rl.sampling_jobs.sample_log import SampleIndex, SampleLog
from r1rl.sampling_jobs.samplers import Request, Sampler
from r1rl.seeds import derive_seed
from r1rl.types import Problem, Prompt, Sample

T = TypeVar("T")
Key = tuple[str, int]

ANSWER, VERIFY = "answer", "verify"
"""The rounds' names: of their folders, and in the column `round`."""
CHUNK_TOKENS = 32_000_000
"""One call of the engine gets at most so many tokens' worth of requests, since it keeps what it wrote until
it returns.
"""


def read_question(text: str, key: str, wanted: str) -> str:
    """Return a question of the recipe, or that of the .txt file that it names. Raises RecipeError if it lacks
    the text `wanted`.
    """
    if not text.endswith(".txt"):
        return text
    path = Path(text).expanduser()
    try:
        content = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeError(f"{key}: {path} can't be read: {reason}.") from None
    if wanted not in content:
        raise RecipeError(f"{key}: {path} does not contain {wanted}.")
    return content


@dataclass(frozen=True, slots=True)
class Question:
    """A text in which {problem} and the names of columns in braces stand for a problem's values."""

    text: str
    key: str
    """The recipe's, for messages."""

    def ask(self, problem: Problem, completion: str | None = None) -> Problem:
        """Return the problem as the model gets to read it. `completion` is what {completion} stands for,
        instead of the column of that name.

        Raises DataError where {completion} stands for nothing.
        """
        values = {**problem.columns, "answer": problem.answer, "problem": problem.problem}
        if completion is not None:
            values["completion"] = completion
        if COMPLETION in self.text and not isinstance(values.get("completion"), str):
            raise DataError(
                f"{self.key} has {COMPLETION}, but the problem {problem.id} ({problem.place}) has no text "
                f"in such a column."
            )
        names = "|".join(re.escape(name) for name in sorted(values, key=len, reverse=True))
        return replace(
            problem, problem=re.sub(rf"\{{({names})\}}", lambda match: str(values[match[1]]), self.text)
        )


@dataclass(slots=True)
class Round:
    """One round: its log, its keys in the order of the output, and how a key's prompt is made."""

    name: str
    folder: Path
    keys: list[Key]
    prompts: Callable[[Sequence[Key]], list[Prompt]]
    """The prompts of keys; the prompt's problem is the one with its own text, not the question."""


def first_round(
    folder: Path, problems: Sequence[Problem], num_samples: int, question: Question, sampler: Sampler
) -> Round:
    """Make the round that asks every problem `num_samples` times.

    All prompts are rendered at once: the samples of a problem share one.
    """
    rendered = sampler.render([question.ask(problem) for problem in problems])
    by_id = {
        problem.id: replace(prompt, problem=problem)
        for problem, prompt in zip(problems, rendered, strict=True)
    }
    keys = [(problem.id, index) for problem in problems for index in range(num_samples)]
    return Round(ANSWER, folder / ANSWER, keys, lambda keys: [by_id[identity] for identity, _ in keys])


def second_round(folder: Path, first: Round, question: Question, sampler: Sampler) -> Round:
    """Make the round that shows the model every completion of the first round with its problem."""
    index = SampleIndex.of(first.folder)

    def prompts(keys: Sequence[Key]) -> list[Prompt]:
        asked = first.prompts(keys)
        answers = [
            prompt.prefill + sample.text for prompt, sample in zip(asked, index.read(keys), strict=True)
        ]
        questions = [
            question.ask(prompt.problem, answer) for prompt, answer in zip(asked, answers, strict=True)
        ]
        return [
            replace(new, problem=old.problem)
            for new, old in zip(sampler.render(questions), asked, strict=True)
        ]

    return Round(VERIFY, folder / VERIFY, [key for key in first.keys if key in index.places], prompts)


@dataclass(slots=True)
class Tally:
    """The number of completions that one process sampled in a round, and of those that it could not
    sample.
    """

    completions: int = 0
    tokens: int = 0
    too_long: int = 0
    """Prompts that leave no room for a completion, or are longer than the recipe allows."""
    refused: int = 0
    """Requests that a server would not take."""


def sample_missing(
    one: Round,
    own: Sequence[Key],
    sampler: Sampler,
    seed: int,
    max_completion_length: int,
    max_prompt_tokens: int | None,
    log: SampleLog,
    advance: Callable[[], None],
) -> Tally:
    """Sample the completions of `own` keys, each from its own seed, into the log, which is open; `advance` is
    called after each.

    A prompt that does not fit is left out and counted. Raises UserError where no prompt fits, or the server
    takes none.
    """
    tally = Tally()
    rooms = [None if sampler.context is None else sampler.context - max_completion_length, max_prompt_tokens]
    room = min((one for one in rooms if one is not None), default=None)
    for keys in chunks(own, max(64, CHUNK_TOKENS // max_completion_length)):
        prompts = one.prompts(keys)
        fitting = [
            Request(prompt, index, sample_seed(seed, one.name, identity, index))
            for prompt, (identity, index) in zip(prompts, keys, strict=True)
            if room is None or len(prompt.token_ids) <= room
        ]
        tally.too_long += len(keys) - len(fitting)
        before = tally.completions
        for sample in sampler.sample(fitting, max_completion_length) if fitting else ():
            log.append(sample)
            tally.completions += 1
            tally.tokens += sample.tokens
            advance()
        tally.refused += len(fitting) - (tally.completions - before)
    return tally


def sample_seed(seed: int, name: str, problem: str, sample: int) -> int:
    """Return the seed of one completion: it does not depend on which other ones are sampled, in which order,
    or by how many processes.
    """
    return derive_seed(seed, "generate", name, problem, sample)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in order, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def in_output_order(one: Round) -> Iterator[tuple[Prompt, Sample]]:
    """Yield the completions of the round's log, in the order of its keys, each with its prompt."""
    index = SampleIndex.of(one.folder)
    for keys in chunks([key for key in one.keys if key in index.places], 256):
        yield from zip(one.prompts(keys), index.read(keys), strict=True)
