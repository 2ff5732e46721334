"""The recipe of `r1rl grpo`."""

from __future__ import annotations

from dataclasses import dataclass

from r1rl.config.fields import option, required, section
from r1rl.config.intervals import COUNT, NOT_NEGATIVE
from r1rl.config.schema import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    OptimizerConfig,
    PolicyConfig,
    PromptConfig,
    RewardConfig,
    RolloutConfig,
    UpdateConfig,
    hooks_option,
)
from r1rl.objective.config import AlgorithmConfig


@dataclass(kw_only=True, slots=True)
class PolicyRolloutConfig(RolloutConfig):
    """The sampling of the completions that the policy is trained on."""

    one_step_off: bool = option(
        False,
        "sample each step's completions from a copy of the policy while the update before it runs; "
        "the loss corrects for the lag of one step (docs/algorithms.md)",
    )


@dataclass(kw_only=True, slots=True)
class GRPORecipe:
    """`r1rl grpo`: reinforcement learning from a reward."""

    run_name: str = required("names the run directory")
    output_dir: str = option("runs", "run directories are made in here")
    seed: int = option(0, "of everything: data order, sampling, initialisation", within=NOT_NEGATIVE)
    max_steps: int = option(
        100,
        "steps; a step is one rollout and its num_iterations x num_minibatches optimizer steps",
        within=COUNT,
    )
    model: PolicyConfig = section(PolicyConfig, "the policy")
    data: DataConfig = required("training problems")
    prompt: PromptConfig = section(PromptConfig, "template, prefill and stop strings")
    rewards: list[RewardConfig] = required("what is rewarded")
    outcome: str | None = option(
        None,
        "the reward that says whether an answer is right (for accuracy and dynamic sampling); null: the "
        "first of accuracy, countdown, code_execution",
    )
    rollout: PolicyRolloutConfig = section(PolicyRolloutConfig, "sampling")
    algorithm: AlgorithmConfig = section(AlgorithmConfig, "the objective")
    optimizer: OptimizerConfig = section(OptimizerConfig, "AdamW and its schedule")
    update: UpdateConfig = section(UpdateConfig, "micro-batches")
    evaluation: EvaluationConfig = section(EvaluationConfig, "held-out problems")
    checkpoint: CheckpointConfig = section(CheckpointConfig, "saving")
    logging: LoggingConfig = section(LoggingConfig, "progress, trackers, completions")
    hooks: list[str] = hooks_option()
