"""The GRPO objective, flat and slow, in float64: loops over sequences and tokens, written from the papers'
equations.

It shares no code with r1rl and knows none of its tricks. The tests compare r1rl's values and gradients with
it. Papers: DeepSeekMath 2402.03300 (GRPO, online RFT), Dr. GRPO 2503.20783, DAPO 2503.14476, GSPO 2507.18071,
MiniMax-M1 2506.13585 (CISPO), INTELLECT-2 2505.07291 (two-sided clip), RLOO 2402.14740, REINFORCE++
2501.03262, DeepSeek-V3.2 2512.02556 (KL correction).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass
class Sequence:
    """One completion: logits[t], a float64 row [V] with gradient, are the policy's logits before
    tokens[t].
    """

    logits: torch.Tensor
    tokens: list[int]
    advantage: float
    truncated: bool = False
    old: list[float] | None = None
    sampler: list[float] | None = None
    reference: list[float] | None = None


@dataclass
class Options:
    """The choices of the objective."""

    surrogate: str = "clip"
    aggregation: str = "dapo"
    importance_level: str = "token"
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    delta: float | None = None
    beta: float = 0.0
    kl_estimator: str = "k3"
    kl_bias_correction: bool = False
    entropy_coefficient: float = 0.0
    importance_cap: float | None = 2.0
    mask_truncated: bool = False
    temperature: float = 1.0
    max_completion_length: int = 16


# ------------------------------------------------------------
# advantages


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def deviation(values: list[float], correction: int) -> float:
    center = mean(values)
    return math.sqrt(sum((value - center) ** 2 for value in values) / (len(values) - correction))


def advantages(
    rewards: list[list[float]], baseline: str, scale: str, correction: int, epsilon: float, tolerance: float
) -> list[list[float]]:
    """Return the advantages of rewards by group (NaN: none)."""
    table = []
    for group in rewards:
        known = [r for r in group if not math.isnan(r)]
        flat = len(known) < 2 or max(known) - min(known) <= tolerance
        row = []
        for place, reward in enumerate(group):
            if math.isnan(reward):
                row.append(0.0)
            elif baseline == "none":
                row.append(reward)
            elif flat:
                row.append(0.0)
            elif baseline == "leave_one_out":
                others = [r for other, r in enumerate(group) if other != place and not math.isnan(r)]
                row.append(reward - mean(others))
            else:
                row.append(reward - mean(known))
        if scale == "group":
            row = [0.0 if flat else value / (deviation(known, correction) + epsilon) for value in row]
        table.append(row)
    if scale == "batch":
        places = [
            (p, g)
            for p, group in enumerate(rewards)
            for g, reward in enumerate(group)
            if not math.isnan(reward)
        ]
        whitening = baseline == "reinforce_plus_plus"
        values = [table[p][g] if whitening else rewards[p][g] for p, g in places]
        if len(values) < 2 or max(values) - min(values) <= tolerance:
            return [[0.0 for _ in group] for group in rewards]
        shift = mean(values) if whitening else 0.0
        for p, g in places:
            table[p][g] = (table[p][g] - shift) / (deviation(values, correction) + epsilon)
    return table


# ------------------------------------------------------------
# loss


def token_logprobs(sequence: Sequence, options: Options) -> list[torch.Tensor]:
    return [
        torch.log_softmax(row / options.temperature, -1)[token]
        for row, token in zip(sequence.logits, sequence.tokens, strict=True)
    ]


def token_entropies(sequence: Sequence, options: Options) -> list[torch.Tensor]:
    entropies = []
    for row in sequence.logits:
        logprobs = torch.log_softmax(row / options.temperature, -1)
        entropies.append(-sum(torch.exp(logprob) * logprob for logprob in logprobs))
    return entropies


def kl(logprob: torch.Tensor, reference: float, estimator: str) -> torch.Tensor:
    if estimator == "k1":
        return logprob - reference
    if estimator == "k2":
        return (logprob - reference) ** 2 / 2
    return torch.exp(reference - logprob) - (reference - logprob) - 1


def clip(ratio: torch.Tensor, lowest: float, highest: float) -> torch.Tensor:
    return torch.minimum(torch.maximum(ratio, ratio.new_tensor(lowest)), ratio.new_tensor(highest))


def token_losses(sequence: Sequence, options: Options) -> list[torch.Tensor]:
    """Return l_t of one sequence."""
    logprobs = token_logprobs(sequence, options)
    entropies = (
        token_entropies(sequence, options) if options.entropy_coefficient != 0 else [0.0] * len(logprobs)
    )
    old = [value.item() for value in logprobs] if sequence.old is None else sequence.old
    log_ratios = [logprob - before for logprob, before in zip(logprobs, old, strict=True)]
    ratios = [torch.exp(value) for value in log_ratios]
    if options.importance_level == "sequence":
        ratios = [torch.exp(sum(log_ratios) / len(log_ratios))] * len(log_ratios)
    losses = []
    for t, (logprob, ratio) in enumerate(zip(logprobs, ratios, strict=True)):
        lowest, highest = 1 - options.epsilon_low, 1 + options.epsilon_high
        if options.surrogate == "clip":
            bounded = ratio
            if options.delta is not None and sequence.advantage < 0 and ratio.item() > options.delta:
                bounded = ratio.new_tensor(options.delta)
            first, second = bounded * sequence.advantage, clip(ratio, lowest, highest) * sequence.advantage
            objective = first if first.item() <= second.item() else second
        elif options.surrogate == "cispo":
            objective = clip(ratio, lowest, highest).item() * sequence.advantage * logprob
        else:
            objective = logprob if sequence.advantage > 0 else 0.0 * logprob
        if sequence.sampler is not None and options.importance_cap is not None:
            objective = min(math.exp(old[t] - sequence.sampler[t]), options.importance_cap) * objective
        loss = -objective
        if options.beta != 0:
            penalty = kl(logprob, sequence.reference[t], options.kl_estimator)
            if options.kl_bias_correction:
                penalty = torch.exp(logprob - old[t]) * penalty
            loss = loss + options.beta * penalty
        losses.append(loss - options.entropy_coefficient * entropies[t])
    return losses


def loss(minibatch: list[Sequence], options: Options, rollout: list[Sequence] | None = None) -> torch.Tensor:
    """Return the loss of one optimizer step on `minibatch`, a part of `rollout` (by default all of it)."""
    rollout = minibatch if rollout is None else rollout

    def is_trained(sequence: Sequence) -> bool:
        return not (options.mask_truncated and sequence.truncated)

    total = torch.zeros((), dtype=torch.float64)
    rollout_tokens = sum(len(sequence.tokens) for sequence in rollout if is_trained(sequence))
    minibatch_tokens = sum(len(sequence.tokens) for sequence in minibatch if is_trained(sequence))
    for sequence in minibatch:
        if not is_trained(sequence):
            continue
        summed = sum(token_losses(sequence, options))
        if options.aggregation == "grpo":
            total = total + summed / len(sequence.tokens) / len(minibatch)
        elif options.aggregation == "dr_grpo":
            total = total + summed / options.max_completion_length / len(minibatch)
        elif options.aggregation == "dapo":
            total = total + summed / (rollout_tokens * len(minibatch) / len(rollout))
        else:
            total = total + summed / minibatch_tokens
    return total
