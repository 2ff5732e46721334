"""The recipe of `r1rl generate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from r1rl.config.engines import sampling_engine
from r1rl.config.fields import option, required, section
from r1rl.config.intervals import COUNT, COUNT_OR_OFF, NOT_NEGATIVE
from r1rl.config.issues import Contradiction
from r1rl.config.schema import PromptConfig, PromptsConfig, SampledModelConfig, SamplingConfig

PROBLEM, COMPLETION = "{problem}", "{completion}"


@dataclass(kw_only=True, slots=True)
class GenerateRecipe:
    """`r1rl generate`: completions of problems, from any model, as a .jsonl file."""

    run_name: str = required("names the run directory; the same command goes on where it was interrupted")
    output_dir: str = option("runs", "run directories are made in here")
    seed: int = option(
        0,
        "of all samples: completion g of a problem depends on the seed, the problem's id and g alone",
        within=NOT_NEGATIVE,
    )
    model: SampledModelConfig = section(SampledModelConfig, "who writes")
    data: PromptsConfig = required("the problems; their other columns are kept")
    question: str = option(
        PROBLEM,
        "what the template is filled with, or a .txt file of it; {problem} and every other {column} of the "
        "data stand for their values",
        path="any",
    )
    verification: str | None = option(
        None,
        "a second question, or a .txt file of it, with {problem} and {completion}: it shows the first "
        "answer and asks to check and improve it; both answers are kept",
        path="any",
    )
    prompt: PromptConfig = section(PromptConfig, "template, prefill, demonstrations and stop strings")
    num_samples: int = option(
        1, "completions per problem; raising it later adds to those that are there", within=COUNT
    )
    max_completion_length: int = option(4096, "tokens", within=COUNT)
    sampling: SamplingConfig = section(SamplingConfig, "how completions are drawn")
    engine: str = sampling_engine()
    max_rows: int = option(0, "completions that are decoded at once; 0: as many as fit", within=COUNT_OR_OFF)


def contradictions(recipe: GenerateRecipe) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict each other."""
    if (
        not recipe.question.endswith(".txt")
        and PROBLEM not in recipe.question
        and COMPLETION not in recipe.question
    ):
        yield ("question",), "question has no {problem}, the place where the problem's text goes"
    if (
        recipe.verification is not None
        and not recipe.verification.endswith(".txt")
        and COMPLETION not in recipe.verification
    ):
        yield ("verification",), "verification has no {completion}, the place where the first answer goes"
    if recipe.sampling.temperature == 0 and recipe.num_samples > 1:
        yield (
            ("num_samples", "sampling.temperature"),
            "sampling.temperature is 0, so that all completions of a problem would be the same: write "
            "num_samples: 1",
        )
    if recipe.model.endpoint is not None and recipe.data and recipe.data.max_prompt_tokens is not None:
        yield (
            ("data.max_prompt_tokens", "model.endpoint"),
            "data.max_prompt_tokens is set, but with model.endpoint the tokenizer is the server's: leave it "
            "out",
        )
    if recipe.model.endpoint is not None and recipe.prompt.template == "chat" and recipe.prompt.prefill:
        yield (
            ("prompt.prefill", "prompt.template"),
            "prompt.prefill is set, but a server's chat interface starts the answer itself: leave it out, "
            "or choose a text template",
        )
    if recipe.model.base is not None and recipe.model.endpoint is not None:
        yield (
            ("model.base", "model.endpoint"),
            "model has both base, for an adapter that is loaded here, and endpoint: leave one out",
        )
    if recipe.model.step is not None and recipe.model.path in ("embedded", "embedded-small"):
        yield (
            ("model.step", "model.path"),
            f"model.step is set, but the {recipe.model.path} model is no run directory: leave it out",
        )
