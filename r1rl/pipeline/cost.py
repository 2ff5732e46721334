"""What a stage will cost, as far as its recipe says: optimizer steps, completions, and tokens at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r1rl.distill.recipe import DistillRecipe
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.generate.recipe import GenerateRecipe
from r1rl.grpo.recipe import GRPORecipe
from r1rl.pretrain.recipe import PretrainRecipe

UNITS = ((10**9, "B"), (10**6, "M"), (10**3, "k"))


@dataclass(frozen=True, slots=True)
class Cost:
    """None: not known before the data is read."""

    steps: int | None = None
    completions: int | None = None
    tokens: int | None = None
    """Written and trained on, at most."""

    def __str__(self) -> str:
        parts = [f"{self.steps:,} steps"] if self.steps is not None else []
        parts += [f"{short(self.completions)} completions"] if self.completions is not None else []
        parts += [f"at most {short(self.tokens)} tokens"] if self.tokens is not None else []
        return ", ".join(parts) or "depends on the data"


def expected_cost(recipe: Any) -> Cost:
    """The cost of a recipe of any command."""
    if isinstance(recipe, GRPORecipe):
        return _grpo(recipe)
    if isinstance(recipe, PretrainRecipe):
        return Cost(steps=recipe.max_steps, tokens=recipe.max_steps * recipe.batch_tokens)
    if isinstance(recipe, EvaluateRecipe):
        return _evaluate(recipe)
    if isinstance(recipe, DistillRecipe):
        completions = recipe.max_steps * recipe.rollout.num_prompts * recipe.rollout.num_generations
        return Cost(recipe.max_steps, completions, completions * recipe.rollout.max_completion_length)
    if isinstance(recipe, GenerateRecipe):
        return _generate(recipe)
    return Cost(steps=getattr(recipe, "max_steps", 0) or None)  # 0: as many as the data needs


def _grpo(recipe: GRPORecipe) -> Cost:
    rollout, evaluation = recipe.rollout, recipe.evaluation
    completions = recipe.max_steps * rollout.num_prompts * rollout.num_generations
    if evaluation.data is not None:
        during = (recipe.max_steps - 1) // evaluation.every_steps if evaluation.every_steps else 0
        problems = evaluation.num_problems * (1 + evaluation.at_start) + during * evaluation.during_problems
        completions += problems * evaluation.num_samples
    return Cost(recipe.max_steps, completions, completions * rollout.max_completion_length)


def _generate(recipe: GenerateRecipe) -> Cost:
    """Known where the recipe says how many problems there are."""
    count = recipe.data.arguments.get("count", recipe.data.limit)
    if not isinstance(count, int) or recipe.data.mix:
        return Cost()
    rounds = 1 if recipe.verification is None else 2
    completions = rounds * recipe.num_samples * min(count, recipe.data.limit or count)
    return Cost(completions=completions, tokens=completions * recipe.max_completion_length)


def _evaluate(recipe: EvaluateRecipe) -> Cost:
    """Known where the recipe limits the problems; the benchmarks' own sizes are not read for it."""
    from r1rl.evaluation.benchmarks import benchmarks_of

    if recipe.num_problems is None:
        return Cost()
    counts = [
        (recipe.num_problems * benchmark.num_samples, benchmark.max_completion_length)
        for benchmark in benchmarks_of(recipe)
    ]
    models = len(recipe.models)
    completions = models * sum(completions for completions, _ in counts)
    return Cost(
        completions=completions, tokens=models * sum(completions * length for completions, length in counts)
    )


def short(number: int) -> str:
    """15,360 as "15k"."""
    for size, unit in UNITS:
        if number >= 10 * size:
            return f"{number / size:.0f}{unit}"
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
