"""The sampler r1rl.rollout.sampler: random streams and draws against exact arithmetic."""

from __future__ import annotations

import pytest
import torch
from rollout_helpers import chi_square_p_value

from r1rl.objective.sampling import Sampling
from r1rl.rollout.sampler import block_width, draw, penalize_repetition, sample, stream_key, uniforms


def drawn(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return the tokens that `draw` takes, whose log-probabilities are those of the distribution."""
    logits = probabilities.log()
    tokens, logprobs = draw(logits, 1.0, uniform)
    torch.testing.assert_close(
        logprobs, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0], equal_nan=True
    )
    return tokens


def test_uniforms_are_splitmix64() -> None:
    # The first outputs of SplitMix64 with seed 0 are e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f
    # (the reference
    # implementation's); their upper 53 bits, over 2^53.
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    found = uniforms(torch.tensor([0]), torch.tensor([0]), 3)
    assert found.tolist() == [[(output >> 11) / 2**53 for output in outputs]]


def test_uniforms_depend_on_key_and_index_alone() -> None:
    keys = torch.tensor([stream_key(7, g) for g in range(5)])
    whole = uniforms(keys, torch.zeros(5, dtype=torch.long), 20)
    part = uniforms(keys[[3, 1]], torch.tensor([4, 9]), 6)
    assert torch.equal(part[0], whole[3, 4:10])
    assert torch.equal(part[1], whole[1, 9:15])


def test_uniforms_look_uniform_and_uncorrelated() -> None:
    keys = torch.tensor([stream_key(seed, g) for seed in range(50) for g in range(8)])
    u = uniforms(keys, torch.zeros(400, dtype=torch.long), 100)
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u.flatten(), 50, 0, 1)
    assert chi_square_p_value(counts, torch.full((50,), 0.02)) > 1e-4
    # Correlations of 40,000 pairs have a standard deviation of 1 / 200; 5 of them are 0.025.
    for first, second in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:])):
        assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.025


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 7, 64, 97, 512, 50257, 151936])
def test_block_width_is_near_the_square_root(vocabulary: int) -> None:
    width = block_width(vocabulary)
    assert width & (width - 1) == 0
    assert vocabulary**0.5 / 4 <= width <= 4 * vocabulary**0.5


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 97, 512, 50257, 151936])
def test_draw_inverts_the_cumulative_distribution(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    probabilities = torch.randn(1, vocabulary, generator=generator).mul(3).softmax(-1)
    u = torch.rand(500, generator=generator, dtype=torch.float64)
    tokens = drawn(probabilities.expand(500, -1), u)
    upper = probabilities.double().cumsum(-1)[0]
    lower = upper - probabilities.double()[0]
    # float32 sums of blocks move the borders by less than 1e-6 of the whole.
    target = u * upper[-1]
    assert ((lower[tokens] - 1e-6 <= target) & (target <= upper[tokens] + 1e-6)).all()


def test_draw_never_takes_a_token_without_probability() -> None:
    # Borders are where rounding could slip: u = 0, u = the largest double below 1, and zero tokens at both
    # ends of every block.
    probabilities = torch.zeros(1, 97)
    probabilities[0, 5::7] = torch.rand(14, generator=torch.Generator().manual_seed(1)) + 1e-30
    probabilities[0, 40] = 1e-38
    u = torch.cat(
        [
            torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64),
            torch.arange(2000, dtype=torch.float64) / 2000,
        ]
    )
    tokens = drawn((probabilities / probabilities.sum()).expand(len(u), -1), u)
    assert (probabilities[0, tokens] > 0).all()
    assert tokens[0] == 5
    assert tokens[1] == 96


def test_draw_survives_nan() -> None:
    tokens = drawn(torch.full((2, 97), torch.nan), torch.tensor([0.0, 0.9], dtype=torch.float64))
    assert ((tokens >= 0) & (tokens < 97)).all()


def test_draw_does_not_depend_on_the_other_rows() -> None:
    generator = torch.Generator().manual_seed(2)
    probabilities = torch.randn(64, 301, generator=generator).softmax(-1)
    u = torch.rand(64, generator=generator, dtype=torch.float64)
    alone = torch.cat([drawn(probabilities[i : i + 1], u[i : i + 1]) for i in range(64)])
    assert torch.equal(drawn(probabilities, u), alone)


def test_penalize_repetition() -> None:
    # Seen tokens: 2 / 1.5 = 4 / 3 and -2 * 1.5 = -3; unseen ones stay.
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert penalize_repetition(logits, seen, 1.5).tolist() == [[pytest.approx(4 / 3), -3.0, 2.0, -2.0]]


def test_greedy_takes_the_likeliest_and_reports_its_logprob() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    tokens, logprobs = sample(logits, Sampling(1, temperature=0.0), torch.zeros(2, dtype=torch.float64), None)
    assert tokens.tolist() == [1, 0]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[torch.arange(2), tokens])


def test_sample_does_not_change_its_input() -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    seen = torch.zeros(3, 20, dtype=torch.bool)
    sample(
        logits,
        Sampling(1, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=1.3),
        torch.rand(3).double(),
        seen,
    )
    assert torch.equal(logits, before)
