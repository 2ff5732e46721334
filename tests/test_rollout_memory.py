"""The rollout within its memory: what it takes is measured, and running out of it costs time alone."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import torch
from recorded_steps import RecordedSteps
from rollout_helpers import PROMPTS, SEEDS, VOCABULARY, configs, flat, native, run, tiny_model, tokens

from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native import allocation, decoding, rows, workspace
from r1rl.rollout.native.allocation import Allocator
from r1rl.rollout.native.engine import NativeEngine
from r1rl.rollout.native.forward import prefill
from r1rl.rollout.native.memory import Cost, PeakMeter, free_bytes, measure_cost, total_bytes
from r1rl.rollout.stopping import Stopping

SAMPLING = Sampling(30, eos_token_ids=(4, 50, 60, 70, 80))


@pytest.fixture
def engine() -> NativeEngine:
    return native(tiny_model())


def failing(function: Callable[..., Any], fails: Iterator[bool]) -> Callable[..., Any]:
    """Return the function, which runs out of memory whenever the next of `fails` says so."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(fails, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(*args, **kwargs)

    return wrapped


def calls(*failing_calls: int) -> Iterator[bool]:
    return (index in failing_calls for index in range(10_000))


# Running out of memory


@pytest.mark.parametrize(
    ("captured", "fails"),
    [(False, (0,)), (False, (5,)), (False, (3, 4, 9)), (False, (2, 12, 22)), (True, (0,)), (True, (0, 1))],
)
def test_out_of_memory_in_a_step_halves_the_rows(
    captured: bool, fails: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The parameter says which forwards fail; captured steps call the model's forward only while they are
    captured.
    """
    model = tiny_model()
    expected = run(native(model), PROMPTS, 3, SAMPLING, SEEDS)
    engine = native(model, capture=RecordedSteps() if captured else None)
    monkeypatch.setattr(workspace, "decode_step", failing(workspace.decode_step, calls(*fails)))
    with caplog.at_level(logging.WARNING):
        found = run(engine, PROMPTS, 3, SAMPLING, SEEDS)
    assert tokens(found) == tokens(expected)
    for mine, plain in zip(flat(found), flat(expected), strict=True):
        assert mine.finish_reason is plain.finish_reason
        assert mine.logprobs == pytest.approx(plain.logprobs, abs=1e-5)
    assert len(caplog.messages) == len(fails)
    if fails == (0,):
        # 5 prompts x 3 completions, of which one has ended with its first token.
        assert [len(completion.token_ids) for completion in flat(expected)].count(1) == 1
        assert caplog.messages == [
            "The rollout ran out of memory with 14 rows and goes on with 7; no completion is lost. "
            "`rollout.max_rows: 7` starts so."
        ]


@pytest.mark.parametrize(
    "law", [{"repetition_penalty": 1.3}, {"top_p": 0.9, "temperature": 0.8}, {"stop": ("answer>", "a")}]
)
@pytest.mark.parametrize("where", ["draw", "step"])
def test_what_a_completion_needs_is_carried_over(
    law: dict[str, Any], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens seen (for the repetition penalty), random numbers, and the beginnings of stop strings."""
    model = tiny_model()
    sampling = Sampling(30, eos_token_ids=(4, 50), **law)
    expected = tokens(run(native(model), PROMPTS, 3, sampling, SEEDS))
    engine = native(model)
    module, name, fails = (
        (rows, "sample", calls(0, 6, 15)) if where == "draw" else (workspace, "decode_step", calls(6, 13))
    )
    monkeypatch.setattr(module, name, failing(getattr(module, name), fails))
    assert tokens(run(engine, PROMPTS, 3, sampling, SEEDS)) == expected


@pytest.mark.parametrize("fails", [(0,), (1,), (0, 1, 2), (2,)])
def test_out_of_memory_in_prefill(
    engine: NativeEngine,
    fails: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With 4 rows of 15 at once and 12 prompt tokens at a time, prompts are prefilled at first and while
    others decode.
    """
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 12)
    engine.allocator.max_rows = 4
    expected = tokens(run(engine, PROMPTS, 3, SAMPLING, SEEDS))
    monkeypatch.setattr(allocation, "prefill", failing(allocation.prefill, calls(*fails)))
    with caplog.at_level(logging.WARNING):
        assert tokens(run(engine, PROMPTS, 3, SAMPLING, SEEDS)) == expected
    assert len(caplog.messages) == len(fails)


def test_out_of_memory_when_the_cache_is_made_or_grows(
    engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(100)  # needs more than one bucket of columns
    expected = tokens(run(engine, PROMPTS, 2, sampling, SEEDS))
    for name, fails in (
        ("allocate", calls(0)),
        ("resize", calls(0, 1)),
        ("resize", calls(1)),
        ("resize", calls(2)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(workspace.RowCache, name, failing(getattr(workspace.RowCache, name), fails))
            assert tokens(run(engine, PROMPTS, 2, sampling, SEEDS)) == expected


def test_groups_finished_before_are_handed_over_once(
    engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "decode_step", failing(workspace.decode_step, calls(4, 11, 18)))
    indices = [group.index for group in engine.generate(PROMPTS, 3, SAMPLING, SEEDS)]
    assert sorted(indices) == list(range(len(PROMPTS)))


@pytest.mark.parametrize(("module", "name"), [(workspace, "decode_step"), (allocation, "prefill")])
def test_one_row_that_does_not_fit_is_the_users_to_mend(
    module: Any, name: str, engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, failing(getattr(module, name), iter(lambda: True, None)))
    # The longest prompt has 11 tokens.
    with pytest.raises(
        UserError, match=r"does not hold one completion of up to 41 tokens.*max_completion_length"
    ):
        run(engine, PROMPTS, 3, SAMPLING, SEEDS)
    monkeypatch.undo()
    assert len(run(engine, PROMPTS, 3, SAMPLING, SEEDS)) == len(PROMPTS)


# Long prompts


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma2", "gpt2", "deepseek_v3"])
@pytest.mark.parametrize("chunk", [1, 4, 7, 8])
def test_a_prompt_in_chunks_is_the_same_prompt(name: str, chunk: int) -> None:
    """Grouped heads, sliding windows of 6, soft caps, learned positions and latents; chunks that divide 16
    and that don't.
    """
    engine = native(tiny_model(configs()[name]))
    prompt = [
        int(token) for token in torch.randint(VOCABULARY, (16,), generator=torch.Generator().manual_seed(1))
    ]
    with engine.weights.borrowed("r1rl_rollout") as model:
        whole, chunked = prefill(model, [prompt]), prefill(model, [prompt], chunk)
    torch.testing.assert_close(chunked.logits_PV, whole.logits_PV, atol=1e-4, rtol=1e-4)
    for one, other in zip(
        [*whole.cache.keys, *whole.cache.values], [*chunked.cache.keys, *chunked.cache.values], strict=True
    ):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


def test_long_prompts_are_prefilled_alone_and_in_chunks(
    engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokens(run(engine, PROMPTS, 2, SAMPLING, SEEDS))
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 4)
    widths: list[int] = []
    engine.weights.model.get_input_embeddings().register_forward_hook(
        lambda module, args, output: widths.append(args[0].numel())
    )
    assert tokens(run(engine, PROMPTS, 2, SAMPLING, SEEDS)) == expected
    # The first prompts: 3 tokens; 11, in chunks of 4, 4 and 3.
    assert widths[:4] == [3, 4, 4, 3]


# The budget


class FakeMeter(PeakMeter):
    """Counts what the test says that a block took."""

    taken = 0

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.counts = True

    def __enter__(self) -> FakeMeter:
        FakeMeter.taken = 0
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = FakeMeter.taken


def test_cost_is_measured_from_two_numbers_of_rows() -> None:
    def run(rows: int) -> None:
        FakeMeter.taken = 1000 + 70 * rows

    assert measure_cost(run, FakeMeter, 8, 40) == Cost(1000, 70)


def test_rows_in_a_budget() -> None:
    assert Cost(100, 30).rows_in(1000) == 30  # (1000 - 100) / 30
    assert Cost(100, 30).rows_in(99) == 1
    assert Cost(100, 30).plus(Cost(1, 2)) == Cost(101, 32)
    assert Cost(100, 30).times(2) == Cost(200, 60)


def test_rows_follow_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampling = tiny_model(), Sampling(30)
    engine = native(model)
    stopping = engine.stopping.of(sampling)
    with engine.weights.borrowed("r1rl_rollout") as borrowed:
        prefilled = prefill(borrowed, [[1, 2, 3]])
        # 3 layers x 2 heads x (8 + 8) floats of 4 bytes a token, 33 tokens; 24 bytes for each of 30 records;
        # logits 32 bytes an entry.
        per_row = 3 * 2 * 16 * 4 * 33 + 24 * 30 + 32 * VOCABULARY
        monkeypatch.setattr(allocation, "free_bytes", lambda device: int(7.5 * per_row / 0.9))
        space, count = Allocator(torch.device("cpu"), 0).make(
            borrowed, prefilled, 100, 33, sampling, stopping
        )
    assert count == 7
    assert space.tensors.capacity == 7


def test_a_measured_step_counts_instead_of_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampling = tiny_model(), Sampling(30)
    engine = native(model)
    steps: list[int] = []

    def counted(model: Any, cache: Any, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        steps.append(len(tokens))
        FakeMeter.taken = 5000 + cache.bytes + 900 * len(tokens)
        return original(model, cache, tokens, *rest)

    original = workspace.decode_step
    monkeypatch.setattr(workspace, "decode_step", counted)
    monkeypatch.setattr(Allocator, "meter", lambda self: FakeMeter())
    per_row = 3 * 2 * 16 * 4 * 33 + 24 * 30 + 900
    monkeypatch.setattr(allocation, "free_bytes", lambda device: int((5000 + 7.5 * per_row) / 0.9))
    allocator = Allocator(torch.device("cpu"), 0)
    with engine.weights.borrowed("r1rl_rollout") as borrowed:
        prefilled = prefill(borrowed, [[1, 2, 3]])
        for _ in range(2):
            _, count = allocator.make(
                borrowed, prefilled, 100, 33, sampling, Stopping((), (), engine.tokenizer, VOCABULARY)
            )
            assert count == 7
    assert steps == list(allocation.TRIAL_ROWS)  # measured once


def test_free_and_total_bytes_of_this_machine() -> None:
    device = torch.device("cpu")
    assert 0 < free_bytes(device) < total_bytes(device)
    assert total_bytes(device) == psutil.virtual_memory().total


# Growth


@pytest.mark.slow
@pytest.mark.parametrize("capture", [None, RecordedSteps()], ids=["plain", "captured"])
def test_memory_does_not_grow_over_200_rollouts(capture: RecordedSteps | None) -> None:
    engine = native(tiny_model(), capture=capture)
    process = psutil.Process()
    tensors, resident = [], []
    for step in range(200):
        run(engine, PROMPTS, 3, SAMPLING, [step * 10 + index for index in range(len(PROMPTS))])
        if step in (20, 110, 199):
            gc.collect()
            tensors.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
            resident.append(process.memory_info().rss)
    assert tensors[1] == tensors[2]
    # Captured steps: a few more buckets may have been met since the 20th rollout.
    assert abs(tensors[2] - tensors[0]) <= 200
    assert resident[2] - resident[1] < 4 * 2**20
