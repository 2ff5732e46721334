"""The one criterion of fast ways, its float32 reference, and what a run is told about its trials.

Planted errors are tried with the parts that they belong to: tests/test_layout.py, test_compilation.py,
test_rollout_trials.py and test_logprobs.py.
"""

from __future__ import annotations

import copy
import math
import weakref

import pytest
import torch
from rollout_helpers import configs, tiny_model, tokenizer
from torch import nn

from r1rl.compute.sample_text import sample_tokens
from r1rl.compute.trials import (
    Comparison,
    DifferentResult,
    Part,
    Standard,
    Upcasting,
    compare_draws,
    float32_arithmetic,
    is_exact,
    relative_error,
    run_trial,
    trial_records,
    trial_report,
)

CPU = torch.device("cpu")
PART = Part("a part", "There is no part", "everything takes twice as long")


def test_error_is_the_mean_over_positions_in_root_mean_squares_of_the_reference() -> None:
    reference = torch.tensor(
        [[3.0, -3.0], [1.0, 1.0]]
    )  # root mean square sqrt((9 + 9 + 1 + 1) / 4) = sqrt(5)
    found = reference + torch.tensor([[0.3, 0.4], [0.0, 0.0]])
    # Root mean squares of the two positions: sqrt((0.09 + 0.16) / 2) and 0; their mean is half of the first.
    assert relative_error(found, reference) == pytest.approx(math.sqrt(0.125) / 2 / math.sqrt(5.0))
    assert relative_error(reference, reference) == 0.0
    assert math.isnan(relative_error(found * math.nan, reference))
    many = torch.arange(1.0, 1001.0)[:, None]  # more positions than are compared at a time
    assert relative_error(many + 1.0, many) == pytest.approx(1.0 / many.square().mean().sqrt().item())


def test_another_shape_is_another_result() -> None:
    with pytest.raises(DifferentResult, match=r"the shape \[2, 3\] instead of \[3, 2\]"):
        relative_error(torch.zeros(2, 3), torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("fast", "plain", "accepted"),
    [
        (0.0149, 0.01, True),
        (0.0151, 0.01, False),
        (0.9e-4, 0.0, True),  # float32 that rounds in another order
        (1.1e-4, 0.0, False),
        (0.9e-4, 1e-6, True),  # low precision that happens to be exact
        (math.nan, 0.01, False),
        (math.inf, 0.01, False),
        (0.01, math.nan, False),
    ],
)
def test_the_criterion(fast: float, plain: float, accepted: bool) -> None:
    assert Comparison("logits", fast, plain).accepted is accepted


def test_what_a_run_is_told() -> None:
    taken = run_trial(PART, lambda: [Comparison("logits", 0.010, 0.011)])
    worse = run_trial(PART, lambda: [Comparison("logits", 0.010, 0.011), Comparison("gradients", 0.25, 0.05)])
    free = run_trial(Part("another", "There is no other"), lambda: [Comparison("logits", 0.5, 0.0)])
    assert (taken.accepted, worse.accepted, free.accepted) == (True, False, False)
    assert trial_report([taken, worse, free, PART.skipped("it would not pay")]) == [
        "There is no part: gradients are 5 times as far from float32 as the plain way's (0.25 and 0.05 of "
        "their root mean square); everything takes twice as long.",
        "There is no other: logits differ from the plain way's by 0.5 of their root mean square.",
        "There is no part: it would not pay.",
    ]
    record = trial_records([worse])[0]
    assert (record["part"], record["accepted"]) == ("a part", False)
    assert record["comparisons"][1] == {"quantity": "gradients", "fast": 0.25, "plain": 0.05}


def test_what_raises_is_refused_on_one_line_but_for_a_lack_of_memory() -> None:
    def raises(error: Exception) -> list[Comparison]:
        raise error

    assert run_trial(PART, lambda: raises(ImportError("no Triton\nbut a long story"))).reason == (
        "ImportError: no Triton but a long story"
    )
    assert run_trial(PART, lambda: raises(DifferentResult("it is different"))).reason == "it is different"
    with pytest.raises(torch.OutOfMemoryError):
        run_trial(PART, lambda: raises(torch.OutOfMemoryError("full")))


def test_a_standard_in_exact_float32_is_its_own_reference() -> None:
    asked: list[torch.dtype] = []

    def compute(dtype: torch.dtype) -> dict[str, torch.Tensor]:
        asked.append(dtype)
        return {"logits": torch.ones(2, 3).to(dtype) / 3}

    (comparison,) = Standard(compute, CPU, torch.float32).compare({"logits": torch.ones(2, 3) / 3})
    assert (comparison.fast, comparison.plain) == (0.0, 0.0)
    assert asked == [torch.float32]
    (comparison,) = Standard(compute, CPU, torch.bfloat16).compare({"logits": torch.ones(2, 3) / 3})
    assert comparison.fast == 0.0
    assert comparison.plain == pytest.approx(abs(1 / 3 - torch.tensor(1 / 3).bfloat16().item()) * 3, rel=1e-4)
    assert asked == [torch.float32, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("name", sorted(configs()))
def test_the_reference_computes_weights_of_lower_precision_in_float32(name: str) -> None:
    """Its logits and gradients are those of a float32 model with the same weights."""
    model = tiny_model(configs()[name]).eval()
    low = copy.deepcopy(model)
    for parameter in low.parameters():
        parameter.data = parameter.data.bfloat16()
    for exact, rounded in zip(model.parameters(), low.parameters(), strict=True):
        exact.data = rounded.data.float()
    ids = torch.arange(24).reshape(2, 12)
    expected = model(input_ids=ids, use_cache=False).logits
    plain = low(input_ids=ids, use_cache=False).logits
    with float32_arithmetic(CPU):
        found = low(input_ids=ids, use_cache=False).logits
    assert found.dtype is torch.float32
    assert relative_error(found.flatten(0, 1), expected.flatten(0, 1)) < 2e-6
    assert relative_error(plain.flatten(0, 1), expected.flatten(0, 1)) > 1e-3
    # After the context, where the backward pass must find the weights in float32 again. The gradients of
    # weights in bfloat16 are rounded to it.
    gradients = [
        torch.autograd.grad(logits.square().sum(), list(each.parameters()))
        for logits, each in ((found, low), (expected, model))
    ]
    whole = torch.stack([gradient.norm() for gradient in gradients[1]]).norm()
    for one, other in zip(*gradients, strict=True):
        assert (one.float() - other).norm() <= 2**-8 * other.norm() + 1e-5 * whole


@pytest.mark.parametrize("packs", [True, False])
def test_the_reference_keeps_no_float32_version_for_the_backward_pass(
    monkeypatch: pytest.MonkeyPatch, packs: bool
) -> None:
    """The graph holds a weight in bfloat16 as it is; without `pack` it would hold the version in float32."""
    versions: list[weakref.ref[torch.Tensor]] = []
    upcast = Upcasting._upcast

    def noted(self: Upcasting, tensor: torch.Tensor) -> torch.Tensor:
        versions.append(weakref.ref(exact := upcast(self, tensor)))
        return exact

    monkeypatch.setattr(Upcasting, "_upcast", noted)
    if not packs:
        monkeypatch.setattr(Upcasting, "pack", lambda self, tensor: tensor)
    weight = torch.randn(48, 64).bfloat16()
    with float32_arithmetic(CPU):
        out = nn.functional.linear(torch.randn(5, 64, requires_grad=True) * 2.0, weight)
    alive = [version() for version in versions if version() is not None and version().shape == weight.shape]
    assert (alive == []) == packs
    assert out.dtype is torch.float32


def test_the_reference_leaves_all_settings_as_they_were() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        assert not is_exact(torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ZeroDivisionError):
            with float32_arithmetic(CPU):
                assert is_exact(torch.float32)
                assert not torch.backends.cudnn.allow_tf32
                assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32
                raise ZeroDivisionError
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
    assert is_exact(torch.float32)
    assert not is_exact(torch.bfloat16)
    assert (torch.ones(2).bfloat16() + torch.ones(2).bfloat16()).dtype is torch.bfloat16


def test_changes_in_place_reach_tensors_of_lower_precision() -> None:
    buffer = torch.zeros(3).bfloat16()
    with float32_arithmetic(CPU):
        buffer.copy_(torch.ones(3))
        buffer[1] = 5.0
        buffer.add_(1.0)
    assert buffer.tolist() == [2.0, 6.0, 2.0]


def test_draws_may_flip_now_and_then_but_no_more() -> None:
    tokens = torch.arange(12).reshape(2, 6)
    logprobs = -torch.ones(2, 6)
    flipped = tokens.clone()
    flipped[0, 3:] += 1
    other = logprobs.clone()
    other[0, 3:] = -5.0  # of tokens that differ: not compared
    compare_draws((flipped, other), (tokens, logprobs), 1e-3)
    flipped[1, :1] += 1
    with pytest.raises(DifferentResult, match="other tokens are drawn than by the plain way"):
        compare_draws((flipped, other), (tokens, logprobs), 1e-3)
    with pytest.raises(DifferentResult, match=r"log-probabilities differ from the plain way's by 0\.01"):
        compare_draws((tokens, logprobs + 0.01), (tokens, logprobs), 1e-3)
    with pytest.raises(DifferentResult, match="log-probabilities differ from the plain way's by nan"):
        compare_draws((tokens, logprobs * math.nan), (tokens, logprobs), 1e-3)


def test_sample_text_needs_a_tokenizer_that_knows_it() -> None:
    rows = sample_tokens(tokenizer(), 95)
    assert [len(row) for row in rows] == [64, 64, 64]
    assert [len(row) for row in sample_tokens(tokenizer(), 95, 32)] == [32, 32, 32]
    assert sample_tokens(tokenizer(), 95, 16) == []
    assert sample_tokens(tokenizer(), 0) == []
    assert sample_tokens(None, 95) == []
