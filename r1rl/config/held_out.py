"""The held-out problems of the commands that train on no reward: how their answers are drawn and scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from r1rl.config.engines import sampling_engine
from r1rl.config.fields import option, section
from r1rl.config.intervals import COUNT, COUNT_OR_OFF
from r1rl.config.issues import Contradiction
from r1rl.config.schema import EvaluationConfig, RewardConfig, SamplingConfig


@dataclass(kw_only=True, slots=True)
class SampledEvaluationConfig(EvaluationConfig):
    """Held-out problems answered before, during and after training, for commands whose training samples
    nothing.
    """

    num_samples: int = option(4, "completions per problem, drawn as sampling says", within=COUNT)
    sampling: SamplingConfig = section(SamplingConfig, "how the answers are drawn")
    max_completion_length: int = option(1024, "tokens", within=COUNT)
    engine: str = sampling_engine()
    max_rows: int = option(0, "answers that are decoded at once; 0: as many as fit", within=COUNT_OR_OFF)


def scoring_contradictions(
    rewards: Sequence[RewardConfig], evaluation: EvaluationConfig
) -> Iterator[Contradiction]:
    """Yield rewards without held-out problems, or held-out problems without rewards."""
    if evaluation.data is not None and not rewards:
        yield (
            ("evaluation.data", "rewards"),
            "evaluation.data is set, but no reward scores its answers: write rewards, such as [{function: "
            "accuracy}]",
        )
    if rewards and evaluation.data is None:
        yield (
            ("rewards", "evaluation.data"),
            "rewards only score held-out answers here, and there are no held-out problems: write "
            "evaluation.data, or leave rewards out",
        )


def sampling_contradictions(evaluation: SampledEvaluationConfig) -> Iterator[Contradiction]:
    """Yield a contradiction for several samples that would all be the same."""
    if evaluation.sampling.temperature == 0 and evaluation.num_samples > 1:
        yield (
            ("evaluation.num_samples", "evaluation.sampling.temperature"),
            "evaluation.sampling.temperature is 0, so that all completions of a problem would be the same: "
            "write evaluation.num_samples: 1",
        )
