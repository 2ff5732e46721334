"""The recipe of `r1rl select`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from r1rl.config.fields import option, required, section
from r1rl.config.intervals import COUNT, COUNT_OR_OFF, NOT_NEGATIVE, POSITIVE, SHARE, Interval
from r1rl.config.issues import Contradiction

OUTCOME_STEPS = ("difficulty", "correct")
"""The steps that use the grades of the answers."""
STEPS = (
    "contaminated", *OUTCOME_STEPS, "finish_reason", "length", "format", "layout", "language", "repetition",
    "exact_duplicates", "near_duplicate_completions", "near_duplicate_problems", "per_problem", "cap",
)  # fmt: skip
"""The steps in the order in which they run."""
GRADE = "grade"
"""The entry of a source's `skip` that says that its answers are not graded at all."""


@dataclass(kw_only=True, slots=True)
class CompletionSourceConfig:
    """A file of completions."""

    path: str = required(
        "a .jsonl/.json/.parquet/.csv file with the columns problem and completion, such as "
        "runs/NAME/completions.jsonl, or a generator: small_talk, solved_countdown",
        path="data",
    )
    arguments: dict[str, Any] = option({}, "the generator's arguments, such as {count: 4096}")
    name: str | None = option(
        None, "its name in the report and in the column source; null: the file's folder, or its own name"
    )
    columns: dict[str, str] = option(
        {}, "our column: theirs, for problem, completion, answer, prefill, finish_reason and tokens"
    )
    where: dict[str, Any] = option(
        {}, "keep rows whose column has this value or one of these values, such as {round: verify}"
    )
    skip: list[str] = option(
        [],
        "steps that its rows skip: grade (for writing and chat, which no rule can check), or other steps by "
        "name",
    )
    cap: int | None = option(None, "at most so many of its rows are kept, a random choice", within=COUNT)


@dataclass(kw_only=True, slots=True)
class GradeConfig:
    """The reward that says whether an answer is right."""

    function: str = option(
        "accuracy",
        "a built-in reward (accuracy, countdown, code_execution), a module or a file, as in rewards of r1rl "
        "grpo",
        path="code",
    )
    arguments: dict[str, Any] = option({}, "keyword arguments for the function")
    right: float = option(1.0, "an answer is right if its reward is at least this", within=Interval())
    timeout: float = option(
        300.0,
        "seconds for a batch of 256 answers; what is not graded by then counts as a timeout",
        within=POSITIVE,
    )


@dataclass(kw_only=True, slots=True)
class FilterConfig:
    """The conditions on each single completion."""

    finish_reasons: list[str] = option(
        ["eos", "stop"],
        "the finish reasons that are allowed; empty: any. A row without a finish_reason passes",
    )
    min_tokens: int = option(
        0, "least value of its column tokens; a row without one passes", within=COUNT_OR_OFF
    )
    max_tokens: int | None = option(
        None, "largest value of its column tokens; a row without one passes", within=COUNT
    )
    format: Literal["any", "think", "think_answer"] = option(
        "any",
        "think: thoughts that end in one </think>, and text after it; think_answer: full marks of the "
        "format reward",
    )
    code_blocks: bool = option(True, "false: no ``` within the thoughts")
    max_paragraph_words: int | None = option(None, "the longest paragraph of the thoughts", within=COUNT)
    language: str | None = option(
        None,
        "the language of the thoughts, such as en; main: the language of most of their words; null: any",
    )
    min_language: float = option(0.95, "the share of words in that language", within=SHARE)
    max_repetition: float | None = option(None, "the share of repeated word n-grams", within=SHARE)
    repetition_ngram: int = option(10, "words of such an n-gram", within=COUNT)


@dataclass(kw_only=True, slots=True)
class DuplicateConfig:
    """The criteria for equal rows, of which the first one stays."""

    exact: bool = option(True, "the same problem and completion, but for white space")
    near_completions: float | None = option(
        None, "completions of one problem that share this much of their word 5-grams (Jaccard)", within=SHARE
    )
    near_problems: float | None = option(
        None,
        "problems with the same numbers that share this much of their word 3-grams (Jaccard); the "
        "completions of the first one stay",
        within=SHARE,
    )


@dataclass(kw_only=True, slots=True)
class DecontaminationConfig:
    """The removal of problems that a benchmark has."""

    benchmarks: list[str] = option(
        [], "names from docs/benchmarks.md, or data files; empty: nothing is looked for", path="data"
    )
    local_dir: str | None = option(
        None, "folder with the benchmarks' files; one that is not in it comes from the hub", path="any"
    )
    threshold: float = option(
        0.6,
        "the score from which a problem counts as contaminated; docs/select.md says how it is computed",
        within=Interval(above=0, most=1),
    )


@dataclass(kw_only=True, slots=True)
class DifficultyConfig:
    """The share of a problem's decided completions that are right."""

    min_pass_rate: float = option(0.0, "problems with a lower one are left out", within=SHARE)
    max_pass_rate: float = option(1.0, "problems with a higher one are left out", within=SHARE)


@dataclass(kw_only=True, slots=True)
class SelectRecipe:
    """`r1rl select`: the completions that are worth learning from."""

    run_name: str = required(
        "names the run directory; what an earlier selection of that name wrote is replaced"
    )
    output_dir: str = option("runs", "run directories are made in here")
    seed: int = option(0, "seed of every random choice", within=NOT_NEGATIVE)
    sources: list[CompletionSourceConfig] = required(
        "the files, in order of preference where rows are the same"
    )
    grade: GradeConfig = section(GradeConfig, "the reward that says whether an answer is right")
    decontamination: DecontaminationConfig = section(DecontaminationConfig, "benchmark problems to remove")
    difficulty: DifficultyConfig = section(DifficultyConfig, "the problems that are kept, by their pass rate")
    filters: FilterConfig = section(FilterConfig, "the completions that are kept")
    duplicates: DuplicateConfig = section(DuplicateConfig, "the criteria for equal rows")
    per_problem: int | None = option(
        None, "most completions of a problem that are kept, over all sources", within=COUNT
    )
    prefer: Literal["shortest", "longest", "random", "first"] = option(
        "random", "which of a problem's completions are kept"
    )
    order: Literal["as_read", "easy_first", "hard_first", "random"] = option(
        "as_read", "order of the output; easy_first: a curriculum by pass rate, ungraded rows last"
    )


def contradictions(recipe: SelectRecipe) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict each other."""
    if not recipe.sources:
        yield (
            ("sources",),
            "sources is empty: list at least one, such as [{path: runs/NAME/completions.jsonl}]",
        )
    for index, source in enumerate(recipe.sources):
        unknown = [name for name in source.skip if name not in (GRADE, *STEPS)]
        if unknown:
            yield (
                (f"sources.{index}.skip",),
                f"sources.{index}.skip names {unknown[0]}; it may name {', '.join((GRADE, *STEPS))}",
            )
    repeated = [
        name for name, count in Counter(source_name(source) for source in recipe.sources).items() if count > 1
    ]
    if repeated:
        yield ("sources",), f"two sources are called {repeated[0]}: give them different names (name: ...)"
    bounds = (("difficulty", "min_pass_rate", "max_pass_rate"), ("filters", "min_tokens", "max_tokens"))
    for part, low, high in bounds:
        least, most = getattr(getattr(recipe, part), low), getattr(getattr(recipe, part), high)
        if most is not None and least > most:
            yield (
                (f"{part}.{low}", f"{part}.{high}"),
                f"{part}.{low} is {least:g}, more than {part}.{high} ({most:g}): no row could be kept",
            )
    if (
        recipe.order in ("easy_first", "hard_first")
        and recipe.sources
        and all(GRADE in source.skip for source in recipe.sources)
    ):
        yield (
            ("order", "sources"),
            f"order is {recipe.order}, but no source is graded, so there are no pass rates",
        )


def source_name(source: CompletionSourceConfig) -> str:
    """Return the name of a source in the report: its own name, or NAME of runs/NAME/completions.jsonl, or the
    file's name.
    """
    if source.name:
        return source.name
    path = PurePath(source.path)
    return path.parent.name if path.stem in ("completions", "selected") and path.parent.name else path.stem
