"""Values of a recipe of `r1rl grpo` that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from r1rl.config.engines import ENGINES, EngineProperties
from r1rl.config.issues import Contradiction
from r1rl.config.reward_names import OUTCOME_REWARDS, reward_names
from r1rl.grpo.recipe import GRPORecipe
from r1rl.objective.advantages import BASELINES, SCALES
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.surrogates import SURROGATES, Surrogate


def contradictions(recipe: GRPORecipe) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict each other. Properties of the user's own code are not
    known yet: `r1rl.grpo.components` checks them.
    """
    yield from _rewards(recipe)
    yield from _rollout(recipe)
    yield from _algorithm(recipe)
    if recipe.update.compile and recipe.model.gradient_checkpointing:
        yield (
            ("update.compile", "model.gradient_checkpointing"),
            "update.compile and model.gradient_checkpointing are both true, and a compiled layer can't be "
            "recomputed: write one of them",
        )
    if recipe.algorithm.surrogate in SURROGATES:
        yield from surrogate_contradictions(recipe.algorithm, SURROGATES[recipe.algorithm.surrogate])
    if recipe.rollout.engine in ENGINES:
        yield from engine_contradictions(recipe, ENGINES[recipe.rollout.engine].properties)


def surrogate_contradictions(algorithm: AlgorithmConfig, surrogate: Surrogate) -> Iterator[Contradiction]:
    """Yield the values of the section that contradict the properties of its surrogate."""
    if algorithm.delta is not None and not surrogate.takes_delta:
        takers = " or ".join(name for name, one in SURROGATES.items() if one.takes_delta)
        yield (
            ("algorithm.delta", "algorithm.surrogate"),
            f"algorithm.delta belongs to the {takers} surrogate; with algorithm.surrogate: "
            f"{algorithm.surrogate} write delta: null",
        )
    if algorithm.importance_level == "sequence" and not surrogate.uses_ratio:
        yield (
            ("algorithm.importance_level", "algorithm.surrogate"),
            f"algorithm.importance_level: sequence has no effect with algorithm.surrogate: "
            f"{algorithm.surrogate}, which uses no ratio: write token",
        )


def engine_contradictions(recipe: GRPORecipe, properties: EngineProperties) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict the properties of its engine."""
    engine = recipe.rollout.engine
    if recipe.model.lora is not None and not properties.takes_adapters:
        yield (
            ("rollout.engine", "model.lora"),
            f"rollout.engine is {engine}, which is sent whole weights and would not see the adapters of "
            f"model.lora: write engine: auto",
        )
    if recipe.rollout.one_step_off and not properties.background:
        yield (
            ("rollout.one_step_off", "rollout.engine"),
            f"rollout.one_step_off samples while the update runs, but rollout.engine is {engine}, which "
            f"can't "
            f"work then: write engine: auto, or one_step_off: false",
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
                yield (
                    (f"rewards.{index}.when", "rewards"),
                    f"rewards.{index}.when names {gate}; a gate names another reward of this recipe "
                    f"({others})",
                )
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
    yield from _one_step_off(recipe)
    if rollout.num_generations < 2 and algorithm.advantage is None:
        for key, value, table in (
            ("baseline", algorithm.baseline, BASELINES),
            ("scale", algorithm.scale, SCALES),
        ):
            if table[value].needs_group:
                yield (
                    ("rollout.num_generations", f"algorithm.{key}"),
                    f"rollout.num_generations is 1, but algorithm.{key}: {value} compares the completions "
                    f"of a "
                    f"group: write 2 or more",
                )
                return


def _one_step_off(recipe: GRPORecipe) -> Iterator[Contradiction]:
    if recipe.rollout.one_step_off and recipe.algorithm.importance_cap is None:
        yield (
            ("rollout.one_step_off", "algorithm.importance_cap"),
            "rollout.one_step_off is true, but algorithm.importance_cap is null: in bfloat16, and with "
            "surrogate: online_rft, nothing else "
            "corrects for completions of the policy before: write a number, such as 2",
        )


def _algorithm(recipe: GRPORecipe) -> Iterator[Contradiction]:
    algorithm = recipe.algorithm
    takes_delta = algorithm.surrogate not in SURROGATES or SURROGATES[algorithm.surrogate].takes_delta
    if algorithm.delta is not None and takes_delta and algorithm.delta <= 1 + algorithm.epsilon_high:
        yield (
            ("algorithm.delta", "algorithm.epsilon_high"),
            f"algorithm.delta is {algorithm.delta:g}; it must be above 1 + algorithm.epsilon_high = "
            f"{1 + algorithm.epsilon_high:g}",
        )
    if algorithm.kl_bias_correction and algorithm.beta == 0:
        yield (
            ("algorithm.kl_bias_correction", "algorithm.beta"),
            "algorithm.kl_bias_correction is set, but algorithm.beta is 0, so there is no KL term: set "
            "beta, or write false",
        )
    whitens = BASELINES[algorithm.baseline].whitens and algorithm.advantage is None
    if whitens and not SCALES[algorithm.scale].of_batch:
        yield (
            ("algorithm.scale", "algorithm.baseline"),
            f"algorithm.scale is {algorithm.scale}, but algorithm.baseline: {algorithm.baseline} divides by "
            f"the batch's standard deviation: write scale: batch",
        )
