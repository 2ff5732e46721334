"""The protocol of a rollout engine, and the making of the one that a recipe names.

`r1rl.config.engines` has the table of the built-in engines and their properties. An engine of one's own is a
class in a file or module of the user's, which a recipe names by path (`rollout.engine:
my_engine.py:MyEngine`):

    class MyEngine:
        name = "mine"
        reason = "the recipe asks for it"
        properties = EngineProperties()
        def __init__(self, setup: EngineSetup) -> None: ...
        def generate(self, prompts, num_generations, sampling, seeds, *, refresh=True): ...
        def refresh(self) -> None: ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.compute.distributed import is_sharded
from r1rl.compute.trials import Trial
from r1rl.config.engines import EngineProperties, FoundEngine, find_engine
from r1rl.config.schema import RolloutConfig, VLLMConfig
from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.compiled import choose_backend
from r1rl.rollout.native.engine import NativeEngine
from r1rl.rollout.native.trial import UnsupportedModel
from r1rl.rollout.reference import ReferenceEngine
from r1rl.types import CompletionGroup

ASKED_FOR = "the recipe asks for it"


class RolloutEngine(Protocol):
    """Samples groups of completions from the policy as it is now."""

    name: str
    reason: str
    """The reason why this engine was chosen, as a sentence."""
    properties: EngineProperties
    trials: list[Trial]
    """The trials of its faster ways, accepted or refused; `make_engine` gives an engine without any an empty
    list.
    """

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        refresh: bool = True,
    ) -> Iterator[CompletionGroup]:
        """Yield the group of each prompt (token ids) as soon as its `num_generations` completions are
        finished.

        Completion g of prompt p draws from a random stream that depends on (seeds[p], g) alone. The policy
        must not be updated until the iterator is exhausted or closed, unless the engine has a copy of its own
        (`EngineSetup.own_copy`) and `refresh` is false: then it samples from the weights that it took over
        last. Raises UserError for an empty prompt or a token id that the model doesn't have.
        """
        ...

    def refresh(self) -> None:
        """Take over the policy's weights where the engine has a copy of its own. `generate` does it by
        itself.
        """
        ...


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """The model that an engine samples from, and the settings that it is made with."""

    model: PreTrainedModel
    """The policy itself, before it is sharded."""
    tokenizer: PreTrainedTokenizerBase
    max_rows: int = 0
    """The most rows that decode at once; 0: as many as fit."""
    dtype: torch.dtype | None = None
    """The precision of the rollout; None: bfloat16 for a float32 policy on a GPU, else the policy's own."""
    own_copy: bool = False
    """The policy will be sharded, or change while it is sampled from, so an engine that shares its weights
    keeps a whole copy.
    """
    compile_layers: bool | None = None
    """Compile the decoder layers of decode steps in the native engine; None: on a GPU."""
    accelerator: Accelerator | None = None
    """The processes of a training run; None elsewhere."""
    vllm: VLLMConfig | None = None
    """The settings of the engine vllm; None elsewhere."""

    @classmethod
    def of_run(
        cls,
        rollout: RolloutConfig,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        dtype: torch.dtype,
        in_background: bool = False,
    ) -> EngineSetup:
        """Return the setup of the engine of a training run, as the recipe's section says. `in_background`:
        it samples while the policy is updated.
        """
        return cls(
            model,
            tokenizer,
            rollout.max_rows,
            dtype,
            own_copy=is_sharded(accelerator) or in_background,
            compile_layers=rollout.compile_layers,
            accelerator=accelerator,
            vllm=rollout.vllm,
        )


def make_engine(engine: str | FoundEngine, setup: EngineSetup) -> RolloutEngine:
    """Return the engine of this name, made for this policy. It reads the policy, so it must be made before
    the policy is sharded.

    Raises UserError if there is no such engine, if it can't run the model, or if it does not start.
    """
    found = find_engine(engine, Path.cwd()) if isinstance(engine, str) else engine
    if not found.properties.shares_weights:
        setup = replace(setup, own_copy=False)
    made: RolloutEngine = found.make(setup)
    missing = [name for name in ("name", "reason", "properties") if not hasattr(made, name)]
    if missing:
        raise UserError(f"rollout.engine: {found.place} has no attribute {' and no '.join(missing)}.")
    if not hasattr(made, "trials"):  # an engine of the user's own need not try anything
        made.trials = []
    if not hasattr(made, "trials"):
        made.trials = []
    return made


def make_fitting(setup: EngineSetup) -> RolloutEngine:
    """Return the native engine where its self-check passes, the reference engine elsewhere."""
    try:
        return _native(setup, "its logits agree with the model's own forward")
    except UnsupportedModel as error:
        engine = _reference(setup, f"the native engine can't run {type(setup.model).__name__}: {error}")
        engine.trials.append(error.trial)
        return engine


def make_native(setup: EngineSetup) -> RolloutEngine:
    """Return the native engine. Raises UserError if its logits are not those of the model's own forward."""
    try:
        return _native(setup, ASKED_FOR)
    except UnsupportedModel as error:
        raise UserError(
            f"rollout.engine: the native engine can't run {type(setup.model).__name__}: {error}. Use engine: "
            f"transformers."
        ) from error


def make_reference(setup: EngineSetup) -> RolloutEngine:
    """Return the reference engine, which is transformers' `generate`."""
    return _reference(setup, ASKED_FOR)


def _native(setup: EngineSetup, reason: str) -> NativeEngine:
    compiler = choose_backend(setup.compile_layers, next(setup.model.parameters()).device)
    return NativeEngine(
        setup.model,
        setup.tokenizer,
        setup.max_rows,
        setup.dtype,
        reason,
        own_copy=setup.own_copy,
        compiler=compiler,
    )


def _reference(setup: EngineSetup, reason: str) -> ReferenceEngine:
    return ReferenceEngine(setup.model, setup.tokenizer, setup.max_rows, setup.dtype, reason, setup.own_copy)
