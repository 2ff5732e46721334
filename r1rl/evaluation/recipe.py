"""The recipe of `r1rl evaluate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from r1rl.config.benchmarks import BenchmarkConfig
from r1rl.config.engines import sampling_engine
from r1rl.config.fields import option, required, section
from r1rl.config.intervals import COUNT, COUNT_OR_OFF, NOT_NEGATIVE, Interval
from r1rl.config.issues import Contradiction
from r1rl.config.schema import (
    EvaluatedModelConfig,
    PromptConfig,
    SamplingConfig,
)


@dataclass(kw_only=True, slots=True)
class EvaluateRecipe:
    """`r1rl evaluate`: scores of models on benchmarks."""

    run_name: str = required(
        "names the folder of the results; the same command goes on where it was interrupted"
    )
    output_dir: str = option("runs", "result folders are made in here")
    seed: int = option(
        0,
        "of all samples: completion g of a problem depends on the seed, the benchmark, the problem's id and "
        "g alone",
        within=NOT_NEGATIVE,
    )
    models: list[EvaluatedModelConfig] = required(
        "what is evaluated; every other one is compared with the first"
    )
    benchmarks: list[str] = required(
        "names from docs/benchmarks.md or define, or data sets: a .jsonl/.json/.parquet/.csv file or "
        "OWNER/NAME",
        path="data",
    )
    define: list[BenchmarkConfig] = option([], "benchmarks of one's own")
    local_dir: str | None = option(
        None, "folder with the benchmarks' files; one that is not in it comes from the hub", path="any"
    )
    num_problems: int | None = option(
        None, "at most so many problems of each benchmark, a fixed random choice; null: all", within=COUNT
    )
    num_samples: int | None = option(
        None, "completions per problem; null: the benchmark's own number", within=COUNT
    )
    max_completion_length: int | None = option(None, "tokens; null: the benchmark's own limit", within=COUNT)
    question: str | None = option(None, "replaces every benchmark's own question text; contains {problem}")
    fresh_seed: int | None = option(
        None,
        "of the benchmark fresh; null: the day on which the evaluation was started, such as 20250131",
        within=NOT_NEGATIVE,
    )
    contamination_probe: float = option(
        0.0,
        "also show each problem cut off after this share (the paper takes 0.6), and count how often the "
        "model recites the rest; 0: off",
        within=Interval(least=0, below=1),
    )
    prompt: PromptConfig = section(PromptConfig, "template, prefill and stop strings")
    sampling: SamplingConfig = section(SamplingConfig, "how completions are drawn")
    engine: str = sampling_engine()
    max_rows: int = option(0, "completions that are decoded at once; 0: as many as fit", within=COUNT_OR_OFF)


def contradictions(recipe: EvaluateRecipe) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict each other."""
    for key in ("models", "benchmarks"):
        if not getattr(recipe, key):
            yield (key,), f"{key} is empty: list at least one"
    defined = Counter(benchmark.name for benchmark in recipe.define)
    for name in (name for name, count in defined.items() if count > 1):
        yield ("define",), f"define has two benchmarks named {name}"
    for key, names in (
        ("benchmarks", recipe.benchmarks),
        ("models", [model.name for model in recipe.models if model.name]),
    ):
        for name in (name for name, count in Counter(names).items() if count > 1):
            yield (key,), f"{key} names {name} twice"
    for index, name in ((index, benchmark.name) for index, benchmark in enumerate(recipe.define)):
        if not name or name.startswith(".") or "/" in name:
            sentence = (
                f'define.{index}.name is "{name}"; it names a folder, so it has no slash and no dot at its '
                f"start"
            )
            yield (f"define.{index}.name",), sentence
    questions = [
        ("question", recipe.question),
        *((f"define.{index}.question", one.question) for index, one in enumerate(recipe.define)),
    ]
    for key, text in questions:
        if text is not None and "{problem}" not in text:
            yield (key,), f"{key} has no {{problem}}, the place where the problem's text goes"
    if recipe.sampling.temperature == 0 and (recipe.num_samples or 2) > 1:
        yield (
            ("num_samples", "sampling.temperature"),
            "sampling.temperature is 0, so that all completions of a problem would be the same: write "
            "num_samples: 1",
        )
    for index in (
        index
        for index, model in enumerate(recipe.models)
        if model.base is not None and model.endpoint is not None
    ):
        keys = (f"models.{index}.base", f"models.{index}.endpoint")
        yield (
            keys,
            f"models.{index} has both base, for an adapter that is loaded here, and endpoint: leave one out",
        )
    for index in (
        index for index, model in enumerate(recipe.models) if model.every_step and model.step is not None
    ):
        yield (
            (f"models.{index}.step", f"models.{index}.every_step"),
            f"models.{index} has both step and every_step: leave one out",
        )
    chat_server = recipe.prompt.template == "chat" and any(
        model.endpoint is not None for model in recipe.models
    )
    if chat_server and recipe.prompt.prefill:
        yield (
            ("prompt.prefill", "prompt.template"),
            "prompt.prefill is set, but a server's chat interface starts the answer itself: leave it out, "
            "or choose a text template",
        )
