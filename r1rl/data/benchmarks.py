"""The benchmarks, as a table, and the list of problems that one becomes. docs/benchmarks.md has the published
scores.

A benchmark comes from the hub at a pinned revision, or from a file in `local_dir` that has either the hub's
columns or our own (`problem`, `answer`). A new `version` marks every change after which scores can no longer
be compared.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from r1rl.config.benchmarks import CONTINUATION, BenchmarkConfig
from r1rl.config.schema import ProblemsConfig
from r1rl.data import read_problems
from r1rl.data.rows import READERS, read_table
from r1rl.errors import DataError, RecipeError
from r1rl.types import Problem

BOXED = "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
"""The question text that DeepSeek-R1's README recommends for mathematics."""
BOXED_LETTER = "{problem}\nPlease reason step by step, and put the letter of your answer within \\boxed{}."
LETTERS = "ABCDEFGHIJ"
CHOICE_SEED = 0
"""The seed of the choice of problems if num_problems leaves some out: the same for every evaluation."""


def _math(
    name: str, data: ProblemsConfig, local: str, samples: int, tokens: int, group_by: Sequence[str] = ()
) -> BenchmarkConfig:
    return BenchmarkConfig(
        name=name,
        data=data,
        local=local,
        question=BOXED,
        num_samples=samples,
        max_completion_length=tokens,
        group_by=list(group_by),
    )


def _own(name: str, source: str, grading: str = "strict") -> BenchmarkConfig:
    data = ProblemsConfig(source=source, split="test", arguments={"count": 256})
    return BenchmarkConfig(name=name, data=data, grading=grading, num_samples=8, max_completion_length=256)  # type: ignore[arg-type]


FRESH = "fresh"
BENCHMARKS: dict[str, BenchmarkConfig] = {
    benchmark.name: benchmark
    for benchmark in (
        _math(
            "gsm8k",
            ProblemsConfig(
                source="openai/gsm8k", subset="main", split="test",
                revision="740312add88f781978c0658806c59bc2815b9866",
                columns={"problem": "question", "answer": "answer"}, answer_format="after_hashes",
            ),
            "gsm8k_test.jsonl", 1, 2048,
        ),
        _math(
            "math500",
            ProblemsConfig(
                source="HuggingFaceH4/MATH-500", split="test",
                revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
            ),
            "math500.jsonl", 4, 32768, ["level"],
        ),
        _math(
            "math",
            ProblemsConfig(
                source="DigitalLearningGmbH/MATH-lighteval", subset="default", split="test",
                revision="0530c78699ea5e8eb5530600900e1f328b48acad",
                columns={"problem": "problem", "answer": "solution"}, answer_format="boxed",
            ),
            "math_test.jsonl", 1, 4096, ["level", "type"],
        ),
        _math(
            "aime24",
            ProblemsConfig(
                source="HuggingFaceH4/aime_2024", split="train",
                revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
            ),
            "aime24.jsonl", 64, 32768,
        ),
        _math(
            "aime25",
            ProblemsConfig(
                source="math-ai/aime25", split="test",
                revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
            ),
            "aime25.jsonl", 64, 32768,
        ),
        _math(
            "amc23",
            ProblemsConfig(
                source="math-ai/amc23", split="test", revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
                columns={"problem": "question", "answer": "answer"},
            ),
            "amc23.jsonl", 32, 16384,
        ),
        _math(
            "minerva",
            ProblemsConfig(
                source="math-ai/minervamath", split="test",
                columns={"problem": "question", "answer": "answer"},
            ),
            "minerva.jsonl", 4, 8192,
        ),
        _math(
            "olympiadbench",
            ProblemsConfig(
                source="Hothan/OlympiadBench", subset="OE_TO_maths_en_COMP", split="train",
                revision="91184b52131e7fc9455fef848035173aea8cc01a",
                columns={"problem": "question", "answer": "final_answer"},
            ),
            "olympiadbench.jsonl", 4, 16384,
        ),
        BenchmarkConfig(
            name="gpqa_diamond",
            data=ProblemsConfig(
                source="Idavidrein/gpqa", subset="gpqa_diamond", split="train",
                revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
                columns={"problem": "Question", "answer": "Correct Answer"},
            ),
            choices=["Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"],
            question=BOXED_LETTER, local="gpqa_diamond.csv", num_samples=8, max_completion_length=32768,
        ),
        _math(
            "svamp",
            ProblemsConfig(
                source="ChilleD/SVAMP", split="test", revision="5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef",
                columns={"problem": "question_concat", "answer": "Answer"},
            ),
            "svamp.jsonl", 1, 2048,
        ),
        _own("countdown", "countdown", "countdown"),
        _own("arithmetic", "arithmetic"),
        _own("word_problems", "word_problems"),
        _own(FRESH, "word_problems"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadedBenchmark:
    """A benchmark with its problems, whose text is the question that a model gets."""

    config: BenchmarkConfig
    problems: list[Problem]
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return self.config.name

    @property
    def is_probe(self) -> bool:
        """Return whether this is a contamination probe: problems are continued, alone and with greedy
        decoding, not answered.
        """
        return self.config.grading == CONTINUATION


def select_benchmarks(
    names: Sequence[str],
    define: Sequence[BenchmarkConfig] = (),
    *,
    num_samples: int | None = None,
    max_completion_length: int | None = None,
    question: str | None = None,
) -> list[BenchmarkConfig]:
    """Return the named benchmarks. Arguments that are not None replace their own samples, limits and question
    text.

    A name is looked up in `define`, then in the table. A data file or OWNER/NAME becomes a benchmark of the
    usual columns.
    """
    known = BENCHMARKS | {benchmark.name: benchmark for benchmark in define}
    chosen = []
    for name in names:
        if name in known:
            benchmark = known[name]
        elif Path(name).suffix.lower() in READERS or name.count("/") == 1:
            data = (
                ProblemsConfig(source=name)
                if Path(name).suffix.lower() in READERS
                else ProblemsConfig(source=name, split="test")
            )
            benchmark = _math(Path(name).stem, data, "", 4, 4096)
        else:
            near = get_close_matches(name, known, n=1)
            advice = (
                f"did you mean {near[0]}?"
                if near
                else f"there are {', '.join(known)}; or name a data file or OWNER/NAME."
            )
            raise RecipeError(f"benchmarks: there is no benchmark {name}; {advice}")
        chosen.append(
            replace(
                benchmark,
                num_samples=num_samples or benchmark.num_samples,
                max_completion_length=max_completion_length or benchmark.max_completion_length,
                question=benchmark.question if question is None else question,
            )
        )
    for name in (
        name for name, count in Counter(benchmark.name for benchmark in chosen).items() if count > 1
    ):
        raise RecipeError(f"benchmarks: two of them are named {name}; give one another name in define.")
    return chosen


def load_benchmark(
    config: BenchmarkConfig, local_dir: str | None, num_problems: int | None, fresh_seed: int
) -> LoadedBenchmark:
    """Return the problems of a benchmark. Raise `DataError` if they can't be read.

    If `num_problems` leaves some out, the choice is random but always the same, and the benchmark's order is
    kept.
    """
    data, notes = _source(config, local_dir)
    try:
        loaded = read_problems(data, fresh_seed if config.name == FRESH else 0, f"benchmark {config.name}")
    except DataError as error:
        if not config.local or data is not config.data:
            raise
        remedy = (
            f"Without the hub: put the file {config.local} into a folder and name that in local_dir "
            f"(docs/benchmarks.md)."
        )
        raise type(error)(f"{error} {remedy}") from error
    problems = (
        [_lettered(config, problem) for problem in loaded.problems] if config.choices else loaded.problems
    )
    if num_problems is not None and num_problems < len(problems):
        kept = sorted(random.Random(CHOICE_SEED).sample(range(len(problems)), num_problems))
        problems = [problems[place] for place in kept]
    asked = [
        replace(problem, problem=config.question.replace("{problem}", problem.problem))
        for problem in problems
    ]
    return LoadedBenchmark(replace(config, data=data), asked, [*notes, *loaded.notes, *loaded.warnings])


def _source(config: BenchmarkConfig, local_dir: str | None) -> tuple[ProblemsConfig, list[str]]:
    """Return the benchmark's data, or those of its file in `local_dir`, and a note if that file is not there.

    The file is read with the hub's columns if it has them, else with ours. Raise `DataError` if the folder is
    not there.
    """
    if not local_dir or not config.local:
        return config.data, []
    folder = Path(local_dir).expanduser()
    if not folder.is_dir():
        raise DataError(f"local_dir: there is no folder {folder} (looked in {Path.cwd()}).")
    path = folder / config.local
    if not path.is_file():
        return config.data, [
            f"benchmark {config.name}: {path} is not there, so {config.data.source} is read from the hub."
        ]
    columns = read_table(ProblemsConfig(source=str(path)), f"benchmark {config.name}").columns
    like_hub = config.data.columns.get("problem", "problem") in columns and set(
        config.data.columns.values()
    ) <= set(columns)
    if like_hub:
        return replace(config.data, source=str(path), subset=None, split="train", revision=None), []
    return ProblemsConfig(source=str(path), where=config.data.where, limit=config.data.limit), []


def _lettered(config: BenchmarkConfig, problem: Problem) -> Problem:
    """Return a multiple-choice problem, whose answer is a letter.

    The order of the options depends on the problem's id alone.
    """
    missing = [column for column in config.choices if not isinstance(problem.columns.get(column), str)]
    if missing or problem.answer is None:
        raise DataError(
            f"benchmark {config.name}: problem {problem.id} has no text in "
            f"{', '.join(missing or ['its answer'])}."
        )
    options = [problem.answer, *(str(problem.columns[column]).strip() for column in config.choices)]
    order = list(range(len(options)))
    random.Random(problem.id).shuffle(order)
    lines = [f"{LETTERS[place]}) {options[option]}" for place, option in enumerate(order)]
    return replace(problem, problem="\n".join([problem.problem, *lines]), answer=LETTERS[order.index(0)])


PROBE_SUFFIX = "-recited"
FEWEST_WORDS = 10
"""The fewest words of a problem that is probed; shorter ones can be guessed."""


def contamination_probe(benchmark: LoadedBenchmark, share: float) -> list[LoadedBenchmark]:
    """Return the benchmark's problems cut off after `share` of their words, to be continued; the rest is the
    answer.

    A model that recites the rest has seen the problem (Wu et al., "Reasoning or memorization?", arXiv
    2507.10532, with 60 %). Problems of fewer than ten words are left out, which a note says; without any
    other there is no probe, and the list is empty. The question text around the problem is not shown.
    """
    before, _, after = benchmark.config.question.partition("{problem}")
    cut = []
    for problem in benchmark.problems:
        text = problem.problem.removeprefix(before).removesuffix(after)
        words = text.split()
        kept = round(share * len(words))
        if len(words) >= FEWEST_WORDS and 0 < kept < len(words):
            cut.append(Problem(problem.id, " ".join(words[:kept]), " ".join(words[kept:]), {}))
    short = len(benchmark.problems) - len(cut)
    note = (
        f"{benchmark.name}: {short} of {len(benchmark.problems)} problems have fewer than {FEWEST_WORDS} "
        f"words and are not probed."
    )
    if not cut:
        benchmark.notes.append(note)
        return []
    config = replace(
        benchmark.config,
        name=benchmark.name + PROBE_SUFFIX,
        question="{problem}",
        grading=CONTINUATION,
        num_samples=1,
        group_by=[],
        max_completion_length=max(8 * len(str(problem.answer).split()) for problem in cut),
    )
    return [LoadedBenchmark(config, cut, [note] if short else [])]
