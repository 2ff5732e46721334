"""Values of a recipe that contradict each other. Each check names the keys that it looked at, so that the message can point at them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1rl.config.schema import GRPORecipe, OptimizerConfig, PretrainRecipe, RewardConfig

OUTCOME_REWARDS = ("accuracy", "countdown", "code")
"""Rewards that say whether an answer is right; the first of the recipe's is its outcome when `outcome` is null."""
GROUP_BASELINES = ("group", "leave_one_out", "reinforce_plus_plus")

Contradiction = tuple[tuple[str, ...], str]
"""The dotted keys that a check looked at, the most likely culprit first, and the sentence."""


def reward_name(function: str) -> str:
    """The name that a reward has in metrics, gates and `outcome`: `format` for "format" and for "path/to/file.py:format"."""
    return function.rpartition(":")[2]


def contradictions(recipe: Any) -> Iterator[Contradiction]:
    """All contradictions within a recipe; nothing here reads files or imports rewards."""
    if not recipe.run_name or Path(recipe.run_name).name != recipe.run_name:
        yield ("run_name",), f'run_name is "{recipe.run_name}"; it names a folder, so it must not be empty or contain a slash'
    if isinstance(recipe, GRPORecipe):
        yield from _prompt(recipe)
        yield from _rewards(recipe)
        yield from _rollout(recipe)
        yield from _algorithm(recipe)
        yield from _evaluation(recipe)
    if isinstance(recipe, PretrainRecipe):
        yield from _pretrain(recipe)
    yield from _optimizer(recipe.optimizer)


def _prompt(recipe: GRPORecipe) -> Iterator[Contradiction]:
    if recipe.prompt.system is not None and recipe.prompt.template != "chat":
        yield (
            ("prompt.system", "prompt.template"),
            f"prompt.system is set, but prompt.template is {recipe.prompt.template}, which has no system message: "
            "write prompt.template: chat, or leave prompt.system out",
        )
    if "" in recipe.prompt.stop:
        yield ("prompt.stop",), "prompt.stop contains empty text, which would end every completion at once"


def _rewards(recipe: GRPORecipe) -> Iterator[Contradiction]:
    names = [reward_name(reward.function) for reward in recipe.rewards]
    if not names:
        yield ("rewards",), "rewards is empty: list at least one, such as [{function: accuracy}]"
        return
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield ("rewards",), f"rewards has {names.count(name)} rewards named {name}; their results would be mixed up: rename a function"
    if all(reward.weight == 0 for reward in recipe.rewards):
        yield ("rewards",), "every reward has weight 0, so there is nothing to learn: give one a weight"
    for index, reward in enumerate(recipe.rewards):
        yield from _gates(reward, names, f"rewards.{index}.when")
    if recipe.outcome is not None and recipe.outcome not in names:
        yield ("outcome", "rewards"), f"outcome is {recipe.outcome}, which is not among the rewards ({', '.join(names)})"
    if recipe.outcome is None and not set(names) & set(OUTCOME_REWARDS):
        needed_by = "algorithm.dynamic_sampling" if recipe.algorithm.dynamic_sampling else "evaluation.data"
        if recipe.algorithm.dynamic_sampling or recipe.evaluation.data is not None:
            yield (
                (needed_by, "outcome", "rewards"),
                f"{needed_by} must know which reward says that an answer is right: write outcome: NAME, one of {', '.join(names)}",
            )


def _gates(reward: RewardConfig, names: list[str], key: str) -> Iterator[Contradiction]:
    own = reward_name(reward.function)
    for name, gate in reward.when.items():
        if name == own or name not in names:
            others = ", ".join(other for other in names if other != own) or "none"
            yield (key, "rewards"), f"{key} names {name}; a gate names another reward of this recipe ({others})"
        numbers = list(gate.values()) if isinstance(gate, dict) else [gate]
        bounds = set(gate) if isinstance(gate, dict) else {"min"}
        if not numbers or bounds - {"min", "max"} or not all(isinstance(number, (int, float)) for number in numbers):
            yield (key,), f"{key}.{name} is {gate}; write a number, or {{min: NUMBER}}, {{max: NUMBER}} or both"


def _rollout(recipe: GRPORecipe) -> Iterator[Contradiction]:
    rollout, algorithm = recipe.rollout, recipe.algorithm
    completions = rollout.num_prompts * rollout.num_generations
    if completions % algorithm.num_minibatches:
        yield (
            ("algorithm.num_minibatches", "rollout.num_prompts", "rollout.num_generations"),
            f"algorithm.num_minibatches is {algorithm.num_minibatches}, which does not divide the batch of {rollout.num_prompts} prompts "
            f"x {rollout.num_generations} completions = {completions}",
        )
    if rollout.repetition_penalty != 1.0:
        yield (
            ("rollout.repetition_penalty",),
            f"rollout.repetition_penalty is {rollout.repetition_penalty:g}; grpo trains the distribution that it samples, and a repetition "
            "penalty depends on the text so far, which the trained distribution can't follow: write 1, or use a repetition reward",
        )
    needs_group = algorithm.baseline in GROUP_BASELINES or algorithm.scale == "group"
    if rollout.num_generations < 2 and needs_group:
        key, value = ("baseline", algorithm.baseline) if algorithm.baseline in GROUP_BASELINES else ("scale", algorithm.scale)
        yield (
            ("rollout.num_generations", f"algorithm.{key}"),
            f"rollout.num_generations is 1, but algorithm.{key}: {value} compares the completions of a group: write 2 or more",
        )


def _algorithm(recipe: GRPORecipe) -> Iterator[Contradiction]:
    algorithm = recipe.algorithm
    if algorithm.delta is not None:
        if algorithm.surrogate != "clip":
            yield (
                ("algorithm.delta", "algorithm.surrogate"),
                f"algorithm.delta belongs to the clip surrogate and has no effect with algorithm.surrogate: {algorithm.surrogate}: write null",
            )
        elif algorithm.delta <= 1 + algorithm.epsilon_high:
            yield (
                ("algorithm.delta", "algorithm.epsilon_high"),
                f"algorithm.delta is {algorithm.delta:g}; it must be above 1 + algorithm.epsilon_high = {1 + algorithm.epsilon_high:g}",
            )
    if algorithm.scale != "none" and algorithm.advantage_epsilon == 0:
        yield (
            ("algorithm.advantage_epsilon", "algorithm.scale"),
            "algorithm.advantage_epsilon is 0, so a group whose rewards are all equal would be divided by zero: write 1e-4",
        )


def _evaluation(recipe: GRPORecipe) -> Iterator[Contradiction]:
    evaluation = recipe.evaluation
    if evaluation.every_steps and evaluation.data is None:
        yield (
            ("evaluation.every_steps", "evaluation.data"),
            "evaluation.every_steps is set, but there are no held-out problems: write evaluation.data",
        )
    if evaluation.every_steps and evaluation.during_problems > evaluation.num_problems:
        yield (
            ("evaluation.during_problems", "evaluation.num_problems"),
            f"evaluation.during_problems is {evaluation.during_problems}, more than evaluation.num_problems ({evaluation.num_problems})",
        )


def _optimizer(optimizer: OptimizerConfig) -> Iterator[Contradiction]:
    if len(optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in optimizer.betas):
        yield ("optimizer.betas",), f"optimizer.betas is {optimizer.betas}; it must be two numbers from 0 to below 1, such as [0.9, 0.999]"


def _pretrain(recipe: PretrainRecipe) -> Iterator[Contradiction]:
    shape, corpus = recipe.architecture, recipe.corpus
    if shape.num_heads % shape.num_key_value_heads:
        yield (
            ("architecture.num_key_value_heads", "architecture.num_heads"),
            f"architecture.num_key_value_heads is {shape.num_key_value_heads}, "
            f"which does not divide architecture.num_heads ({shape.num_heads})",
        )
    if recipe.sequence_length > shape.max_position_embeddings:
        yield (
            ("sequence_length", "architecture.max_position_embeddings"),
            f"sequence_length is {recipe.sequence_length}, "
            f"more than architecture.max_position_embeddings ({shape.max_position_embeddings})",
        )
    if recipe.batch_tokens % recipe.sequence_length:
        yield (
            ("batch_tokens", "sequence_length"),
            f"batch_tokens is {recipe.batch_tokens}, which is not a multiple of sequence_length ({recipe.sequence_length})",
        )
    for key, shares in (("corpus.tasks", corpus.tasks), ("corpus.habits", corpus.habits)):
        if not shares or min(shares.values()) < 0 or sum(shares.values()) <= 0:
            yield (key,), f"{key} is {shares or 'empty'}; it must give each name its share of the documents, such as {{name: 0.5}}"
