"""Which of the faster ways to run a decode step an engine takes: those that a trial shows to do what the plain step does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r1rl.rollout.allocation import Allocator
from r1rl.rollout.attention import ATTENTION_NAME
from r1rl.rollout.compiled import Backend, CompiledLayers
from r1rl.rollout.forward import prefill
from r1rl.rollout.graphs import Capture, CudaCapture, RunAgain, describe
from r1rl.rollout.rows import Row
from r1rl.rollout.sampler import stream_key
from r1rl.rollout.weights import RolloutWeights
from r1rl.sampling import Sampling

LENGTH = 12
GENERATIONS = 3


@dataclass(frozen=True, slots=True)
class StepMethod:
    """How decode steps are run: captured and replayed, with compiled layers, both or neither."""

    capture: Capture | None = None
    compiled: CompiledLayers | None = None
    findings: str = ""
    """What the trials found, as clauses that follow an engine's reason."""


def choose_method(weights: RolloutWeights, capture: Capture | None, backend: Backend | None) -> StepMethod:
    """Tries captured steps on a GPU or if `capture` says how, with compiled layers if there is a `backend` for them."""
    if capture is None and weights.device.type != "cuda":
        return StepMethod(findings="" if backend is None else "; its decoder layers are not compiled: that is for captured steps, on a GPU")
    findings, compiled = "", None
    if backend is not None:
        compiled, fault = try_layers(weights, backend)
        findings += f"; its decoder layers are not compiled: {fault}" if fault else "; its decoder layers are compiled"
    capture, fault = try_capture(weights, capture, compiled)
    if fault:
        return StepMethod(findings=f"{findings}; its decode steps are not captured: {fault}")
    return StepMethod(capture, compiled, f"{findings}; its decode steps are captured and replayed")


def try_layers(weights: RolloutWeights, backend: Backend) -> tuple[CompiledLayers | None, str | None]:
    """Compiled layers, or what is wrong with them. Whatever a compiler raises says that it can't compile this model."""
    try:
        compiled = CompiledLayers(weights.model, backend)
        fault = find_fault(weights, StepMethod(RunAgain(), compiled), StepMethod(RunAgain()))
    except Exception as error:
        return None, describe(error)
    return (None, fault) if fault else (compiled, None)


def try_capture(weights: RolloutWeights, given: Capture | None, compiled: CompiledLayers | None) -> tuple[Capture | None, str | None]:
    """The capture to use, or what is wrong with it. Whatever is raised says that this model's steps can't be captured."""
    try:
        trial = given or CudaCapture(weights.device, forbid_waiting=True)
        fault = find_fault(weights, StepMethod(trial, compiled), StepMethod(RunAgain(), compiled))
        # The trial's capture looks for waiting while a step warms up; what passed need not be looked at again.
        return (None, fault) if fault else (given or CudaCapture(weights.device), None)
    except Exception as error:
        return None, describe(error)


def find_fault(weights: RolloutWeights, method: StepMethod, plainer: StepMethod) -> str | None:
    """Samples a few completions in one way and the other: None if they agree, else what is wrong, as a clause.

    Rounding may differ, so a token may flip now and then; but the log-probabilities must agree as far as the tokens do (to
    1e-3, in lower precision to 0.25), and at least half of the tokens must.
    """
    found_RS, found_logprobs_RS = sample_trial(weights, method)
    if method.capture is not None and method.capture.fault is not None:
        return method.capture.fault
    expected_RS, expected_logprobs_RS = sample_trial(weights, plainer)
    same_RS = (found_RS == expected_RS).cumprod(1).bool()
    if same_RS.float().mean() < 0.5:
        return "they draw other tokens than plain ones"
    tolerance = 1e-3 if weights.dtype is torch.float32 and torch.get_float32_matmul_precision() == "highest" else 0.25
    difference = (found_logprobs_RS - expected_logprobs_RS)[same_RS].abs().max().item()
    if not difference <= tolerance:
        return f"they give log-probabilities that differ by {difference:.2g} from those of plain ones"
    return None


def sample_trial(weights: RolloutWeights, method: StepMethod) -> tuple[Tensor, Tensor]:
    """Tokens and log-probabilities [R, LENGTH] of completions of two short prompts."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(weights.input_vocabulary, (length,), generator=generator).tolist() for length in (5, 8)]
    rows = [Row(place, generation, len(prompts[place]), place) for place in range(2) for generation in range(GENERATIONS)]
    keys = [stream_key(row.prompt, row.generation) for row in rows]
    sampling = Sampling(LENGTH)
    may_end_V = torch.zeros(weights.output_vocabulary, dtype=torch.bool, device=weights.device)
    allocator = Allocator(weights.device, 0, method.capture, method.compiled)
    with weights.borrowed(ATTENTION_NAME) as model:
        prefilled = prefill(model, prompts)
        space = allocator.make_space(len(rows), len(prompts[1]) + LENGTH, sampling, may_end_V)
        space.start(0, rows, prefilled, keys, [prompts[row.place] for row in rows], sampling)
        for step in range(1, LENGTH):
            space.step(model, sampling, len(rows), len(prompts[1]) + step)
        tokens, logprobs = space.tensors.fetch_all(range(len(rows)), LENGTH)
    return torch.tensor(tokens), torch.tensor(logprobs)
