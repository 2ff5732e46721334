"""Triton kernels of r1rl against plain arithmetic in float64."""

from __future__ import annotations

import pytest
import torch
from rollout_helpers import tiny_model
from torch import Tensor

from r1rl.attention.plans import Scoring
from r1rl.objective.sampling import Sampling, process_logits
from r1rl.policy.compilation import fuse_logprobs
from r1rl.policy.logprobs import LogitHead, PolicyForward, chunk_logprobs
from r1rl.rollout import sampler

pytestmark = pytest.mark.gpu


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Return attention [R, 1, Q, E] of a query [R, Q, 1, D], a key [R, H, C, D] and a value [R, H, C, E] in
    float64.
    """
    repeats = query.shape[1] // key.shape[1]
    scores = query.double() @ key.double().repeat_interleave(repeats, 1).transpose(2, 3) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    columns = torch.arange(key.shape[2], device=key.device)
    hidden = (columns > positions[:, None]) | (columns <= positions[:, None] - (window or key.shape[2]))
    weights = scores.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1)
    return (weights @ value.double().repeat_interleave(repeats, 1)).transpose(1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "query_heads", "heads", "size", "out_size", "window", "softcap"),
    [
        (3, 14, 2, 64, 64, None, None),
        (200, 12, 2, 128, 128, None, None),
        (5, 4, 4, 24, 16, 100, None),
        (2, 8, 4, 32, 32, 70, 5.0),
    ],
)
def test_decode_attention(rows, query_heads, heads, size, out_size, window, softcap, dtype) -> None:
    from r1rl.attention.decode_kernel import RowAttention

    scoring = Scoring(size**-0.5, window, softcap)
    attend = RowAttention(torch.device("cuda"))
    generator = torch.Generator("cuda").manual_seed(rows)
    columns = 700
    query = torch.randn(rows, query_heads, 1, size, device="cuda", generator=generator).to(dtype)
    # Larger than what is read, as in the engine.
    keys = torch.randn(rows + 1, heads, columns + 4, size, device="cuda", generator=generator).to(dtype)
    values = torch.randn(rows + 1, heads, columns + 4, out_size, device="cuda", generator=generator).to(dtype)
    positions = torch.randint(columns, (rows,), device="cuda", generator=generator)
    positions[0], positions[1] = 0, columns - 1
    of_rows = torch.arange(rows, device="cuda"), slice(None), positions
    # Parts of one product, as in the engine.
    arrived = torch.cat([keys[of_rows], values[of_rows]], -1)[:, :, None].split([size, out_size], -1)
    expected = attended(
        query, keys[:rows, :, :columns], values[:rows, :, :columns], positions, size**-0.5, window, softcap
    )
    splits = {1, attend.splits(rows * heads, columns)}
    assert max(splits) > 1 or rows == 200
    tolerance = {"atol": 1e-5 if dtype is torch.float32 else 2e-2, "rtol": 0}
    for count in splits:
        found = attend(query, keys, values, None, positions, scoring, count)
        torch.testing.assert_close(found.double(), expected, **tolerance)
        written = []
        for _ in range(20):
            wiped, wiped_values = keys.clone(), values.clone()
            wiped[of_rows] = wiped_values[of_rows] = torch.nan
            written.append(attend(query, wiped, wiped_values, arrived, positions, scoring, count))
            assert torch.equal(wiped, keys)
            assert torch.equal(wiped_values, values)
        torch.testing.assert_close(written[0].double(), expected, **tolerance)
        assert all(torch.equal(other, written[0]) for other in written), "parts are added up in a fixed order"
        assert not attend.counters.any()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("vocabulary", [97, 5000, 151_936])
def test_draws_are_those_of_the_plain_sums(vocabulary: int, temperature: float) -> None:
    from r1rl.rollout.native.draw_kernels import make_ops

    generator = torch.Generator("cuda").manual_seed(vocabulary)
    logits = torch.randn(400, vocabulary, device="cuda", generator=generator) * 3
    logits[:, 3::7] = -torch.inf
    logits[0, :-1] = -torch.inf
    uniform = torch.rand(400, dtype=torch.float64, device="cuda", generator=generator)
    found, logprobs = sampler.draw(logits, temperature, uniform, make_ops())
    expected, _ = sampler.draw(logits, temperature, uniform)
    assert (found == expected).float().mean() > 0.99  # a border between two tokens may move by a rounding
    true = (logits.double() / temperature).log_softmax(-1).gather(1, found[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), true, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [97, 151_936])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1, top_p=0.95),
        Sampling(1, top_k=20),
        Sampling(1, min_p=0.02),
        Sampling(1, temperature=0.7, top_k=60, top_p=0.6, min_p=0.001),
    ],
    ids=str,
)
def test_truncation_leaves_what_sorting_leaves(
    sampling: Sampling, vocabulary: int, dtype: torch.dtype
) -> None:
    from r1rl.rollout.native.draw_kernels import make_ops

    logits = (
        torch.randn(200, vocabulary, device="cuda", generator=torch.Generator("cuda").manual_seed(0)).to(
            dtype
        )
        * 4
    )
    found, expected = make_ops().truncate(logits, sampling), process_logits(logits, sampling)
    same = ((found == -torch.inf) == (expected == -torch.inf)).all(-1)
    assert same.float().mean() > 0.95  # where a border lies on a sum, its rounding decides
    torch.testing.assert_close(found[same], expected[same], atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("vocabulary", [97, 151_936])
def test_logprobs_and_entropies_with_their_gradients(vocabulary: int, temperature: float) -> None:
    from r1rl.policy.logprob_kernel import LogprobsAndEntropies

    generator = torch.Generator("cuda").manual_seed(vocabulary)
    logits = torch.randn(9, vocabulary, device="cuda", generator=generator, requires_grad=True)
    targets = torch.randint(vocabulary, (9,), device="cuda", generator=generator)
    of_logprobs, of_entropies = torch.randn(2, 9, device="cuda", generator=generator)
    exact = logits.detach().double().requires_grad_()
    logprobs, entropies = LogprobsAndEntropies.apply(logits, targets, temperature)
    log_p = (exact / temperature).log_softmax(-1)
    expected = log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    torch.testing.assert_close(logprobs.double(), expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(entropies.double(), expected[1], atol=1e-5, rtol=0)
    for with_entropy in (False, True):
        (found,) = torch.autograd.grad(
            (logprobs * of_logprobs + entropies * of_entropies * with_entropy).sum(),
            logits,
            retain_graph=True,
        )
        loss = (expected[0] * of_logprobs + expected[1] * of_entropies * with_entropy).sum()
        (wanted,) = torch.autograd.grad(loss, exact, retain_graph=True)
        torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(4), Sampling(4, temperature=0.6)], ids=str)
def test_a_chunk_is_what_it_is_without_kernels(sampling: Sampling) -> None:
    from r1rl.policy.logprob_kernel import fused_chunk_logprobs

    model = tiny_model().cuda()
    head = LogitHead(model)
    hidden = torch.randn(
        20,
        model.config.hidden_size,
        device="cuda",
        generator=torch.Generator("cuda").manual_seed(0),
        requires_grad=True,
    )
    targets = torch.arange(20, device="cuda")
    for mode in ("none", "value", "gradient"):
        results = []
        for compute in (fused_chunk_logprobs, chunk_logprobs):
            logprobs, entropies = compute(head, hidden, targets, sampling, mode)
            loss = logprobs.sum() + (entropies.sum() if mode == "gradient" else 0.0)
            results.append((logprobs, entropies, torch.autograd.grad(loss, (hidden, head.embedding.weight))))
        (logprobs, entropies, gradients), (wanted, wanted_entropies, wanted_gradients) = results
        torch.testing.assert_close(logprobs, wanted, atol=1e-5, rtol=1e-5)
        assert (entropies is None) == (wanted_entropies is None) == (mode == "none")
        if entropies is not None:
            torch.testing.assert_close(entropies, wanted_entropies, atol=1e-5, rtol=1e-5)
        for found, expected in zip(gradients, wanted_gradients, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("sampling", "kernel"), [(Sampling(4, temperature=0.6), True), (Sampling(4, top_p=0.9), False)], ids=str
)
def test_logprobs_come_from_the_kernel_without_compiled_layers(sampling: Sampling, kernel: bool) -> None:
    from r1rl.policy.logprob_kernel import fused_chunk_logprobs

    policy = PolicyForward(tiny_model().cuda(), sampling, 64)
    trial = fuse_logprobs(policy, torch.bfloat16)
    assert (trial is not None and trial.accepted) == kernel
    assert (policy.chunk_logprobs is fused_chunk_logprobs) == kernel
