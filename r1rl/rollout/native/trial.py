"""Trials of the native engine: its forward, and the faster ways to run a decode step.

The same tokens are fed to the model's own forward and, by prefill and decode steps, in each of the faster
ways (`r1rl.rollout.native.trial_logits`), which are judged by the criterion of `r1rl.compute.trials`. Tokens
that are drawn, and captured steps, are compared with plain ones.

Legend: R rows, S steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.attention.rollout import ATTENTION_NAME, register_attention
from r1rl.compute.graphs import Capture, CudaCapture, RunAgain
from r1rl.compute.trials import (
    Comparison,
    DifferentResult,
    Part,
    Trial,
    compare_draws,
    is_exact,
    run_trial,
)
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.allocation import Allocator
from r1rl.rollout.native.compiled import Backend, CompiledStep
from r1rl.rollout.native.forward import PLAIN, prefill
from r1rl.rollout.native.fused import fuse_linears
from r1rl.rollout.native.method import StepMethod
from r1rl.rollout.native.rows import RowTensors
from r1rl.rollout.native.split import separate_linears, split_linears
from r1rl.rollout.native.trial_logits import STEPS, LogitTrial, trial_rows
from r1rl.rollout.sampler import stream_key
from r1rl.rollout.weights import RolloutWeights

ENGINE = Part("native engine", "The native engine is not used", "a rollout takes several times as long")
JOINED = Part("joined and split projections", "The rollout's projections are not joined")
ATTENTION = Part(
    "decode attention kernel", "The rollout's attention is torch's", "a rollout takes about 1.2 times as long"
)
DRAWS = Part("kernels for draws", "torch draws the tokens", "a rollout takes about 1.1 times as long")
COMPILED = Part(
    "compiled decoder layers",
    "The rollout's decoder layers are not compiled",
    "a rollout takes about 1.5 times as long",
)
CAPTURED = Part(
    "captured decode steps", "Decode steps are not captured", "a rollout takes about 4 times as long"
)


TAKEN = {
    COMPILED.name: "its decoder layers are compiled",
    CAPTURED.name: "its decode steps are captured and replayed",
}
"""Clauses of an engine's reason, for the parts that change how it runs altogether."""


class UnsupportedModel(Exception):
    """A model that the native engine can't run; the message completes "can't run it: ..."."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial.reason)
        self.trial = trial


def check_model(
    weights: RolloutWeights, tokenizer: PreTrainedTokenizerBase | None, thorough: bool
) -> tuple[LogitTrial, Trial]:
    """Compare prefill and plain decode steps with the model's own forward; return that, for later trials.

    Raises UnsupportedModel if the model doesn't run like this, or the trial refuses its logits.
    """
    made: list[LogitTrial] = []

    def judge() -> list[Comparison]:
        if not getattr(weights.model, "_supports_attention_backend", False):
            raise DifferentResult("transformers doesn't let its attention be replaced")
        register_attention()
        made.append(LogitTrial(weights, tokenizer, thorough))
        return made[0].compare(PLAIN)

    trial = run_trial(ENGINE, judge)
    if not trial.accepted:
        raise UnsupportedModel(trial)
    return made[0], trial


def join_projections(logits: LogitTrial, policy: PreTrainedModel, split: bool) -> Trial:
    """Join the engine's own linear layers, and split narrow ones if `split`; undo it if the trial refuses."""
    weights = logits.weights

    def judge() -> list[Comparison]:
        with weights.borrowed() as own:
            fuse_linears(own, policy)
        if split:
            split_linears(weights.model)
        return logits.compare(PLAIN)

    trial = run_trial(JOINED, judge)
    if not trial.accepted:
        separate_linears(weights.model)
    return trial


def choose_method(
    logits: LogitTrial, capture: Capture | None, backend: Backend | None
) -> tuple[StepMethod, list[Trial]]:
    """Return the method that the trials leave, and their records.

    Steps are captured on a GPU or if `capture` says how, there with compiled layers if there is a `backend`
    for them.
    """
    weights = logits.weights
    on_gpu = weights.device.type == "cuda"
    if capture is None and not on_gpu:
        skipped = COMPILED.skipped("that is for captured steps, on a GPU")
        return StepMethod(), [] if backend is None else [skipped]
    method, trials = StepMethod(), []
    parts: list[tuple[Part, Callable[[torch.device, StepMethod], StepMethod]]] = []
    if on_gpu:
        parts += [(ATTENTION, with_kernel), (DRAWS, with_draw_kernels)]
    if backend is not None:
        parts.append(
            (COMPILED, lambda _, plainer: replace(plainer, compiled=CompiledStep(weights.model, backend)))
        )
    for part, make in parts:
        method, trial = try_part(logits, part, method, make)
        trials.append(trial)
    method, trial = try_capture(weights, method, capture)
    return method, [*trials, trial]


def with_kernel(device: torch.device, method: StepMethod) -> StepMethod:
    """Return the method with r1rl's attention. Raises where Triton is missing."""
    from r1rl.attention.decode_kernel import RowAttention

    return replace(method, kernel=RowAttention(device))


def with_draw_kernels(device: torch.device, method: StepMethod) -> StepMethod:
    """Return the method with r1rl's kernels for drawing tokens. Raises where Triton is missing."""
    from r1rl.rollout.native.draw_kernels import make_ops

    return replace(method, ops=make_ops())


def try_part(
    logits: LogitTrial,
    part: Part,
    plainer: StepMethod,
    make: Callable[[torch.device, StepMethod], StepMethod],
) -> tuple[StepMethod, Trial]:
    """Return what `make` makes of `plainer`, or that if the trial refuses the part, and the record."""
    made: list[StepMethod] = []

    def judge() -> list[Comparison]:
        made.append(make(logits.weights.device, plainer))
        comparisons = logits.compare(made[0])
        judge_draws(logits.weights, made[0])
        return comparisons

    trial = run_trial(part, judge)
    return (made[0] if trial.accepted else plainer), trial


def try_capture(
    weights: RolloutWeights, method: StepMethod, given: Capture | None
) -> tuple[StepMethod, Trial]:
    """Return the method with captured steps, or without if the trial refuses them, and the record.

    Compiled layers are for replays: a method whose steps are not captured goes without.
    """

    # The trial's capture looks for waiting while a step warms up; what passed need not be looked at again.
    def judge() -> list[Comparison]:
        trial = given or CudaCapture(weights.device, forbid_waiting=True)
        judge_completions(weights, replace(method, capture=trial), replace(method, capture=RunAgain()))
        return []

    trial = run_trial(CAPTURED, judge)
    if not trial.accepted:
        return replace(method, compiled=None), trial
    return replace(method, capture=given or CudaCapture(weights.device)), trial


def judge_draws(weights: RolloutWeights, method: StepMethod) -> None:
    """Draw from the same logits by this method and by torch; raise DifferentResult if these don't agree."""
    _, rows, generator = trial_rows(weights)
    logits_RV = torch.randn(len(rows), weights.output_vocabulary, generator=generator).to(
        weights.device, weights.dtype
    )
    may_end_V = torch.zeros(weights.output_vocabulary, dtype=torch.bool, device=weights.device)
    for sampling in (Sampling(STEPS), Sampling(STEPS, temperature=0.9, top_k=50, top_p=0.9, min_p=0.001)):
        drawn = []
        for each in (method, PLAIN):
            tensors = RowTensors(len(rows), STEPS, may_end_V, keep_seen=False)
            tensors.start(
                0, rows, [stream_key(row.prompt, row.generation) for row in rows], [[0]] * len(rows)
            )
            with torch.inference_mode():
                for _ in range(STEPS):
                    each.draw(tensors, slice(0, len(rows)), logits_RV, sampling)
            drawn.append((tensors.tokens_RS[:, :STEPS], tensors.logprobs_RS[:, :STEPS]))
        compare_draws(drawn[0], drawn[1], 1e-3)


def judge_completions(weights: RolloutWeights, method: StepMethod, plainer: StepMethod) -> None:
    """Sample completions in two ways; raise DifferentResult if they don't agree or steps can't be captured.

    Both run the same operations, so in lower precision a quarter of a nat is more than rounding makes of the
    logprob of a token that both drew.
    """
    # Plain steps first: what is compiled on the way waits for the device, which a capture must not.
    expected = sample_trial(weights, plainer)
    found = sample_trial(weights, method)
    if method.capture is not None and method.capture.fault is not None:
        raise DifferentResult(method.capture.fault)
    compare_draws(found, expected, 1e-3 if is_exact(weights.dtype) else 0.25)


def sample_trial(weights: RolloutWeights, method: StepMethod) -> tuple[Tensor, Tensor]:
    """Return tokens and log-probabilities [R, S] of completions of two short prompts."""
    prompts, rows, _ = trial_rows(weights)
    keys = [stream_key(row.prompt, row.generation) for row in rows]
    sampling = Sampling(STEPS)
    may_end_V = torch.zeros(weights.output_vocabulary, dtype=torch.bool, device=weights.device)
    allocator = Allocator(weights.device, 0, method)
    with weights.borrowed(ATTENTION_NAME) as model:
        prefilled = prefill(model, prompts)
        space = allocator.make_space(len(rows), len(prompts[1]) + STEPS, sampling, may_end_V)
        space.start(0, rows, prefilled, keys, [prompts[row.place] for row in rows], sampling)
        for step in range(1, STEPS):
            space.step(model, sampling, len(rows), len(prompts[1]) + step)
        tokens, logprobs = space.tensors.fetch_all(range(len(rows)), STEPS)
    return torch.tensor(tokens), torch.tensor(logprobs)
