"""The recipe of `r1rl sft`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from r1rl.config.fields import option, required, section
from r1rl.config.held_out import SampledEvaluationConfig, sampling_contradictions, scoring_contradictions
from r1rl.config.intervals import COUNT, COUNT_OR_OFF, NOT_NEGATIVE, POSITIVE
from r1rl.config.issues import Contradiction
from r1rl.config.rows import DemonstrationsConfig, SupervisedOptimizerConfig
from r1rl.config.schema import (
    CheckpointConfig,
    LoggingConfig,
    ModelConfig,
    PromptConfig,
    RewardConfig,
    hooks_option,
)


@dataclass(kw_only=True, slots=True)
class SFTRecipe:
    """`r1rl sft`: supervised fine-tuning on demonstrations."""

    run_name: str = required("names the run directory")
    output_dir: str = option("runs", "run directories are made in here")
    seed: int = option(
        0, "of the data order, and of the samples of the held-out problems", within=NOT_NEGATIVE
    )
    epochs: float = option(1.0, "passes over the rows, rounded up to whole steps", within=POSITIVE)
    max_steps: int = option(0, "optimizer steps; 0: as many as epochs need", within=COUNT_OR_OFF)
    batch_size: int = option(32, "rows per optimizer step, over all processes", within=COUNT)
    micro_batch_size: int = option(1, "rows per forward pass of a process", within=COUNT)
    max_length: int = option(
        4096,
        "tokens of prompt and completion together; longer demonstrations are left out and counted",
        within=COUNT,
    )
    packing: bool = option(
        True,
        "a row holds as many demonstrations as fit into max_length tokens, none of which sees another; "
        "false: one",
    )
    model: ModelConfig = section(ModelConfig, "what is trained")
    data: DemonstrationsConfig = required("the demonstrations")
    prompt: PromptConfig = section(
        PromptConfig, "template, prefill and stop strings: those of the RL and the evaluation that follow"
    )
    rewards: list[RewardConfig] = option([], "what scores the held-out answers; nothing is trained on it")
    outcome: str | None = option(
        None,
        "the reward that says whether an answer is right; null: the first of accuracy, countdown, "
        "code_execution",
    )
    optimizer: SupervisedOptimizerConfig = section(SupervisedOptimizerConfig, "AdamW and its schedule")
    evaluation: SampledEvaluationConfig = section(SampledEvaluationConfig, "held-out problems")
    checkpoint: CheckpointConfig = section(CheckpointConfig, "saving")
    logging: LoggingConfig = section(
        LoggingConfig, "progress, trackers; the completions are those that the step trained"
    )
    hooks: list[str] = hooks_option()


def contradictions(recipe: SFTRecipe) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict each other."""
    if recipe.batch_size % recipe.micro_batch_size:
        yield (
            ("batch_size", "micro_batch_size"),
            f"batch_size is {recipe.batch_size}, which is not a multiple of micro_batch_size "
            f"({recipe.micro_batch_size})",
        )
    yield from scoring_contradictions(recipe.rewards, recipe.evaluation)
    yield from sampling_contradictions(recipe.evaluation)
