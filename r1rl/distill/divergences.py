"""The divergence of a student's next-token distribution from its teacher's, token by token, and the weight of
each token.

With p = softmax(z_teacher / tau), q = softmax(z_student / tau), for one place in one completion:

    forward_kl    KL(p || q) = sum_v p_v (log p_v - log q_v)
    reverse_kl    KL(q || p) = sum_v q_v (log q_v - log p_v)
    jsd           beta KL(p || m) + (1 - beta) KL(q || m),    m = beta p + (1 - beta) q,    0 < beta < 1

(Agarwal et al. 2024, "On-policy distillation of language models", arXiv 2306.13649, section 2 and equation 1,
with its P the teacher and its Q the student). The limits are jsd / beta -> forward_kl for beta -> 0 and jsd /
(1 - beta) -> reverse_kl for beta -> 1: the jsd itself vanishes at both ends, and its gradient with it. No
factor tau^2 is put before it (Hinton et al. 2015 do, GKD and TRL do not).

Two models of one tokenizer may differ in the width of their logits, because vocabularies are padded to round
numbers. They are compared on the first V ids, which both have: each distribution is conditioned on these ids,
p_v / sum_{u < V} p_u. What a model says of an id beyond them takes no part and gets no gradient.

Legend: N completion tokens, V ids that both models have, W_s and W_t the widths of their logits (each at
least V), B sequences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from r1rl.distill.recipe import DivergenceConfig


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two distributions of N tokens over the ids that both models have, as float32 (or float64)
    log-probabilities [N, V].
    """

    teacher_NV: Tensor
    student_NV: Tensor


def compare(student_logits: Tensor, teacher_logits: Tensor, temperature: float, shared: int) -> Comparison:
    """Return the distributions of logits [N, W_s] and [N, W_t] over the first `shared` ids. Neither input is
    changed.
    """

    def logprobs(logits: Tensor) -> Tensor:
        narrow = logits[:, :shared]
        wide = narrow if narrow.dtype is torch.float64 else narrow.float()
        return (wide / temperature if temperature != 1.0 else wide).log_softmax(-1)

    return Comparison(logprobs(teacher_logits), logprobs(student_logits))


def divergence(pair: Comparison, config: DivergenceConfig) -> Tensor:
    """Return the recipe's divergence in nats [N]; never negative but for rounding. The gradient flows to both
    inputs that ask for it.
    """
    if config.kind == "forward_kl":
        return kl(pair.teacher_NV, pair.student_NV)
    if config.kind == "reverse_kl":
        return kl(pair.student_NV, pair.teacher_NV)
    if config.beta is None:
        raise ValueError("jsd needs beta")
    return generalised_jsd(pair, config.beta)


def kl(logprobs_NV: Tensor, others_NV: Tensor) -> Tensor:
    """Return KL(first || second) [N]."""
    return (logprobs_NV.exp() * (logprobs_NV - others_NV)).sum(-1)


def generalised_jsd(pair: Comparison, beta: float) -> Tensor:
    """Return the generalised Jensen-Shannon divergence [N], at most the entropy of (beta, 1 - beta), ln 2 for
    beta = 1/2.
    """
    mixture_NV = torch.logaddexp(pair.teacher_NV + math.log(beta), pair.student_NV + math.log1p(-beta))
    return beta * kl(pair.teacher_NV, mixture_NV) + (1.0 - beta) * kl(pair.student_NV, mixture_NV)


STATISTICS = ("forward_kl", "reverse_kl", "jsd", "student_entropy", "teacher_entropy", "agreement")
"""The figures that `statistics` measures of each token, in its order. jsd is the symmetric one (beta 1/2)
whatever the recipe trains.
"""


@torch.no_grad()
def statistics(pair: Comparison) -> Tensor:
    """Return figures of N tokens [N, len(STATISTICS)] for the metrics: nats, and 1 where both models have the
    same likeliest token.
    """
    teacher_NV, student_NV = pair.teacher_NV.detach(), pair.student_NV.detach()
    values = (
        kl(teacher_NV, student_NV),
        kl(student_NV, teacher_NV),
        generalised_jsd(Comparison(teacher_NV, student_NV), 0.5),
        entropy(student_NV),
        entropy(teacher_NV),
        (teacher_NV.argmax(-1) == student_NV.argmax(-1)).to(teacher_NV.dtype),
    )
    return torch.stack(values, dim=-1)


def entropy(logprobs_NV: Tensor) -> Tensor:
    """Return the entropy in nats [N]."""
    return -(logprobs_NV.exp() * logprobs_NV).sum(-1)


def sequence_weights(
    lengths_B: Tensor, total_tokens: int, total_sequences: int, config: DivergenceConfig
) -> Tensor:
    """Return the weight of each token of a sequence in the loss, float64 [B]; over all sequences of a step,
    tokens times weights add up to 1.

    tokens:     1 / `total_tokens`                          (TRL)
    sequences:  1 / (`total_sequences` * its own length)    (arXiv 2306.13649, equation 2)

    The totals are those of all processes, so the gradient depends neither on micro-batches nor on the number
    of processes.
    """
    if config.aggregation == "tokens":
        return torch.full(lengths_B.shape, 1.0 / total_tokens, dtype=torch.float64)
    return 1.0 / (total_sequences * lengths_B.double())
