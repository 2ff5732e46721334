"""What a distillation run is made of: tokenizers, student, teacher, engine, optimizer, schedule, and where
completions come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from r1rl import models
from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.compute.trials import trial_report
from r1rl.data import build_prompts
from r1rl.distill.completions import PreparedCompletions, prepare_completions
from r1rl.distill.forward import StudentForward, Teacher
from r1rl.distill.preflight import DistillPreflight
from r1rl.distill.recipe import DistillRecipe, TeacherConfig
from r1rl.distill.sources import Sources
from r1rl.distill.vocabulary import SharedTokens, shared_tokens
from r1rl.errors import DataError, UserError
from r1rl.monitor.progress import ProgressDisplay
from r1rl.objective.sampling import Sampling
from r1rl.policy.loading import first_sentence, load_policy, load_tokenizer
from r1rl.policy.logprobs import PolicyForward
from r1rl.rewards import RewardSet
from r1rl.rollout import RolloutEngine
from r1rl.rollout.setup import make_engine, make_sampling
from r1rl.text.prompts import PromptTemplate
from r1rl.types import Problem, Prompt


@dataclass
class DistillParts:
    """Everything that a step works with."""

    accelerator: Accelerator
    display: ProgressDisplay
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    """The Hugging Face model inside `policy`."""
    policy: nn.Module
    """The prepared `StudentForward`."""
    teacher: Teacher
    engine: RolloutEngine
    sampling: Sampling
    evaluation_prompts: list[Prompt]
    rewards: RewardSet | None
    order: Sources
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    notes: list[str]
    """Sentences about what the run is made of."""


@dataclass(frozen=True, slots=True)
class Tokenizers:
    """The student's tokenizer, and what it shares with the teacher's."""

    student: PreTrainedTokenizerBase
    shared: SharedTokens


def load_tokenizers(recipe: DistillRecipe) -> Tokenizers:
    """Both tokenizers, compared. Raises UserError if they differ: before a run directory is made and before
    weights are loaded.
    """
    student = load_tokenizer(recipe.model.path, recipe.model.revision)
    return Tokenizers(
        student,
        shared_tokens(student, load_tokenizer(recipe.teacher.path, recipe.teacher.revision, "teacher.path")),
    )


def build_parts(
    recipe: DistillRecipe,
    checked: DistillPreflight,
    tokenizers: Tokenizers,
    accelerator: Accelerator,
    display: ProgressDisplay,
    checkpoint: Path | None,
) -> DistillParts:
    """Load the models (the student from `checkpoint` when a run goes on) and connect everything."""
    tokenizer, shared = tokenizers.student, tokenizers.shared
    model = load_policy(recipe.model, checkpoint)
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    teacher = Teacher(load_teacher(recipe.teacher, accelerator.device))
    sampling = make_sampling(recipe.rollout, recipe.prompt, tokenizer, model)
    PolicyForward(model, sampling, recipe.update.logit_chunk).verify()
    PolicyForward(teacher.model, sampling, recipe.update.logit_chunk).verify("teacher.path")
    size = shared.size(logit_width(model), logit_width(teacher.model))
    template = PromptTemplate(recipe.prompt, tokenizer)
    prompts, dropped = _prompts(recipe, checked.problems, template, size)
    rows = PreparedCompletions([], [])
    if recipe.completions is not None:
        rows = prepare_completions(recipe, checked.completions, tokenizer, size)
    nn.Module.to(model, accelerator.device)
    engine = make_engine(recipe.rollout, model, tokenizer, accelerator, dtype)
    for line in trial_report(engine.trials):
        display.message(line)
    forward = StudentForward(model, recipe.divergence, size, recipe.update.logit_chunk)
    optimizer = make_optimizer(forward, recipe.optimizer)
    policy, optimizer = accelerator.prepare(forward, optimizer)
    notes = [
        f"Teacher: {teacher.model.num_parameters() / 1e6:.1f}M parameters in "
        f"{str(teacher.model.dtype).removeprefix('torch.')}; "
        f"{size} token ids are compared (logits: student {logit_width(model)}, teacher "
        f"{logit_width(teacher.model)}).",
        *([shared.note] if shared.note else []),
        f"{len(prompts)} problems to answer ({dropped} dropped), {len(rows.rows)} completions from the file.",
        *rows.messages,
    ]
    return DistillParts(
        accelerator=accelerator,
        display=display,
        tokenizer=tokenizer,
        model=model,
        policy=policy,
        teacher=teacher,
        engine=engine,
        sampling=sampling,
        evaluation_prompts=template.render_batch(checked.evaluation_problems),
        rewards=checked.rewards,
        order=Sources(
            recipe, accelerator, engine, tokenizer, sampling, size, prompts, rows.rows, display.phase
        ),
        optimizer=optimizer,
        schedule=make_schedule(optimizer, recipe.max_steps, recipe.optimizer),
        notes=notes,
    )


def load_teacher(config: TeacherConfig, device: torch.device) -> PreTrainedModel:
    """The teacher in its own precision, on the device, whole in every process."""
    dtype = {
        "auto": torch.bfloat16 if device.type == "cuda" else torch.float32,
        "bfloat16": torch.bfloat16,
        "float32": torch.float32,
    }
    try:
        model = AutoModelForCausalLM.from_pretrained(
            models.resolve(config.path), revision=config.revision, dtype=dtype[config.dtype]
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"teacher.path: no causal language model could be loaded from {config.path!r}: "
            f"{first_sentence(error)}"
        ) from error
    return nn.Module.to(model, device)


def logit_width(model: PreTrainedModel) -> int:
    """How many ids the model's logits are for; often more than its tokenizer has."""
    return model.get_output_embeddings().weight.shape[0]


def _prompts(
    recipe: DistillRecipe, problems: list[Problem], template: PromptTemplate, shared: int
) -> tuple[list[Prompt], int]:
    """The prompts for the student to answer, and how many are too long or have tokens that the teacher does
    not know.
    """
    if recipe.data is None:
        return [], 0
    prompts, too_long = build_prompts(problems, template, recipe.data.max_prompt_tokens)
    known = [prompt for prompt in prompts if max(prompt.token_ids) < shared]
    if not known:
        raise DataError(
            f"data: all {len(prompts)} prompts have tokens that only the student's tokenizer has: choose "
            f"another teacher."
        )
    return known, too_long + len(prompts) - len(known)
