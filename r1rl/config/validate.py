"""Values of a recipe that contradict each other. Each check names the keys that it looked at, so that the message can point at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from r1rl.config.schema import EvaluateRecipe, GRPORecipe, OptimizerConfig, PretrainRecipe, PromptConfig, RewardConfig

OUTCOME_REWARDS = ("accuracy", "countdown", "code_execution")
"""Rewards that say whether an answer is right; the first of the recipe's is its outcome when `outcome` is null."""
GROUP_BASELINES = ("group", "leave_one_out", "reinforce_plus_plus")

Contradiction = tuple[tuple[str, ...], str]
"""The dotted keys that a check looked at, the most likely culprit first, and the sentence."""


def reward_names(rewards: Sequence[RewardConfig]) -> list[str]:
    """The names that rewards have in metrics, gates and `outcome`: the function's own; the second `length` is `length_2`."""
    names: list[str] = []
    counts: Counter[str] = Counter()
    for reward in rewards:
        name = reward.function.rpartition(":")[2]
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name}_{counts[name]}")
    return names


def contradictions(recipe: Any) -> Iterator[Contradiction]:
    """All contradictions within a recipe; nothing here reads files or imports rewards."""
    run_path = PurePath(recipe.run_name)
    if not run_path.parts or run_path.is_absolute() or ".." in run_path.parts:
        yield ("run_name",), f'run_name is "{recipe.run_name}"; it names a folder inside output_dir ({recipe.output_dir})'
    if isinstance(recipe, GRPORecipe):
        yield from _prompt(recipe.prompt)
        yield from _rewards(recipe)
        yield from _rollout(recipe)
        yield from _algorithm(recipe)
        yield from _evaluation(recipe)
        yield from _optimizer(recipe.optimizer)
    if isinstance(recipe, EvaluateRecipe):
        yield from _prompt(recipe.prompt)
        yield from _evaluate(recipe)
    if isinstance(recipe, PretrainRecipe):
        yield from _pretrain(recipe)
        yield from _optimizer(recipe.optimizer)


def _prompt(prompt: PromptConfig) -> Iterator[Contradiction]:
    if prompt.system is not None and prompt.template != "chat":
        yield (
            ("prompt.system", "prompt.template"),
            f"prompt.system is set, but prompt.template is {prompt.template}, which has no system message: "
            "write prompt.template: chat, or leave prompt.system out",
        )
    if "" in prompt.stop:
        yield ("prompt.stop",), "prompt.stop contains empty text, which would end every completion at once"


def _rewards(recipe: GRPORecipe) -> Iterator[Contradiction]:
    names = reward_names(recipe.rewards)
    if not names:
        yield ("rewards",), "rewards is empty: list at least one, such as [{function: accuracy}]"
        return
    if all(reward.weight == 0 for reward in recipe.rewards):
        yield ("rewards",), "every reward has weight 0, so there is nothing to learn: give one a weight"
    for index, (own, reward) in enumerate(zip(names, recipe.rewards, strict=True)):
        for gate in reward.when:
            if gate == own or gate not in names:
                others = ", ".join(name for name in names if name != own) or "none"
                sentence = f"rewards.{index}.when names {gate}; a gate names another reward of this recipe ({others})"
                yield (f"rewards.{index}.when", "rewards"), sentence
    if recipe.outcome is not None and recipe.outcome not in names:
        yield ("outcome", "rewards"), f"outcome is {recipe.outcome}, which is not among the rewards ({', '.join(names)})"
    if recipe.outcome is None and not set(names) & set(OUTCOME_REWARDS):
        needed_by = "algorithm.dynamic_sampling" if recipe.algorithm.dynamic_sampling else "evaluation.data"
        if recipe.algorithm.dynamic_sampling or recipe.evaluation.data is not None:
            yield (
                (needed_by, "outcome", "rewards"),
                f"{needed_by} must know which reward says that an answer is right: write outcome: NAME, one of {', '.join(names)}",
            )


def _rollout(recipe: GRPORecipe) -> Iterator[Contradiction]:
    rollout, algorithm = recipe.rollout, recipe.algorithm
    if rollout.num_prompts % algorithm.num_minibatches:
        yield (
            ("algorithm.num_minibatches", "rollout.num_prompts"),
            f"algorithm.num_minibatches is {algorithm.num_minibatches}, which does not divide rollout.num_prompts ({rollout.num_prompts})",
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
                f"algorithm.delta belongs to the clip surrogate; with algorithm.surrogate: {algorithm.surrogate} write delta: null",
            )
        elif algorithm.delta <= 1 + algorithm.epsilon_high:
            yield (
                ("algorithm.delta", "algorithm.epsilon_high"),
                f"algorithm.delta is {algorithm.delta:g}; it must be above 1 + algorithm.epsilon_high = {1 + algorithm.epsilon_high:g}",
            )
    if algorithm.importance_level == "sequence" and algorithm.surrogate == "online_rft":
        yield (
            ("algorithm.importance_level", "algorithm.surrogate"),
            "algorithm.importance_level: sequence has no effect with algorithm.surrogate: online_rft, which uses no ratio: write token",
        )
    if algorithm.kl_bias_correction and algorithm.beta == 0:
        yield (
            ("algorithm.kl_bias_correction", "algorithm.beta"),
            "algorithm.kl_bias_correction is set, but algorithm.beta is 0, so there is no KL term: set beta, or write false",
        )
    if algorithm.baseline == "reinforce_plus_plus" and algorithm.scale != "batch":
        yield (
            ("algorithm.scale", "algorithm.baseline"),
            f"algorithm.scale is {algorithm.scale}, but algorithm.baseline: reinforce_plus_plus divides by the batch's standard deviation: "
            "write scale: batch",
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


def _evaluate(recipe: EvaluateRecipe) -> Iterator[Contradiction]:
    for key in ("models", "benchmarks"):
        if not getattr(recipe, key):
            yield (key,), f"{key} is empty: list at least one"
    defined = Counter(benchmark.name for benchmark in recipe.define)
    for name in (name for name, count in defined.items() if count > 1):
        yield ("define",), f"define has two benchmarks named {name}"
    for key, names in (("benchmarks", recipe.benchmarks), ("models", [model.name for model in recipe.models if model.name])):
        for name in (name for name, count in Counter(names).items() if count > 1):
            yield (key,), f"{key} names {name} twice"
    for index, name in ((index, benchmark.name) for index, benchmark in enumerate(recipe.define)):
        if not name or name.startswith(".") or "/" in name:
            sentence = f'define.{index}.name is "{name}"; it names a folder, so it has no slash and no dot at its start'
            yield (f"define.{index}.name",), sentence
    questions = [("question", recipe.question), *((f"define.{index}.question", one.question) for index, one in enumerate(recipe.define))]
    for key, text in questions:
        if text is not None and "{problem}" not in text:
            yield (key,), f"{key} has no {{problem}}, the place where the problem's text goes"
    for index in (index for index, one in enumerate(recipe.define) if one.data and one.data.max_prompt_tokens is not None):
        yield (
            (f"define.{index}.data.max_prompt_tokens",),
            f"define.{index}.data.max_prompt_tokens is set, but a benchmark leaves no problem out: leave it out",
        )
    if recipe.sampling.temperature == 0 and (recipe.num_samples or 2) > 1:
        yield (
            ("num_samples", "sampling.temperature"),
            "sampling.temperature is 0, so that all completions of a problem would be the same: write num_samples: 1",
        )
    for index in (index for index, model in enumerate(recipe.models) if model.every_step and model.step is not None):
        yield (f"models.{index}.step", f"models.{index}.every_step"), f"models.{index} has both step and every_step: leave one out"
    chat_server = recipe.prompt.template == "chat" and any(model.endpoint is not None for model in recipe.models)
    if chat_server and recipe.prompt.prefill:
        yield (
            ("prompt.prefill", "prompt.template"),
            "prompt.prefill is set, but a server's chat interface starts the answer itself: leave it out, or choose a text template",
        )
