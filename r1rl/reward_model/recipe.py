"""The recipe of `r1rl reward-model`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from r1rl.config.fields import option, required, section
from r1rl.config.intervals import COUNT, COUNT_OR_OFF, NOT_NEGATIVE, POSITIVE, Interval
from r1rl.config.issues import Contradiction
from r1rl.config.rows import PreferencesConfig, SupervisedOptimizerConfig
from r1rl.config.schema import CheckpointConfig, LoggingConfig, ModelConfig, hooks_option


@dataclass(kw_only=True, slots=True)
class PairEvaluationConfig:
    """Held-out pairs, scored before, during and after training."""

    data: PreferencesConfig | None = option(None, "held-out pairs; null: those of share")
    share: float = option(
        0.0,
        "share of the problems of data whose pairs are held out, chosen by the problem's text",
        within=Interval(least=0, below=1),
    )
    num_pairs: int = option(1024, "at most so many", within=COUNT)
    every_steps: int = option(
        0, "evaluate each so many steps besides before and after; 0: never", within=COUNT_OR_OFF
    )
    during_pairs: int = option(256, "pairs of an evaluation during training", within=COUNT)
    at_start: bool = option(True, "evaluate the model that training starts from")


@dataclass(kw_only=True, slots=True)
class RewardModelRecipe:
    """`r1rl reward-model`: a model that scores answers, from pairs of which one answer was preferred."""

    run_name: str = required("names the run directory")
    output_dir: str = option("runs", "run directories are made in here")
    seed: int = option(0, "of the new score head and the data order", within=NOT_NEGATIVE)
    epochs: float = option(1.0, "passes over the pairs, rounded up to whole steps", within=POSITIVE)
    max_steps: int = option(0, "optimizer steps; 0: as many as epochs need", within=COUNT_OR_OFF)
    batch_size: int = option(32, "pairs per optimizer step, over all processes", within=COUNT)
    micro_batch_size: int = option(1, "pairs per forward pass of a process", within=COUNT)
    max_length: int = option(
        4096,
        "tokens of a problem and one answer; pairs with a longer text are left out and counted",
        within=COUNT,
    )
    answer_only: bool = option(
        True,
        "leave out what stands before the last </think>, as for helpfulness; false: the whole text, as for "
        "harmlessness. As in the reward that scores with the model",
    )
    center_coefficient: float = option(
        0.0,
        "weight of the squared sum of a pair's scores, which keeps their mean near 0 (2312.09244, equation "
        "2)",
        within=NOT_NEGATIVE,
    )
    model: ModelConfig = section(
        ModelConfig, "a causal language model, whose head is replaced by one score, or a reward model"
    )
    data: PreferencesConfig = required("the pairs")
    optimizer: SupervisedOptimizerConfig = section(SupervisedOptimizerConfig, "AdamW and its schedule")
    evaluation: PairEvaluationConfig = section(PairEvaluationConfig, "held-out pairs")
    checkpoint: CheckpointConfig = section(CheckpointConfig, "saving")
    logging: LoggingConfig = section(
        LoggingConfig, "progress, trackers; the completions are the pairs that the step trained"
    )
    hooks: list[str] = hooks_option()


def contradictions(recipe: RewardModelRecipe) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict each other."""
    evaluation = recipe.evaluation
    if recipe.batch_size % recipe.micro_batch_size:
        yield (
            ("batch_size", "micro_batch_size"),
            f"batch_size is {recipe.batch_size}, which is not a multiple of micro_batch_size "
            f"({recipe.micro_batch_size})",
        )
    if evaluation.data is not None and evaluation.share:
        yield (
            ("evaluation.share", "evaluation.data"),
            "evaluation has both data and share: held-out pairs come from one of them, so leave the other "
            "out",
        )
    if evaluation.every_steps and evaluation.data is None and not evaluation.share:
        yield (
            ("evaluation.every_steps", "evaluation.data"),
            "evaluation.every_steps is set, but there are no held-out pairs: write evaluation.data or "
            "evaluation.share",
        )
