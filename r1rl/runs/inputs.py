"""Objects that a caller in Python gives to a run in the place of what its recipe names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from r1rl.config.rows import PreferencesConfig
from r1rl.config.schema import DataConfig, EvaluationConfig, ProblemsConfig, RewardConfig
from r1rl.data.rows import IN_MEMORY, Rows
from r1rl.errors import UserError
from r1rl.rewards.contract import RewardFunction
from r1rl.rewards.given import function_name
from r1rl.runs.hooks import Hook, check_hook

if TYPE_CHECKING:  # what is known before a model is loaded is told without waiting for torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Recipe = TypeVar("Recipe", bound=Any)
"""The recipe of a command that trains: a dataclass with the sections `model`, `data`, `evaluation`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The objects that a caller in Python gives to a run; where there is none, the recipe says it.

    With several processes, each must be given the same.
    """

    model: PreTrainedModel | None = None
    """The model to train, in place, so that its weights change. It comes with `tokenizer`. A run that is
    resumed takes the weights of its checkpoint instead.
    """
    tokenizer: PreTrainedTokenizerBase | None = None
    rows: Rows | None = None
    """The rows of the training data, in the place of `data.source`; every other key of `data` holds."""
    evaluation_rows: Rows | None = None
    """The rows of the held-out data, in the place of `evaluation.data.source`."""
    rewards: Sequence[RewardFunction] = ()
    """Functions of the form that `r1rl.rewards.contract` describes, in the place of the recipe's rewards. One
    whose name the recipe has (`function: my_function`) keeps its weight, gate and arguments; others have
    weight 1.
    """
    hooks: Sequence[Hook] = ()
    """Hooks that are called after those of the recipe."""

    def check(self) -> None:
        """Raise a UserError for what can be seen to be wrong at once."""
        if (self.model is None) != (self.tokenizer is None):
            raise UserError("model and tokenizer are given together: one of them is missing.")
        names = [function_name(function) for function in self.rewards]
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"rewards: {names.count(name)} functions are named {name}: give each its own name."
                )
        for hook in self.hooks:
            check_hook(hook)

    @property
    def functions(self) -> Mapping[str, RewardFunction]:
        """The given rewards by name."""
        return {function_name(function): function for function in self.rewards}

    def named_in(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the names of what was given, as the run directory records it."""
        changes: dict[str, Any] = {}
        if self.model is not None:
            path = self.model.name_or_path or IN_MEMORY
            changes["model"] = replace(recipe.model, path=path, revision=None)
        if self.rows is not None:
            changes["data"] = _of_rows(recipe.data or DataConfig(source=IN_MEMORY))
        if self.evaluation_rows is not None:
            changes["evaluation"] = replace(
                recipe.evaluation, data=_of_rows(recipe.evaluation.data or _held_out(recipe.evaluation))
            )
        if self.rewards:
            known = {config.function.rpartition(":")[2]: config for config in recipe.rewards}
            changes["rewards"] = [
                replace(known[name], function=name) if name in known else RewardConfig(function=name)
                for name in self.functions
            ]
        return replace(recipe, **changes)


NOTHING = Given()
"""Everything is as the recipe says."""


def _held_out(evaluation: Any) -> Any:
    """Return an empty section for held-out data, of the kind that the command reads."""
    if isinstance(evaluation, EvaluationConfig):
        return ProblemsConfig(source=IN_MEMORY)
    return PreferencesConfig(source=IN_MEMORY)


def _of_rows(data: Any) -> Any:
    """Return a data section without the keys that say where rows come from."""
    section = replace(data, source=IN_MEMORY, subset=None, split="train", revision=None, arguments={})
    return replace(section, mix=[]) if isinstance(section, ProblemsConfig) else section
