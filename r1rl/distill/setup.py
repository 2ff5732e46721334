"""The parts of a distillation run: tokenizers, student, teacher, engine, optimizer, schedule, and the sources
of completions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from r1rl.compute.accelerator import compute_dtype
from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.data import build_prompts
from r1rl.distill.completions import PreparedCompletions, prepare_completions
from r1rl.distill.forward import StudentForward, Teacher
from r1rl.distill.preflight import DistillPreflight
from r1rl.distill.recipe import DistillRecipe, TeacherConfig
from r1rl.distill.sources import Sources
from r1rl.distill.vocabulary import Tokenizers, shared_tokens
from r1rl.errors import DataError
from r1rl.models.loading import load_model, load_policy, load_tokenizer, resolve_dtype
from r1rl.policy.logprobs import PolicyForward
from r1rl.rollout import EngineSetup, make_engine
from r1rl.rollout.setup import make_sampling
from r1rl.runs.evaluated_run import EvaluatedParts
from r1rl.runs.inputs import Given
from r1rl.runs.start import RunStart
from r1rl.text.prompts import PromptTemplate
from r1rl.types import Problem, Prompt


@dataclass(kw_only=True)
class DistillParts(EvaluatedParts):
    """Everything that a step works with. `policy` is the prepared `StudentForward`."""

    teacher: Teacher
    order: Sources
    notes: list[str]
    """Sentences about what the run is made of."""


def load_tokenizers(recipe: DistillRecipe, given: Given) -> Tokenizers:
    """Load both tokenizers and compare them. Raises UserError if they differ: before a run directory is made
    and before weights are loaded.
    """
    student = load_tokenizer(given.tokenizer or recipe.model.path, recipe.model.revision)
    return Tokenizers(
        student,
        shared_tokens(student, load_tokenizer(recipe.teacher.path, recipe.teacher.revision, "teacher.path")),
    )


def build_parts(start: RunStart[DistillRecipe], checked: DistillPreflight) -> DistillParts:
    """Load the models (the student from the checkpoint when a run goes on) and connect everything."""
    assert checked.tokenizers is not None  # loaded before the run directory was made
    recipe, accelerator, display = start.recipe, start.accelerator, start.display
    tokenizer, shared = checked.tokenizers.student, checked.tokenizers.shared
    model = load_policy(recipe.model, start.checkpoint, given=start.given.model)
    dtype = compute_dtype(accelerator)
    teacher = Teacher(load_teacher(recipe.teacher, accelerator.device))
    sampling = make_sampling(
        recipe.rollout, recipe.prompt, tokenizer, model, recipe.rollout.repetition_penalty
    )
    PolicyForward(model, sampling, recipe.update.logit_chunk).verify()
    PolicyForward(teacher.model, sampling, recipe.update.logit_chunk).verify("teacher.path")
    size = shared.size(logit_width(model), logit_width(teacher.model))
    template = PromptTemplate(recipe.prompt, tokenizer)
    prompts, dropped = _prompts(recipe, checked.problems, template, size)
    rows = PreparedCompletions([], [])
    if recipe.completions is not None:
        rows = prepare_completions(recipe, checked.completions, tokenizer, size)
    nn.Module.to(model, accelerator.device)
    engine = make_engine(
        checked.engine, EngineSetup.of_run(recipe.rollout, model, tokenizer, accelerator, dtype)
    )
    start.report_trials(engine.trials)
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
    """Load the teacher in its own precision onto the device, whole in every process."""
    dtype = resolve_dtype(config.dtype, device)
    model = load_model(config.path, dtype, revision=config.revision, key="teacher.path")
    return nn.Module.to(model, device)


def logit_width(model: PreTrainedModel) -> int:
    """Return the number of ids that the model's logits are for; often more than its tokenizer has."""
    return model.get_output_embeddings().weight.shape[0]


def _prompts(
    recipe: DistillRecipe, problems: list[Problem], template: PromptTemplate, shared: int
) -> tuple[list[Prompt], int]:
    """Return the prompts for the student to answer, and the number of those that are too long or have tokens
    that the teacher does not know.
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
