"""Training from Python: `train` does a whole run, `GRPO` puts its loop into the caller's hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1rl.api.recipes import RecipeLike, resolve_recipe
from r1rl.api.run_view import Run, open_run
from r1rl.config.commands import command_of, find_commands, resolve
from r1rl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1rl.data.rows import Rows
    from r1rl.grpo.collect import Rollout, SampledGroup
    from r1rl.grpo.run import GRPORun
    from r1rl.grpo.trainer import GRPOTrainer, StepResult
    from r1rl.runs.hooks import Hook
    from r1rl.runs.training_run import AnyRun


def train(
    recipe: RecipeLike,
    *,
    rewards: Sequence[Callable[..., Any]] = (),
    data: str | Path | Rows | None = None,
    evaluation_data: str | Path | Rows | None = None,
    model: str | Path | PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    hooks: Sequence[Hook] = (),
    resume: bool | str | Path = False,
    **changes: Any,
) -> Run:
    """Train as the recipe says and return the finished run.

    The recipe is a file, a mapping or a loaded recipe of `r1rl grpo`, `sft`, `distill` or `reward-model`;
    every check of the command line is made before a model is loaded. What is given here takes the place of
    what the recipe names:

    - `rewards`: functions as docs/rewards.md describes them. One whose name is in the recipe keeps its
      weight, gate and arguments there; others have weight 1.
    - `data`, `evaluation_data`: rows (a list of dicts, a `datasets.Dataset`, a DataFrame), or what
      `data.source` may be.
    - `model`: a path or hub name, or a model in memory, which is trained in place; with it a `tokenizer`,
      unless the model knows where it was loaded from.
    - `hooks`: objects of `r1rl.runs.hooks`, called after those of the recipe.
    - `changes`: further keys of the recipe, `max_steps=20`, `rollout={"num_prompts": 8}` or
      `**{"rollout.num_prompts": 8}`.

    `resume`: True continues from the run's newest checkpoint, a path from that checkpoint. Raises UserError
    for what the caller can mend, and KeyboardInterrupt after Ctrl-C, with everything saved.
    """
    run = _start(recipe, None, rewards, data, evaluation_data, model, tokenizer, hooks, resume, changes)
    run.train()
    return open_run(run.directory.path)


@dataclass(frozen=True, slots=True)
class GRPOStep:
    """One step of GRPO, as four calls in this order; the equation is in `r1rl.grpo.trainer`."""

    number: int
    """The step, from 1."""
    trainer: GRPOTrainer

    def rollout(self) -> list[SampledGroup]:
        """Sample a group of completions for each prompt; rewards are being computed meanwhile."""
        return self.trainer.rollout()

    def rewards(self, sampled: Sequence[SampledGroup]) -> Rollout:
        """Wait for the rewards and return the scored groups; `groups[p].rewards.total` has G rewards."""
        return self.trainer.rewards(sampled)

    def advantages(self, rollout: Rollout) -> Tensor:
        """Return the recipe's advantages [P, G]; any other tensor of this shape may take their place."""
        return self.trainer.advantages(rollout)

    def update(self, rollout: Rollout, advantages_PG: Tensor) -> StepResult:
        """Train the policy on the completions with these advantages [P, G], and return the step's result."""
        return self.trainer.update(rollout, advantages_PG)


class GRPO:
    """A GRPO run whose loop is in the caller's hands; the arguments are those of `train`.

        grpo = r1rl.GRPO("recipes/zero_rl/tiny.yaml", max_steps=20)
        for step in grpo:
            sampled = step.rollout()
            rollout = step.rewards(sampled)
            advantages = step.advantages(rollout)
            result = step.update(rollout, advantages)

    Logging, evaluations, checkpoints and hooks happen between the steps, as in `train`, and the loop ends
    with the run's summary. Leaving it early saves the run, so that it can be resumed. A run can be iterated
    once.
    """

    def __init__(
        self,
        recipe: RecipeLike,
        *,
        rewards: Sequence[Callable[..., Any]] = (),
        data: str | Path | Rows | None = None,
        evaluation_data: str | Path | Rows | None = None,
        model: str | Path | PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        hooks: Sequence[Hook] = (),
        resume: bool | str | Path = False,
        **changes: Any,
    ) -> None:
        self._run: GRPORun = _start(
            recipe, "grpo", rewards, data, evaluation_data, model, tokenizer, hooks, resume, changes
        )

    @property
    def recipe(self) -> Any:
        """The resolved recipe."""
        return self._run.recipe

    @property
    def model(self) -> PreTrainedModel:
        """The policy, as it is now."""
        return self._run.parts.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer."""
        return self._run.parts.tokenizer

    @property
    def run(self) -> Run:
        """The run as it is on the disk by now: metrics, completions, checkpoints."""
        return open_run(self._run.directory.path)

    def __iter__(self) -> Iterator[GRPOStep]:
        """Yield each step, which is the caller's to do. Raises UserError if a step was left undone."""
        for trainer in self._run.steps_by_hand():
            yield GRPOStep(self._run.state.step + 1, trainer)

    def results(self) -> Iterator[StepResult]:
        """Do the steps, and yield the result of each: metrics, groups and advantages."""
        return self._run.steps()


def _start(
    recipe: RecipeLike,
    command: str | None,
    rewards: Sequence[Callable[..., Any]],
    data: str | Path | Rows | None,
    evaluation_data: str | Path | Rows | None,
    model: str | Path | PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    hooks: Sequence[Hook],
    resume: bool | str | Path,
    changes: Mapping[str, Any],
) -> Any:
    """Return the run of the recipe's command, with its model loaded. Raises UserError as `train` does."""
    from r1rl.data.rows import IN_MEMORY
    from r1rl.rewards.given import function_name
    from r1rl.runs.inputs import Given

    changes = {**changes, **_paths(("data.source", data), ("evaluation.data.source", evaluation_data))}
    changes |= _paths(("model.path", model))
    given = Given(
        model=_object(model),
        tokenizer=_tokenizer(model, tokenizer),
        rows=_rows(data),
        evaluation_rows=_rows(evaluation_data),
        rewards=tuple(rewards),
        hooks=tuple(hooks),
    )
    defaults: dict[str, Any] = {"run_name": "run"}
    if rewards:
        defaults["rewards"] = [{"function": function_name(function)} for function in rewards]
    if given.rows is not None:
        defaults["data"] = {"source": IN_MEMORY}
    loaded, path = resolve_recipe(recipe, changes, defaults, command or "check")
    record = command_of(loaded)
    if record.training is None:
        trainers = ", ".join(name for name, one in find_commands().items() if one.training is not None)
        raise UserError(
            f"{path} is a recipe of r1rl {record.name}, which trains nothing in steps; these do: {trainers}."
        )
    kind: type[AnyRun] = resolve(record.training)
    return kind.start(loaded, path, _resume(resume), given)


def _paths(*named: tuple[str, Any]) -> dict[str, str]:
    """Return the values that are paths, sources or hub names, by the recipe's keys."""
    return {key: str(value) for key, value in named if isinstance(value, str | Path)}


def _object(value: Any) -> Any:
    """Return the value if it is an object in memory, and None for a path or nothing."""
    return None if isinstance(value, str | Path) else value


def _rows(data: Any) -> Any:
    """Return rows in memory as mappings, also those of a DataFrame; None for a path or nothing."""
    rows = _object(data)
    return rows.to_dict("records") if hasattr(rows, "iterrows") else rows


def _tokenizer(model: Any, tokenizer: Any) -> Any:
    """Return the tokenizer, or that of the folder or hub name that the model says it was loaded from."""
    if tokenizer is not None or _object(model) is None or not model.name_or_path:
        return tokenizer
    from r1rl.models.loading import load_tokenizer

    return load_tokenizer(model.name_or_path)


def _resume(resume: bool | str | Path) -> str | None:
    return ("latest" if resume else None) if isinstance(resume, bool) else str(resume)
