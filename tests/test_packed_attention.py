"""Packed attention: each plan against attention one query at a time, the calls that kernels of several
versions get, and models.

Legend: M packed tokens, Q query heads, H key/value heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from update_helpers import LAYOUTS, assert_same_gradients, build, gradients, random_rollout

from r1rl.attention import rectangles as module
from r1rl.attention.packed import Segment, packed_attention
from r1rl.attention.plans import Scoring
from r1rl.attention.rectangles import RowsPlan
from r1rl.attention.varlen import SumCopies, VarlenPlan
from r1rl.config.schema import UpdateConfig
from r1rl.objective.config import AlgorithmConfig
from r1rl.policy.layout import varlen_kernel

# A prompt of 3 with completions of 5, 1 and 9; a sequence of 7; a prompt of 9 with completions of 2 and 2.
SEGMENTS = [
    Segment(0, 3),
    Segment(3, 5, 0, 3),
    Segment(8, 1, 0, 3),
    Segment(9, 9, 0, 3),
    Segment(18, 7),
    Segment(25, 9),
    Segment(34, 2, 25, 9),
    Segment(36, 2, 25, 9),
]
TOKENS, QUERY_HEADS, KEY_HEADS, SIZE = 38, 4, 2, 8


def states(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return query [1, Q, M, D], key and value [1, H, M, D] in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((1, QUERY_HEADS, TOKENS, SIZE), (1, KEY_HEADS, TOKENS, SIZE), (1, KEY_HEADS, TOKENS, SIZE))
    query, key, value = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes
    )
    return query, key, value


def one_by_one(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, softcap: float | None
) -> Tensor:
    """Return attention [1, M, Q, D]: each query with the keys that it sees, written out."""
    outputs = torch.zeros(1, TOKENS, QUERY_HEADS, SIZE, dtype=query.dtype)
    rows = []
    for segment in SEGMENTS:
        prefix = list(range(segment.prefix_start, segment.prefix_start + segment.prefix_length))
        for offset in range(segment.length):
            seen = prefix + list(range(segment.start, segment.start + offset + 1))
            seen = seen if window is None else seen[-window:]
            for head in range(QUERY_HEADS):
                group = head // (QUERY_HEADS // KEY_HEADS)
                scores = key[0, group, seen] @ query[0, head, segment.start + offset] * scaling
                scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
                rows.append(scores.softmax(0) @ value[0, group, seen])
    order = [
        (segment.start + offset, head)
        for segment in SEGMENTS
        for offset in range(segment.length)
        for head in range(QUERY_HEADS)
    ]
    places, heads = zip(*order, strict=True)
    return outputs.index_put((torch.tensor(0), torch.tensor(places), torch.tensor(heads)), torch.stack(rows))


def varlen_reference(
    q: Tensor, k: Tensor, v: Tensor, starts_q: Tensor, starts_k: Tensor, longest_q: int, longest_k: int,
    scale: float, left: int, softcap: float | None,
) -> Tensor:  # fmt: skip
    """Compute what kernels for sequences of different lengths compute: a causal mask aligned at the last
    key.
    """
    assert starts_q.dtype == starts_k.dtype == torch.int32
    assert (longest_q, longest_k) == (int(starts_q.diff().max()), int(starts_k.diff().max()))
    outputs = []
    for sequence in range(len(starts_q) - 1):
        rows = slice(int(starts_q[sequence]), int(starts_q[sequence + 1]))
        columns = slice(int(starts_k[sequence]), int(starts_k[sequence + 1]))
        one_q, one_k, one_v = (
            q[rows],
            *(x[columns].repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v)),
        )
        scores = torch.einsum("qhd,khd->hqk", one_q, one_k) * scale
        scores = scores if not softcap else softcap * torch.tanh(scores / softcap)
        num_q, num_k = scores.shape[1:]
        distance = torch.arange(num_q)[:, None] + num_k - num_q - torch.arange(num_k)
        hidden = (distance < 0) | (
            (distance > left) if left >= 0 else torch.zeros_like(distance, dtype=torch.bool)
        )
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -math.inf).softmax(-1), one_v))
    return torch.cat(outputs)


def torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    """Stand in for torch 2.10: no scale, no window, no groups of heads."""
    assert is_causal
    assert query.shape[1] == key.shape[1]
    return varlen_reference(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, SIZE**-0.5, -1, None)


def torch_2_13(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
):
    """Stand in for torch 2.13: causal is a window that ends at the query; groups of heads are on request."""
    assert window_size[1] == 0
    assert enable_gqa
    return varlen_reference(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size[0], None)


def flash_2(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
    dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
):  # fmt: skip
    """Stand in for FlashAttention 2, which groups heads by itself and caps scores."""
    assert causal
    return varlen_reference(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        softmax_scale,
        window_size[0],
        softcap,
    )


def flash_3(*arguments, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0):
    """Stand in for FlashAttention 3, which also returns the log-sum-exp."""
    assert causal
    return varlen_reference(*arguments, softmax_scale, window_size[0], softcap), None


VARLEN: dict[str, Callable[..., Any]] = {
    "torch 2.10": torch_2_10,
    "torch 2.13": torch_2_13,
    "flash 2": flash_2,
    "flash 3": flash_3,
}


def plan_of(kernel: str) -> RowsPlan | VarlenPlan:
    return (
        RowsPlan.of(SEGMENTS)
        if kernel == "rows"
        else VarlenPlan.of(SEGMENTS, varlen_kernel(kernel, VARLEN[kernel]))
    )


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize("scaling", [SIZE**-0.5, 0.9])
@pytest.mark.parametrize("kernel", ["rows", *VARLEN])
def test_values_and_gradients_are_those_of_one_query_at_a_time(kernel, scaling, window, softcap):
    arguments = states()
    plan = plan_of(kernel)
    if kernel.startswith("torch") and (softcap is not None or (kernel == "torch 2.10" and window == 3)):
        with pytest.raises(NotImplementedError, match=r"does not cap scores|has no sliding window"):
            plan.attend(*arguments, Scoring(scaling, window, softcap))
        return
    found = plan.attend(*arguments, Scoring(scaling, window, softcap))
    expected = one_by_one(*arguments, scaling, window, softcap)
    # Capped scores go through softmax in float32.
    tolerance = 1e-12 if softcap is None or kernel != "rows" else 1e-6
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad((found * direction).sum(), arguments)
    theirs = torch.autograd.grad((expected * direction).sum(), arguments)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=10 * tolerance)


def test_long_segments_are_computed_with_their_prefix(monkeypatch):
    monkeypatch.setattr(module, "WHOLE_PAIRS", 30)
    plan = RowsPlan.of(SEGMENTS)
    assert any(shape.queries == 12 for shape in plan.rectangles)  # 9 after a prompt of 3
    arguments = states()
    torch.testing.assert_close(
        plan.attend(*arguments, Scoring(0.3)),
        one_by_one(*arguments, 0.3, None, None),
        rtol=1e-9,
        atol=1e-9,
    )


def test_rectangles_waste_little():
    lengths = [192, 190, 170, 90, 85, 60, 58, 57, 20, 19, 8, 1]
    segments, start = [], 0
    for length in lengths:
        segments.append(Segment(start, length))
        start += length
    plan = RowsPlan.of(segments)
    assert [(shape.rows, shape.queries) for shape in plan.rectangles] == [
        (3, 192),
        (2, 90),
        (3, 60),
        (2, 20),
        (2, 8),
    ]


def test_sum_copies_adds_the_gradients_of_copies():
    source = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    index = torch.tensor([0, 2, 0, 0])
    copies = SumCopies.apply(source, index, index.argsort(stable=True), index.bincount(minlength=3))
    assert torch.equal(copies, source[index])
    copies.backward(torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]]))
    assert source.grad.tolist() == [[13.0, 130.0], [0.0, 0.0], [2.0, 20.0]]  # 1 + 4 + 8, nothing, 2


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "does not hand keyword arguments"),
        ({"s_aux": torch.zeros(1), "packed_plan": RowsPlan.of(SEGMENTS)}, "sinks or a position bias"),
        ({"position_bias": torch.zeros(1), "packed_plan": RowsPlan.of(SEGMENTS)}, "sinks or a position bias"),
    ],
)
def test_attention_that_is_not_understood_is_refused(keywords, message):
    with pytest.raises(NotImplementedError, match=message):
        packed_attention(torch.nn.Module(), *states(), None, **keywords)


# ------------------------------------------------------------
# through models


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama", "mistral", "gemma2"])
def test_gradients_are_those_of_one_sequence_at_a_time(name, checkpointing):
    batch = random_rollout(3)
    model = build(name)
    alone = [
        gradients(model, batch, LAYOUTS["padded"], sequences=[sequence])
        for sequence in range(batch.num_sequences)
    ]
    expected = {key: sum(part[key] for part in alone) for key in alone[0]}
    model = build(name, checkpointing)
    for layout in LAYOUTS.values():
        assert_same_gradients(gradients(model, batch, layout), expected)


@pytest.mark.parametrize("kernel", ["torch 2.13", "flash 2"])
def test_gradients_with_a_varlen_kernel_are_those_of_padded_sequences(kernel):
    """The same holds with activation checkpointing, which calls the attention again in the backward pass."""
    batch = random_rollout(4)
    expected = gradients(build("qwen3"), batch, LAYOUTS["padded"])
    layout = replace(LAYOUTS["shared"], kernel=varlen_kernel(kernel, VARLEN[kernel]))
    flash_size = build("qwen3", checkpointing=True)
    assert flash_size.config.head_dim == SIZE  # which torch_2_10 counts on
    assert_same_gradients(gradients(flash_size, batch, layout), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "update",
    [
        UpdateConfig(micro_batch_tokens=40),
        UpdateConfig(micro_batch_tokens=1),
        UpdateConfig(micro_batch_sequences=3),
        UpdateConfig(logprob_chunk=3),
    ],
    ids=["40 tokens", "1 token", "3 sequences", "chunks of 3"],
)
def test_no_setting_of_the_update_changes_the_gradient(layout, update):
    batch, model = random_rollout(5), build("qwen3")
    algorithm = AlgorithmConfig(beta=0.1, entropy_coefficient=0.01)
    expected = gradients(model, batch, LAYOUTS["padded"], algorithm=algorithm)
    assert_same_gradients(gradients(model, batch, LAYOUTS[layout], update, algorithm), expected)
