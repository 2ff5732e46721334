"""The distillation loss, flat and slow, in float64: loops over sequences, tokens and vocabulary, written from
arXiv 2306.13649.

It shares no code with r1rl and knows none of its tricks. P is the teacher, Q the student, as in the paper.
"""

from __future__ import annotations

import torch


def distribution(logits: torch.Tensor, temperature: float, shared: int) -> list[torch.Tensor]:
    """Return softmax(logits / temperature) conditioned on the first `shared` ids: exponentials over their
    sum.
    """
    largest = max(logits[:shared].tolist())
    weights = [torch.exp((logits[v] - largest) / temperature) for v in range(shared)]
    total = sum(weights)
    return [weight / total for weight in weights]


def kl(p: list[torch.Tensor], q: list[torch.Tensor]) -> torch.Tensor:
    """Return D_KL(P || Q) = sum_c P(c) log(P(c) / Q(c)) (section 2)."""
    return sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))


def jsd(p: list[torch.Tensor], q: list[torch.Tensor], beta: float) -> torch.Tensor:
    """Return the generalised Jensen-Shannon divergence (equation 1).

    D_JSD(beta)(P || Q) = beta D_KL(P || M) + (1 - beta) D_KL(Q || M),  M = beta P + (1 - beta) Q
    """
    mixture = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    return beta * kl(p, mixture) + (1 - beta) * kl(q, mixture)


def token_divergence(
    student: torch.Tensor,
    teacher: torch.Tensor,
    kind: str,
    beta: float | None,
    temperature: float,
    shared: int,
) -> torch.Tensor:
    p, q = distribution(teacher, temperature, shared), distribution(student, temperature, shared)
    if kind == "forward_kl":
        return kl(p, q)
    if kind == "reverse_kl":
        return kl(q, p)
    assert beta is not None
    return jsd(p, q, beta)


def loss(
    students: list[torch.Tensor],
    teachers: list[torch.Tensor],
    kind: str,
    beta: float | None = None,
    temperature: float = 1.0,
    aggregation: str = "tokens",
    shared: int | None = None,
) -> torch.Tensor:
    """Return the loss of whole completions.

    `students[b]` and `teachers[b]` are the logits [T_b, V] before each token of completion b.
    """
    shared = shared or students[0].shape[-1]
    by_sequence = [
        [
            token_divergence(student, teacher, kind, beta, temperature, shared)
            for student, teacher in zip(*pair, strict=True)
        ]
        for pair in zip(students, teachers, strict=True)
    ]
    if aggregation == "tokens":
        flat = [value for values in by_sequence for value in values]
        return sum(flat) / len(flat)
    # Equation 2: the mean over a completion's tokens, and then over completions.
    return sum(sum(values) / len(values) for values in by_sequence) / len(by_sequence)
