"""The recipe of `r1rl distill`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from r1rl.config.fields import option, required, section
from r1rl.config.held_out import scoring_contradictions
from r1rl.config.intervals import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Interval
from r1rl.config.issues import Contradiction
from r1rl.config.rows import DemonstrationsConfig
from r1rl.config.schema import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    PromptConfig,
    RewardConfig,
    RolloutConfig,
    hooks_option,
)


@dataclass(kw_only=True, slots=True)
class TeacherConfig:
    """The model that is imitated. It is never changed."""

    path: str = required(
        'a hub name, a folder, a run directory or "embedded"; its tokenizer must be the student\'s',
        path="any",
    )
    revision: str | None = option(None, "the hub revision (branch, tag or commit)")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "precision of its weights and computations; auto: bfloat16 on a GPU, float32 on a CPU"
    )


@dataclass(kw_only=True, slots=True)
class DivergenceConfig:
    """The divergence of the student's next-token distribution from the teacher's. docs/distillation.md has
    the equations.
    """

    kind: Literal["forward_kl", "reverse_kl", "jsd"] = option(
        "reverse_kl",
        "forward_kl: KL(teacher || student), covers all that the teacher does; reverse_kl: KL(student || "
        "teacher), keeps to what it does most; jsd: the generalised Jensen-Shannon divergence between them",
    )
    beta: float | None = option(
        None,
        "jsd only: the teacher's share of the mixture; small is like forward_kl, near 1 like reverse_kl",
        within=Interval(above=0, below=1),
    )
    temperature: float = option(1.0, "both distributions are softmax(logits / temperature)", within=POSITIVE)
    aggregation: Literal["tokens", "sequences"] = option(
        "tokens",
        "tokens: mean over all completion tokens of the step; sequences: mean over the tokens of each "
        "completion, then over completions",
    )


@dataclass(kw_only=True, slots=True)
class CompletionsConfig(DemonstrationsConfig):
    """Completions that were written before the run: rows as r1rl sft reads them."""

    max_length: int = option(
        4096, "tokens of prompt and completion together; longer rows are left out and counted", within=COUNT
    )


@dataclass(kw_only=True, slots=True)
class MicroBatchesConfig:
    """The division of a step into micro-batches. No value here changes the gradient."""

    micro_batch_tokens: int = option(16384, "tokens per forward pass, padding included", within=COUNT)
    micro_batch_sequences: int | None = option(
        None, "at most so many sequences per forward pass", within=COUNT
    )
    logit_chunk: int = option(
        1024,
        "completion tokens whose logits, the student's and the teacher's, exist at the same time",
        within=COUNT,
    )


@dataclass(kw_only=True, slots=True)
class StudentRolloutConfig(RolloutConfig):
    """The size of a step, and how the student's own completions are sampled."""

    repetition_penalty: float = option(
        1.0, "1 is off; the student is compared with its teacher without it", within=POSITIVE
    )


@dataclass(kw_only=True, slots=True)
class DistillRecipe:
    """`r1rl distill`: a student learns a teacher's token distribution."""

    run_name: str = required("names the run directory")
    output_dir: str = option("runs", "run directories are made in here")
    seed: int = option(0, "of everything: data order, sampling", within=NOT_NEGATIVE)
    max_steps: int = option(100, "steps; each makes one optimizer step", within=COUNT)
    model: ModelConfig = section(ModelConfig, "the student")
    teacher: TeacherConfig = required("the model that is imitated")
    on_policy: float = option(
        1.0,
        "lambda: the share of a step's prompts that the student answers itself; the others come with "
        "completions from a file",
        within=SHARE,
    )
    data: DataConfig | None = option(
        None, "problems that the student answers; needed if on_policy is above 0"
    )
    completions: CompletionsConfig | None = option(
        None,
        "rows with problem and completion, as r1rl generate and select write them; needed if on_policy is "
        "below 1",
    )
    prompt: PromptConfig = section(
        PromptConfig, "template, prefill and stop strings, for the problems and for the rows of completions"
    )
    rollout: StudentRolloutConfig = section(
        StudentRolloutConfig, "the step's size, and how the student samples"
    )
    divergence: DivergenceConfig = section(DivergenceConfig, "the divergence that is minimised")
    rewards: list[RewardConfig] = option(
        [], "the rewards that score the held-out answers; nothing is trained on them"
    )
    outcome: str | None = option(
        None,
        "the reward that says whether an answer is right; null: the first of accuracy, countdown, "
        "code_execution",
    )
    optimizer: OptimizerConfig = section(OptimizerConfig, "AdamW and its schedule")
    update: MicroBatchesConfig = section(MicroBatchesConfig, "micro-batches")
    evaluation: EvaluationConfig = section(EvaluationConfig, "held-out problems")
    checkpoint: CheckpointConfig = section(CheckpointConfig, "saving")
    logging: LoggingConfig = section(LoggingConfig, "progress, trackers, completions")
    hooks: list[str] = hooks_option()

    @property
    def on_policy_prompts(self) -> int:
        """The number of a step's prompts that the student answers; their slots are the first ones.

        `contradictions` makes sure that it is whole.
        """
        return round(self.on_policy * self.rollout.num_prompts)


def contradictions(recipe: DistillRecipe) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict each other."""
    yield from _sources(recipe)
    yield from _divergence(recipe.divergence)
    yield from scoring_contradictions(recipe.rewards, recipe.evaluation)


def _sources(recipe: DistillRecipe) -> Iterator[Contradiction]:
    share, prompts = recipe.on_policy, recipe.rollout.num_prompts
    for key, given, needed, what in (
        ("data", recipe.data is not None, share > 0, "the student answers problems of data"),
        ("completions", recipe.completions is not None, share < 1, "completions come from a file"),
    ):
        if needed and not given:
            yield ("on_policy", key), f"on_policy is {share:g}, so {what}: write {key}: {{source: NAME}}"
        if given and not needed:
            yield (
                (key, "on_policy"),
                f"{key} is set, but on_policy is {share:g}, so nothing comes from it: leave it out ({key}: "
                f"null)",
            )
    if abs(share * prompts - round(share * prompts)) > 1e-9:
        nearest = round(share * prompts) / prompts
        yield (
            ("on_policy", "rollout.num_prompts"),
            f"on_policy is {share:g}, which is no whole number of the {prompts} prompts of a step "
            f"(rollout.num_prompts): write {nearest:g}",
        )


def _divergence(divergence: DivergenceConfig) -> Iterator[Contradiction]:
    keys = ("divergence.beta", "divergence.kind")
    if divergence.kind == "jsd" and divergence.beta is None:
        yield (
            keys[::-1],
            "divergence.kind: jsd needs divergence.beta, the teacher's share of the mixture, such as 0.5",
        )
    if divergence.kind != "jsd" and divergence.beta is not None:
        yield (
            keys,
            f"divergence.beta has no effect with divergence.kind: {divergence.kind}; write kind: jsd, or "
            f"leave beta out",
        )
