"""What a rollout engine is, and the choice of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.compute.trials import Trial
from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.compiled import choose_backend
from r1rl.rollout.native.engine import NativeEngine
from r1rl.rollout.native.trial import UnsupportedModel
from r1rl.rollout.reference import ReferenceEngine
from r1rl.types import CompletionGroup


class RolloutEngine(Protocol):
    """Samples groups of completions from the policy as it is now."""

    name: str
    reason: str
    """Why this engine was chosen, as a sentence."""
    trials: list[Trial]
    """The trials of its faster ways, accepted or refused."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        refresh: bool = True,
    ) -> Iterator[CompletionGroup]:
        """Yields the group of each prompt (token ids) as soon as its `num_generations` completions are
        finished.

        Completion g of prompt p draws from a random stream that depends on (seeds[p], g) alone. The policy
        must not be updated until the iterator is exhausted or closed, unless the engine has a copy of its own
        (`own_copy` of `build_engine`) and `refresh` is false: then it samples from the weights that it took
        over last. Raises UserError for an empty prompt or a token id that the model doesn't have.
        """
        ...

    def refresh(self) -> None:
        """Takes over the policy's weights where the engine has a copy of its own. `generate` does it by
        itself.
        """
        ...


def build_engine(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_rows: int = 0,
    dtype: torch.dtype | None = None,
    own_copy: bool = False,
    compile_layers: bool | None = None,
) -> RolloutEngine:
    """The engine of this name for this policy; "auto" takes the native one where its self-check passes.

    `max_rows` limits how many rows decode at once (0: as many as fit). `dtype` is what the rollout computes
    in (None: bfloat16 for a float32 policy on a GPU, the policy's own precision otherwise). `own_copy`: the
    policy will be sharded, or change while it is sampled from, so the engine keeps a whole copy.
    `compile_layers`: in the native engine's decode steps; None: on a GPU. Raises UserError if the native
    engine is asked for by name and does not give the logits of the model's own forward.
    """
    if name == "transformers":
        return ReferenceEngine(model, tokenizer, max_rows, dtype, "the recipe asks for it", own_copy)
    if name not in ("auto", "native"):
        raise UserError(
            f"rollout.engine: {name!r} is unknown; choose auto, native or transformers; r1rl grpo also "
            f"knows vllm."
        )
    try:
        reason = (
            "the recipe asks for it" if name == "native" else "its logits agree with the model's own forward"
        )
        compiler = choose_backend(compile_layers, next(model.parameters()).device)
        return NativeEngine(model, tokenizer, max_rows, dtype, reason, own_copy=own_copy, compiler=compiler)
    except UnsupportedModel as error:
        reason = f"the native engine can't run {type(model).__name__}: {error}"
        if name == "native":
            raise UserError(f"rollout.engine: {reason}. Use engine: transformers.") from error
        engine = ReferenceEngine(model, tokenizer, max_rows, dtype, reason, own_copy)
        engine.trials.append(error.trial)
        return engine
