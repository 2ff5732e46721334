"""Values of a recipe that contradict each other. Each check names the keys that it looked at, so that the
message can point at them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from r1rl.config.commands import command_of
from r1rl.config.issues import Contradiction
from r1rl.config.schema import EvaluationConfig, OptimizerConfig, PromptConfig


def contradictions(recipe: Any) -> Iterator[Contradiction]:
    """Yield all contradictions within a recipe of any command: those of the sections that several recipes
    have, and the command's own. Nothing here reads files or imports rewards.
    """
    run_path = PurePath(recipe.run_name)
    if not run_path.parts or run_path.is_absolute() or ".." in run_path.parts:
        yield (
            ("run_name",),
            f'run_name is "{recipe.run_name}"; it names a folder inside output_dir ({recipe.output_dir})',
        )
    for section in (getattr(recipe, entry.name) for entry in dataclasses.fields(recipe)):
        if isinstance(section, PromptConfig):
            yield from _prompt(section)
        if isinstance(section, OptimizerConfig):
            yield from _optimizer(section)
        if isinstance(section, EvaluationConfig):
            yield from _evaluation(section)
    yield from command_of(recipe).contradictions(recipe)


def _prompt(prompt: PromptConfig) -> Iterator[Contradiction]:
    if prompt.system is not None and prompt.template != "chat":
        yield (
            ("prompt.system", "prompt.template"),
            f"prompt.system is set, but prompt.template is {prompt.template}, which has no system message: "
            "write prompt.template: chat, or leave prompt.system out",
        )
    if "" in prompt.stop:
        yield ("prompt.stop",), "prompt.stop contains empty text, which would end every completion at once"


def _evaluation(evaluation: EvaluationConfig) -> Iterator[Contradiction]:
    if evaluation.every_steps and evaluation.data is None:
        yield (
            ("evaluation.every_steps", "evaluation.data"),
            "evaluation.every_steps is set, but there are no held-out problems: write evaluation.data",
        )
    if evaluation.every_steps and evaluation.during_problems > evaluation.num_problems:
        yield (
            ("evaluation.during_problems", "evaluation.num_problems"),
            f"evaluation.during_problems is {evaluation.during_problems}, more than evaluation.num_problems "
            f"({evaluation.num_problems})",
        )


def _optimizer(optimizer: OptimizerConfig) -> Iterator[Contradiction]:
    if len(optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in optimizer.betas):
        yield (
            ("optimizer.betas",),
            f"optimizer.betas is {optimizer.betas}; it must be two numbers from 0 to below 1, such as [0.9, "
            f"0.999]",
        )
