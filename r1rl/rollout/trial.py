"""A trial that captured decode steps do what the same steps do when they are run one by one."""

from __future__ import annotations

import torch

from r1rl.rollout.allocation import Allocator
from r1rl.rollout.attention import ATTENTION_NAME
from r1rl.rollout.forward import prefill
from r1rl.rollout.graphs import Capture, RunAgain
from r1rl.rollout.rows import Row
from r1rl.rollout.sampler import stream_key
from r1rl.rollout.weights import RolloutWeights
from r1rl.sampling import Sampling

LENGTH = 12
GENERATIONS = 3


def find_fault(weights: RolloutWeights, capture: Capture) -> str | None:
    """Samples a few completions with captured steps and without: None if they agree, else what is wrong, as a clause.

    Rounding may differ between two runs on a GPU, so a token may flip now and then; but the log-probabilities must agree as far
    as the tokens do (to 1e-3, in lower precision to 0.1), and at least half of the tokens must.
    """
    found_RS, found_logprobs_RS = sample_trial(weights, capture)
    if capture.fault is not None:
        return capture.fault
    expected_RS, expected_logprobs_RS = sample_trial(weights, RunAgain())
    same_RS = (found_RS == expected_RS).cumprod(1).bool()
    if same_RS.float().mean() < 0.5:
        return "replayed steps draw other tokens than the steps themselves"
    tolerance = 1e-3 if weights.dtype is torch.float32 and torch.get_float32_matmul_precision() == "highest" else 0.1
    difference = (found_logprobs_RS - expected_logprobs_RS)[same_RS].abs().max().item()
    if not difference <= tolerance:
        return f"replayed steps give log-probabilities that differ by {difference:.2g} from those of the steps themselves"
    return None


def sample_trial(weights: RolloutWeights, capture: Capture) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and log-probabilities [R, LENGTH] of completions of two short prompts, with steps that `capture` makes."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(weights.input_vocabulary, (length,), generator=generator).tolist() for length in (5, 8)]
    rows = [Row(place, generation, len(prompts[place]), place) for place in range(2) for generation in range(GENERATIONS)]
    keys = [stream_key(row.prompt, row.generation) for row in rows]
    sampling = Sampling(LENGTH)
    may_end_V = torch.zeros(weights.output_vocabulary, dtype=torch.bool, device=weights.device)
    with weights.borrowed(ATTENTION_NAME) as model:
        prefilled = prefill(model, prompts)
        space = Allocator(weights.device, 0, capture).make_space(len(rows), len(prompts[1]) + LENGTH, sampling, may_end_V)
        space.start(0, rows, prefilled, keys, [prompts[row.place] for row in rows], sampling)
        for step in range(1, LENGTH):
            space.step(model, sampling, len(rows), len(prompts[1]) + step)
        tokens, logprobs = space.tensors.fetch_all(range(len(rows)), LENGTH)
    return torch.tensor(tokens), torch.tensor(logprobs)
