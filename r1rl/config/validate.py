"""Values of a recipe that contradict each other. Each check names the keys that it looked at, so that the
message can point at them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

from r1rl.bench import recipe as bench
from r1rl.bench.recipe import BenchRecipe
from r1rl.config.issues import Contradiction
from r1rl.config.schema import EvaluationConfig, OptimizerConfig, PromptConfig
from r1rl.distill import recipe as distill
from r1rl.distill.recipe import DistillRecipe
from r1rl.evaluation import recipe as evaluate
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.generate import recipe as generate
from r1rl.generate.recipe import GenerateRecipe
from r1rl.grpo.contradictions import contradictions as _grpo
from r1rl.grpo.recipe import GRPORecipe
from r1rl.pipeline import recipe as pipeline
from r1rl.pipeline.recipe import PipelineRecipe
from r1rl.pretrain import recipe as pretrain
from r1rl.pretrain.recipe import PretrainRecipe
from r1rl.reward_model import recipe as reward_model
from r1rl.reward_model.recipe import RewardModelRecipe
from r1rl.select import recipe as select
from r1rl.select.recipe import SelectRecipe
from r1rl.sft import recipe as sft
from r1rl.sft.recipe import SFTRecipe


def contradictions(recipe: Any) -> Iterator[Contradiction]:
    """All contradictions within a recipe of any command; nothing here reads files or imports rewards."""
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
    yield from OF_RECIPE[type(recipe)](recipe)


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


OF_RECIPE: dict[type, Callable[[Any], Iterator[Contradiction]]] = {
    GRPORecipe: _grpo,
    BenchRecipe: bench.contradictions,
    DistillRecipe: distill.contradictions,
    EvaluateRecipe: evaluate.contradictions,
    GenerateRecipe: generate.contradictions,
    PretrainRecipe: pretrain.contradictions,
    PipelineRecipe: pipeline.contradictions,
    SelectRecipe: select.contradictions,
    SFTRecipe: sft.contradictions,
    RewardModelRecipe: reward_model.contradictions,
}
"""What each kind of recipe checks besides the sections that several have."""
