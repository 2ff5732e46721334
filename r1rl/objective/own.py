"""Surrogates and advantage estimators of the user's own, found by the path that a recipe gives them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from r1rl.config.plugins import LoadedCode, Wanted, load_code
from r1rl.errors import RecipeError
from r1rl.objective.advantages import Estimator
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.surrogates import SURROGATES, Surrogate

SURROGATE_KEY = "algorithm.surrogate"
SURROGATE_PARAMETERS = ("logprobs_N", "ratio_N", "advantages_N", "config", "metrics")
ESTIMATOR_KEY = "algorithm.advantage"
ESTIMATOR_PARAMETERS = ("rewards_PG", "config")


def find_surrogate(config: AlgorithmConfig, base_dir: Path) -> Surrogate:
    """Return the surrogate of a recipe; one of the user's own is tried on small tensors.

    `base_dir` is the recipe's folder. Raises RecipeError, naming key and file, if it can't be found or used.
    """
    if config.surrogate in SURROGATES:
        return SURROGATES[config.surrogate]
    wanted = Wanted(
        SURROGATE_KEY,
        lambda value: isinstance(value, Surrogate) or _is_function(value),
        module_example="my_package.my_loss:my_surrogate",
        file_example="path/to/my_loss.py:my_surrogate",
    )
    code = load_code(config.surrogate, base_dir, wanted)
    surrogate = code.value if isinstance(code.value, Surrogate) else Surrogate(function=code.value)
    _check_parameters(code, surrogate.function, SURROGATE_KEY, SURROGATE_PARAMETERS)
    from r1rl.objective.trial import try_surrogate  # imports torch, as the user's code did

    try_surrogate(surrogate, config, f"{SURROGATE_KEY}: {code.place}")
    return surrogate


def find_estimator(config: AlgorithmConfig, num_generations: int, base_dir: Path) -> Estimator | None:
    """Return the advantage estimator of the user's own that a recipe names, tried on small groups of
    `num_generations` rewards; None where it names none.

    `base_dir` is the recipe's folder. Raises RecipeError, naming key and file, if it can't be found or used.
    """
    if config.advantage is None:
        return None
    wanted = Wanted(
        ESTIMATOR_KEY,
        _is_function,
        module_example="my_package.my_advantage:estimator",
        file_example="path/to/my_advantage.py:estimator",
    )
    code = load_code(config.advantage, base_dir, wanted)
    _check_parameters(code, code.value, ESTIMATOR_KEY, ESTIMATOR_PARAMETERS)
    from r1rl.objective.trial import try_estimator  # imports torch, as the user's code did

    estimator: Estimator = code.value
    try_estimator(estimator, config, num_generations, f"{ESTIMATOR_KEY}: {code.place}")
    return estimator


def _is_function(value: Any) -> bool:
    return callable(value) and not inspect.isclass(value)


def _check_parameters(code: LoadedCode, function: Any, key: str, parameters: tuple[str, ...]) -> None:
    """Raise RecipeError if a function can't be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*parameters)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"{key}: {code.place} can't be called as {code.name}({', '.join(parameters)}): {error}."
        ) from error
