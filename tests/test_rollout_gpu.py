"""The rollout engines on a GPU: exact in float32, close in bfloat16, within memory."""

from __future__ import annotations

import pytest
import torch
from rollout_helpers import configs, tiny_model, tokenizer

from r1rl.compute.graphs import CudaCapture, RunAgain
from r1rl.compute.trials import trial_report
from r1rl.objective.sampling import Sampling
from r1rl.rollout import EngineSetup, make_engine
from r1rl.rollout.native.allocation import Allocator
from r1rl.rollout.native.engine import NativeEngine
from r1rl.rollout.native.forward import prefill
from r1rl.rollout.native.memory import SHARE

pytestmark = pytest.mark.gpu

PROMPTS = [[5, 6, 7], [1] * 9 + [2, 3], [3], [8, 9, 10, 11, 12]]
SEEDS = [11, 12, 13, 14]


def completions(engine, sampling: Sampling) -> list[tuple[list[int], list[float]]]:
    groups = sorted(engine.generate(PROMPTS, 4, sampling, SEEDS), key=lambda group: group.index)
    return [
        (completion.token_ids, completion.logprobs) for group in groups for completion in group.completions
    ]


@pytest.mark.parametrize("name", sorted(configs()))
def test_float32_is_the_same_on_both_devices_and_engines(name: str) -> None:
    model = tiny_model(configs()[name])
    sampling = Sampling(40, temperature=0.9, top_p=0.95, eos_token_ids=(4, 50))
    expected = completions(NativeEngine(model, tokenizer()), sampling)
    model.cuda()
    for engine in (
        NativeEngine(model, tokenizer(), dtype=torch.float32),
        NativeEngine(model, tokenizer(), dtype=torch.float32, max_rows=5, look_every=3),
        NativeEngine(model, tokenizer(), dtype=torch.float32, capture=RunAgain()),
        make_engine("transformers", EngineSetup(model, tokenizer(), dtype=torch.float32)),
    ):
        found = completions(engine, sampling)
        assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
        for (_, logprobs), (_, wanted) in zip(found, expected, strict=True):
            assert logprobs == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", sorted(configs()))
def test_bfloat16_copy_of_float32_masters(name: str) -> None:
    model = tiny_model(configs()[name]).cuda()
    engine = make_engine("native", EngineSetup(model, tokenizer(), compile_layers=name == "qwen2"))
    assert engine.weights.dtype is torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    found = completions(engine, Sampling(20))
    differences = []
    for prompt, (tokens, logprobs) in zip([p for p in PROMPTS for _ in range(4)], found, strict=True):
        with torch.no_grad():
            logits = engine.weights.model(input_ids=torch.tensor([prompt + tokens], device="cuda")).logits[
                0, len(prompt) - 1 : -1
            ]
        expected = (
            logits.float().log_softmax(-1).gather(1, torch.tensor(tokens, device="cuda")[:, None])[:, 0]
        )
        differences.append((torch.tensor(logprobs) - expected.cpu()).abs())
    # bfloat16 has 8 bits: logits of a few units are rounded to about 1 / 64, and attention sums in another
    # order.
    assert torch.cat(differences).mean() < 0.05


@pytest.mark.parametrize("name", sorted(configs()))
def test_decode_steps_are_captured(name: str) -> None:
    engine = NativeEngine(tiny_model(configs()[name]).cuda(), tokenizer())
    assert engine.reason.endswith("its decode steps are captured and replayed"), engine.reason


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(40, temperature=0.0),
        Sampling(90, top_p=0.9, top_k=30, min_p=0.01),
        Sampling(40, repetition_penalty=1.3, stop=("a",)),
    ],
)
def test_captured_steps_draw_what_the_steps_themselves_draw(sampling: Sampling) -> None:
    model = tiny_model().cuda()
    expected = completions(
        NativeEngine(model, tokenizer(), dtype=torch.float32, capture=RunAgain()), sampling
    )
    engine = NativeEngine(model, tokenizer(), dtype=torch.float32)
    for _ in range(2):
        assert [tokens for tokens, _ in completions(engine, sampling)] == [tokens for tokens, _ in expected]


def test_every_workspace_is_captured() -> None:
    """The last graph of one is gone before the first of the next is recorded."""
    engine = NativeEngine(tiny_model().cuda(), tokenizer())
    capture = engine.allocator.method.capture
    assert isinstance(capture, CudaCapture)
    for length in (20, 90, 300):
        engine.allocator.forget()
        completions(engine, Sampling(length))
        assert len(capture.graphs) > 0
        assert capture.fault is None


def test_a_model_that_waits_for_the_gpu_decodes_uncaptured() -> None:
    model = tiny_model().cuda()
    model.model.rotary_emb.register_forward_hook(
        lambda module, inputs, output: float(output[0].sum()) and None
    )
    engine = NativeEngine(model, tokenizer(), dtype=torch.float32)
    assert "Decode steps are not captured" in "".join(trial_report(engine.trials))
    plain = NativeEngine(tiny_model().cuda(), tokenizer(), dtype=torch.float32)
    assert [t for t, _ in completions(engine, Sampling(20))] == [
        t for t, _ in completions(plain, Sampling(20))
    ]


def test_a_failed_capture_leaves_the_gpu_usable() -> None:
    """Waiting that isn't seen beforehand: the stream is invalidated while it records."""
    capture = CudaCapture(torch.device("cuda"))
    counter = torch.zeros(1, device="cuda")

    def step() -> None:
        counter.add_(1)
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()

    again = capture(step)
    assert capture.fault is not None
    again()
    assert counter.item() == 2
    other = CudaCapture(torch.device("cuda"))
    replay = other(lambda: counter.add_(1))
    replay()
    assert other.fault is None
    assert counter.item() == 4


def test_rows_follow_free_memory() -> None:
    model = tiny_model().cuda()
    engine = NativeEngine(model, tokenizer())
    sampling = Sampling(100_000)
    counts, costs = [], []
    for block in (0, 4 * 2**30):
        taken = torch.empty(block, dtype=torch.uint8, device="cuda")
        allocator = Allocator(torch.device("cuda"), 0)
        with engine.weights.borrowed("r1rl_rollout") as borrowed:
            prefilled = prefill(borrowed, [[1, 2, 3]])
            counts.append(
                allocator._rows_that_fit(borrowed, prefilled, 100_003, sampling, engine.stopping.of(sampling))
            )
        costs.append(prefilled.cache.bytes_per_token * 100_003 + 24 * 100_000)
        del taken
    # 4 GiB less, of which SHARE would have gone to rows.
    assert counts[0] - counts[1] == pytest.approx(SHARE * 4 * 2**30 / costs[0], rel=0.05)


def test_memory_is_given_back() -> None:
    """The engine keeps the workspace of the largest rollout, and no more than a tenth of the memory."""
    model = tiny_model().cuda()
    engine = NativeEngine(model, tokenizer())
    completions(engine, Sampling(60))
    before = torch.cuda.memory_allocated()
    for length in (60, 20, 60):
        completions(engine, Sampling(length))
    assert torch.cuda.memory_allocated() == before
    engine.allocator.forget()
    assert torch.cuda.memory_allocated() < before
