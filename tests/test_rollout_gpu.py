"""The rollout engines on a GPU: exact in float32, close in bfloat16, within memory."""

from __future__ import annotations

import pytest
import torch
from rollout_helpers import configs, tiny_model, tokenizer

from r1rl.rollout import build_engine
from r1rl.rollout.memory import LOGITS_BYTES, rows_that_fit
from r1rl.rollout.native import NativeEngine
from r1rl.sampling import Sampling

pytestmark = pytest.mark.gpu

PROMPTS = [[5, 6, 7], [1] * 9 + [2, 3], [3], [8, 9, 10, 11, 12]]
SEEDS = [11, 12, 13, 14]


def completions(engine, sampling: Sampling) -> list[tuple[list[int], list[float]]]:
    groups = sorted(engine.generate(PROMPTS, 4, sampling, SEEDS), key=lambda group: group.index)
    return [(completion.token_ids, completion.logprobs) for group in groups for completion in group.completions]


@pytest.mark.parametrize("name", sorted(configs()))
def test_float32_is_the_same_on_both_devices_and_engines(name: str) -> None:
    model = tiny_model(configs()[name])
    sampling = Sampling(40, temperature=0.9, top_p=0.95, eos_token_ids=(4, 50))
    expected = completions(NativeEngine(model, tokenizer()), sampling)
    model.cuda()
    for engine in (
        NativeEngine(model, tokenizer(), dtype=torch.float32),
        NativeEngine(model, tokenizer(), dtype=torch.float32, max_rows=5, look_every=3),
        build_engine("transformers", model, tokenizer(), dtype=torch.float32),
    ):
        found = completions(engine, sampling)
        assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
        for (_, logprobs), (_, wanted) in zip(found, expected, strict=True):
            assert logprobs == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", sorted(configs()))
def test_bfloat16_copy_of_float32_masters(name: str) -> None:
    model = tiny_model(configs()[name]).cuda()
    engine = build_engine("native", model, tokenizer())
    assert engine.weights.dtype is torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    found = completions(engine, Sampling(20))
    differences = []
    for prompt, (tokens, logprobs) in zip([p for p in PROMPTS for _ in range(4)], found, strict=True):
        with torch.no_grad():
            logits = engine.weights.model(input_ids=torch.tensor([prompt + tokens], device="cuda")).logits[0, len(prompt) - 1 : -1]
        expected = logits.float().log_softmax(-1).gather(1, torch.tensor(tokens, device="cuda")[:, None])[:, 0]
        differences.append((torch.tensor(logprobs) - expected.cpu()).abs())
    # bfloat16 has 8 bits: logits of a few units are rounded to about 1 / 64, and attention sums in another order.
    assert torch.cat(differences).mean() < 0.05


def test_rows_follow_free_memory() -> None:
    device = torch.device("cuda")
    bytes_per_row, vocabulary = 10_000_000, 1000
    before = rows_that_fit(bytes_per_row, vocabulary, device)
    block = torch.empty(4 * 2**30, dtype=torch.uint8, device=device)
    after = rows_that_fit(bytes_per_row, vocabulary, device)
    # 4 GiB less, of which 80 % would have gone to rows.
    assert before - after == pytest.approx(0.8 * 4 * 2**30 / (bytes_per_row + LOGITS_BYTES * vocabulary), rel=0.05)
    del block


def test_memory_is_given_back() -> None:
    model = tiny_model().cuda()
    engine = NativeEngine(model, tokenizer())
    completions(engine, Sampling(20))
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        completions(engine, Sampling(60))
    assert torch.cuda.memory_allocated() == before
