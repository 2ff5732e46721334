"""Values of a recipe of `r1rl grpo` that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from r1rl.config.issues import Contradiction
from r1rl.config.reward_names import OUTCOME_REWARDS, reward_names
from r1rl.grpo.recipe import GRPORecipe

GROUP_BASELINES = ("group", "leave_one_out", "reinforce_plus_plus")


def contradictions(recipe: GRPORecipe) -> Iterator[Contradiction]:
    yield from _rewards(recipe)
    yield from _rollout(recipe)
    yield from _algorithm(recipe)
    if recipe.update.compile and recipe.model.gradient_checkpointing:
        yield (
            ("update.compile", "model.gradient_checkpointing"),
            "update.compile and model.gradient_checkpointing are both true, and a compiled layer can't be "
            "recomputed: write one of them",
        )
    if recipe.model.lora is not None and recipe.rollout.engine == "vllm":
        yield (
            ("rollout.engine", "model.lora"),
            "rollout.engine is vllm, which is sent whole weights and would not see the adapters of "
            "model.lora: write engine: auto",
        )


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
        yield (
            ("outcome", "rewards"),
            f"outcome is {recipe.outcome}, which is not among the rewards ({', '.join(names)})",
        )
    if recipe.outcome is None and not set(names) & set(OUTCOME_REWARDS):
        needed_by = "algorithm.dynamic_sampling" if recipe.algorithm.dynamic_sampling else "evaluation.data"
        if recipe.algorithm.dynamic_sampling or recipe.evaluation.data is not None:
            yield (
                (needed_by, "outcome", "rewards"),
                f"{needed_by} must know which reward says that an answer is right: write outcome: NAME, one "
                f"of {', '.join(names)}",
            )


def _rollout(recipe: GRPORecipe) -> Iterator[Contradiction]:
    rollout, algorithm = recipe.rollout, recipe.algorithm
    if rollout.num_prompts % algorithm.num_minibatches:
        yield (
            ("algorithm.num_minibatches", "rollout.num_prompts"),
            f"algorithm.num_minibatches is {algorithm.num_minibatches}, which does not divide "
            f"rollout.num_prompts ({rollout.num_prompts})",
        )
    if rollout.repetition_penalty != 1.0:
        yield (
            ("rollout.repetition_penalty",),
            f"rollout.repetition_penalty is {rollout.repetition_penalty:g}; grpo trains the distribution "
            f"that it samples, and a repetition "
            "penalty depends on the text so far, which the trained distribution can't follow: write 1, or "
            "use a repetition reward",
        )
    yield from _one_step_off(recipe)
    needs_group = algorithm.baseline in GROUP_BASELINES or algorithm.scale == "group"
    if rollout.num_generations < 2 and needs_group:
        key, value = (
            ("baseline", algorithm.baseline)
            if algorithm.baseline in GROUP_BASELINES
            else ("scale", algorithm.scale)
        )
        yield (
            ("rollout.num_generations", f"algorithm.{key}"),
            f"rollout.num_generations is 1, but algorithm.{key}: {value} compares the completions of a "
            f"group: write 2 or more",
        )


def _one_step_off(recipe: GRPORecipe) -> Iterator[Contradiction]:
    if not recipe.rollout.one_step_off:
        return
    if recipe.rollout.engine == "vllm":
        yield (
            ("rollout.one_step_off", "rollout.engine"),
            "rollout.one_step_off samples while the update runs, but rollout.engine is vllm, which sleeps "
            "or takes over weights then: "
            "write engine: auto, or one_step_off: false",
        )
    if recipe.algorithm.importance_cap is None:
        yield (
            ("rollout.one_step_off", "algorithm.importance_cap"),
            "rollout.one_step_off is true, but algorithm.importance_cap is null: in bfloat16, and with "
            "surrogate: online_rft, nothing else "
            "corrects for completions of the policy before: write a number, such as 2",
        )


def _algorithm(recipe: GRPORecipe) -> Iterator[Contradiction]:
    algorithm = recipe.algorithm
    if algorithm.delta is not None:
        if algorithm.surrogate != "clip":
            yield (
                ("algorithm.delta", "algorithm.surrogate"),
                f"algorithm.delta belongs to the clip surrogate; with algorithm.surrogate: "
                f"{algorithm.surrogate} write delta: null",
            )
        elif algorithm.delta <= 1 + algorithm.epsilon_high:
            yield (
                ("algorithm.delta", "algorithm.epsilon_high"),
                f"algorithm.delta is {algorithm.delta:g}; it must be above 1 + algorithm.epsilon_high = "
                f"{1 + algorithm.epsilon_high:g}",
            )
    if algorithm.importance_level == "sequence" and algorithm.surrogate == "online_rft":
        yield (
            ("algorithm.importance_level", "algorithm.surrogate"),
            "algorithm.importance_level: sequence has no effect with algorithm.surrogate: online_rft, which "
            "uses no ratio: write token",
        )
    if algorithm.kl_bias_correction and algorithm.beta == 0:
        yield (
            ("algorithm.kl_bias_correction", "algorithm.beta"),
            "algorithm.kl_bias_correction is set, but algorithm.beta is 0, so there is no KL term: set "
            "beta, or write false",
        )
    if algorithm.baseline == "reinforce_plus_plus" and algorithm.scale != "batch":
        yield (
            ("algorithm.scale", "algorithm.baseline"),
            f"algorithm.scale is {algorithm.scale}, but algorithm.baseline: reinforce_plus_plus divides by "
            f"the batch's standard deviation: "
            "write scale: batch",
        )
