"""Which of the faster ways to run a decode step an engine takes: those that a trial shows to do what the
plain step does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from r1rl.attention.rollout import ATTENTION_NAME
from r1rl.compute.graphs import Capture, CudaCapture, RunAgain, describe
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.allocation import Allocator
from r1rl.rollout.native.cache import RowCache
from r1rl.rollout.native.compiled import Backend, CompiledStep
from r1rl.rollout.native.forward import decode_step, deviation, is_exact, prefill, start_rows, tolerance
from r1rl.rollout.native.method import StepMethod
from r1rl.rollout.native.rows import Row, RowTensors
from r1rl.rollout.sampler import stream_key
from r1rl.rollout.weights import RolloutWeights

LENGTH = 12
GENERATIONS = 3
TRIAL_SIZES = ((6, 64), (40, 256))
"""Rows, and columns of the cache. They differ in everything that varies between steps: what is compiled for
the second serves all sizes.
"""


def choose_method(
    weights: RolloutWeights, capture: Capture | None, backend: Backend | None
) -> tuple[StepMethod, str]:
    """The method, and what the trials found as clauses that follow an engine's reason.

    Captures steps on a GPU or if `capture` says how, there with compiled layers if there is a `backend` for
    them.
    """
    on_gpu = weights.device.type == "cuda"
    if capture is None and not on_gpu:
        return (
            StepMethod(),
            ""
            if backend is None
            else "; its decoder layers are not compiled: that is for captured steps, on a GPU",
        )
    method, findings = StepMethod(), ""
    if on_gpu:
        method, fault = try_part(weights, method, with_kernel)
        findings += f"; its attention is torch's: {fault}" if fault else ""
        method, fault = try_part(weights, method, with_draw_kernels)
        findings += f"; torch draws its tokens: {fault}" if fault else ""
    if backend is not None:
        method, fault = try_part(
            weights,
            method,
            lambda _, plainer: replace(plainer, compiled=CompiledStep(weights.model, backend)),
        )
        findings += (
            f"; its decoder layers are not compiled: {fault}"
            if fault
            else "; its decoder layers are compiled"
        )
    method, fault = try_capture(weights, method, capture)
    return method, findings + (
        f"; its decode steps are not captured: {fault}"
        if fault
        else "; its decode steps are captured and replayed"
    )


def with_kernel(device: torch.device, method: StepMethod) -> StepMethod:
    """The method with r1rl's attention. Raises where Triton is missing."""
    from r1rl.attention.decode_kernel import RowAttention

    return replace(method, kernel=RowAttention(device))


def with_draw_kernels(device: torch.device, method: StepMethod) -> StepMethod:
    """The method with r1rl's kernels for drawing tokens. Raises where Triton is missing."""
    from r1rl.rollout.native.draw_kernels import make_ops

    return replace(method, ops=make_ops())


def try_part(
    weights: RolloutWeights, plainer: StepMethod, make: Callable[[torch.device, StepMethod], StepMethod]
) -> tuple[StepMethod, str]:
    """What `make` makes of `plainer`, or that and what is wrong. Whatever a compiler raises says that it
    can't compile this model.
    """
    try:
        method = make(weights.device, plainer)
        fault = compare_logits(weights, method, plainer) or compare_draws(weights, method, plainer)
    except Exception as error:
        fault = describe(error)
    return (plainer, fault) if fault else (method, "")


def try_capture(weights: RolloutWeights, method: StepMethod, given: Capture | None) -> tuple[StepMethod, str]:
    """The method with captured steps, or what is wrong with them. Whatever is raised says that this model's
    steps can't be captured.

    Compiled layers are for replays: a method whose steps are not captured goes without.
    """
    uncaptured = replace(method, compiled=None)
    try:
        trial = given or CudaCapture(weights.device, forbid_waiting=True)
        fault = compare_completions(
            weights, replace(method, capture=trial), replace(method, capture=RunAgain())
        )
        # The trial's capture looks for waiting while a step warms up; what passed need not be looked at
        # again.
        return (
            (uncaptured, fault)
            if fault
            else (replace(method, capture=given or CudaCapture(weights.device)), "")
        )
    except Exception as error:
        return uncaptured, describe(error)


def compare_logits(weights: RolloutWeights, method: StepMethod, plainer: StepMethod) -> str:
    """Feeds the same tokens in both ways; says how far their logits differ if it is more than rounding."""
    for rows, columns in TRIAL_SIZES:
        expected_SRV, found_SRV = (step_logits(weights, each, rows, columns) for each in (plainer, method))
        difference = deviation(expected_SRV.flatten(0, 1), found_SRV.flatten(0, 1))
        if not difference <= tolerance(weights.dtype):
            return f"they give logits that differ from those of plain steps by {difference:.2g} standard deviations"
    return ""


def step_logits(weights: RolloutWeights, method: StepMethod, count: int, columns: int) -> Tensor:
    """Logits [steps, R, V] of steps that are fed random tokens, which are the same for every method."""
    prompts, rows, generator = trial_rows(weights)
    rows = (rows * count)[:count]
    fed_SR = torch.randint(weights.input_vocabulary, (LENGTH, len(rows)), generator=generator).to(
        weights.device
    )
    with weights.borrowed(ATTENTION_NAME) as model:
        prefilled = prefill(model, prompts)
        cache = RowCache(len(rows) + 1, columns)
        cache.reserve(columns)
        start_rows(cache, prefilled, [row.place for row in rows])
        positions_R = torch.tensor([row.length for row in rows], device=weights.device)
        logits = []
        for step, fed_R in enumerate(fed_SR):
            width = len(prompts[1]) + step + 1 if method.reads_whole_rows else cache.columns
            logits.append(decode_step(model, cache, fed_R, positions_R, width, method).float())
            positions_R = positions_R + 1
        return torch.stack(logits)


def compare_draws(weights: RolloutWeights, method: StepMethod, plainer: StepMethod) -> str:
    """Draws from the same logits in both ways: most tokens, and their log-probabilities, must agree."""
    _, rows, generator = trial_rows(weights)
    logits_RV = torch.randn(len(rows), weights.output_vocabulary, generator=generator).to(
        weights.device, weights.dtype
    )
    may_end_V = torch.zeros(weights.output_vocabulary, dtype=torch.bool, device=weights.device)
    for sampling in (Sampling(LENGTH), Sampling(LENGTH, temperature=0.9, top_k=50, top_p=0.9, min_p=0.001)):
        drawn = []
        for each in (plainer, method):
            tensors = RowTensors(len(rows), LENGTH, may_end_V, keep_seen=False)
            tensors.start(
                0, rows, [stream_key(row.prompt, row.generation) for row in rows], [[0]] * len(rows)
            )
            with torch.inference_mode():
                for _ in range(LENGTH):
                    each.draw(tensors, slice(0, len(rows)), logits_RV, sampling)
            drawn.append((tensors.tokens_RS[:, :LENGTH], tensors.logprobs_RS[:, :LENGTH]))
        if fault := disagreement(*drawn[0], *drawn[1], 1e-3):
            return fault
    return ""


def compare_completions(weights: RolloutWeights, method: StepMethod, plainer: StepMethod) -> str:
    """Samples a few completions in one way and the other: says what is wrong if they do not agree, or if
    steps can't be captured.
    """
    expected = sample_trial(
        weights, plainer
    )  # first: what is compiled on the way waits for the device, which a capture must not
    found = sample_trial(weights, method)
    if method.capture is not None and method.capture.fault is not None:
        return method.capture.fault
    return disagreement(*expected, *found, 1e-3 if is_exact(weights.dtype) else 0.25)


def disagreement(
    expected_RS: Tensor,
    expected_logprobs_RS: Tensor,
    found_RS: Tensor,
    found_logprobs_RS: Tensor,
    tolerance: float,
) -> str:
    """Rounding may differ, so a token may flip now and then; but at least half of them must be the same, and
    log-probabilities must agree within the tolerance as far as the tokens do.
    """
    same_RS = (found_RS == expected_RS).cumprod(1).bool()
    if same_RS.float().mean() < 0.5:
        return "they draw other tokens than plain ones"
    difference = (found_logprobs_RS - expected_logprobs_RS)[same_RS].abs().max().item()
    return (
        ""
        if difference <= tolerance
        else f"they give log-probabilities that differ by {difference:.2g} from those of plain ones"
    )


def trial_rows(weights: RolloutWeights) -> tuple[list[list[int]], list[Row], torch.Generator]:
    """Two short prompts, rows of both, and the generator that goes on from them."""
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(weights.input_vocabulary, (length,), generator=generator).tolist() for length in (5, 8)
    ]
    places = [(place, generation) for place in range(len(prompts)) for generation in range(GENERATIONS)]
    return (
        prompts,
        [Row(place, generation, len(prompts[place]), LENGTH, place) for place, generation in places],
        generator,
    )


def sample_trial(weights: RolloutWeights, method: StepMethod) -> tuple[Tensor, Tensor]:
    """Tokens and log-probabilities [R, LENGTH] of completions of two short prompts."""
    prompts, rows, _ = trial_rows(weights)
    keys = [stream_key(row.prompt, row.generation) for row in rows]
    sampling = Sampling(LENGTH)
    may_end_V = torch.zeros(weights.output_vocabulary, dtype=torch.bool, device=weights.device)
    allocator = Allocator(weights.device, 0, method)
    with weights.borrowed(ATTENTION_NAME) as model:
        prefilled = prefill(model, prompts)
        space = allocator.make_space(len(rows), len(prompts[1]) + LENGTH, sampling, may_end_V)
        space.start(0, rows, prefilled, keys, [prompts[row.place] for row in rows], sampling)
        for step in range(1, LENGTH):
            space.step(model, sampling, len(rows), len(prompts[1]) + step)
        tokens, logprobs = space.tensors.fetch_all(range(len(rows)), LENGTH)
    return torch.tensor(tokens), torch.tensor(logprobs)
