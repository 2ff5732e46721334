"""Captured decode steps: a replay does what the step does, whatever rows come and go. On the CPU, with
recorded operations.
"""

from __future__ import annotations

import itertools
import re
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from recorded_steps import RecordedSteps
from rollout_helpers import PROMPTS, SEEDS, TEXTS, configs, flat, native, run, tiny_model, tokens

from r1rl.compute.graphs import MAX_GRAPHS, CudaCapture, RunAgain, StepGraphs, batch_bucket, width_bucket
from r1rl.compute.trials import trial_report
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native import allocation
from r1rl.rollout.native.rows import Row, RowTensors
from r1rl.types import Completion, FinishReason

MANY = [*PROMPTS, [9] * 20, [33, 34]]
MANY_SEEDS = [*SEEDS, 16, 17]


def outcome(completions: list[Completion]) -> list[tuple[list[int], FinishReason]]:
    return [(completion.token_ids, completion.finish_reason) for completion in completions]


def test_batch_buckets() -> None:
    assert [batch_bucket(rows) for rows in (0, 1, 8, 9, 33, 64, 65, 128, 129, 512)] == [
        0,
        8,
        8,
        16,
        40,
        64,
        80,
        128,
        160,
        512,
    ]
    assert max(batch_bucket(rows) / rows for rows in range(33, 2000)) <= 1.25


def test_width_buckets() -> None:
    assert [width_bucket(columns) for columns in (1, 64, 65, 512, 513, 1024, 1025, 5000)] == [
        64,
        64,
        128,
        512,
        576,
        1024,
        1152,
        5120,
    ]
    assert max(width_bucket(columns) / columns for columns in range(513, 20_000)) <= 1.125


@pytest.mark.parametrize("name", sorted(configs()))
def test_replayed_steps_draw_the_same_completions(name: str) -> None:
    model = tiny_model(configs()[name])
    sampling = Sampling(30, temperature=0.9, eos_token_ids=(4, 50, 60, 70, 80))
    expected = flat(run(native(model), MANY, 3, sampling, MANY_SEEDS))
    capture = RecordedSteps()
    found = flat(run(native(model, capture=capture), MANY, 3, sampling, MANY_SEEDS))
    assert outcome(found) == outcome(expected)
    for mine, plain in zip(found, expected, strict=True):
        assert mine.logprobs == pytest.approx(plain.logprobs, abs=1e-5)
    assert capture.replayed > 4 * capture.captured


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(30, temperature=0.0, eos_token_ids=(4, 50, 60)),
        Sampling(30, top_p=0.9, min_p=0.02, eos_token_ids=(4, 50, 60)),
        Sampling(30, temperature=1.2, top_k=20, repetition_penalty=1.3, eos_token_ids=(4, 50, 60)),
        Sampling(30, stop=(TEXTS[40], TEXTS[41] + TEXTS[3], "answer>")),
        Sampling(1),
        Sampling(70, eos_token_ids=(4,)),
    ],
    ids=["greedy", "top_p", "penalty", "stop", "one", "long"],
)
@pytest.mark.parametrize("arguments", [{"max_rows": 2}, {"max_rows": 12, "look_every": 3}])
def test_replays_with_compaction_and_refill(sampling: Sampling, arguments: dict[str, int]) -> None:
    model = tiny_model()
    expected = flat(run(native(model), MANY, 2, sampling, MANY_SEEDS))
    capture = RecordedSteps()
    found = flat(run(native(model, capture=capture, **arguments), MANY, 2, sampling, MANY_SEEDS))
    assert outcome(found) == outcome(expected)
    assert capture.fault is None


def test_rows_out_of_use_disturb_nobody_and_stay() -> None:
    tensors = RowTensors(8, 5, torch.zeros(20, dtype=torch.bool), keep_seen=False)
    tensors.start(0, [Row(0, g, 4, 5) for g in range(3)], [1, 2, 3], [[7] * 4] * 3)
    tensors.freeze([1])
    logits = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    for _ in range(7):  # two more than the limit
        tensors.draw(slice(0, 8), logits, Sampling(5))
    assert tensors.drawn_R.tolist() == [5, 0, 5, 0, 0, 0, 0, 0]
    # A prompt of 4: the last of 5 tokens belongs in column 8.
    assert tensors.positions_R.tolist() == [
        8,
        3,
        8,
        0,
        0,
        0,
        0,
        0,
    ]
    alone = RowTensors(1, 5, torch.zeros(20, dtype=torch.bool), keep_seen=False)
    alone.start(0, [Row(0, 2, 4, 5)], [3], [[7] * 4])
    for _ in range(5):
        alone.draw(slice(0, 1), logits[2:3], Sampling(5))
    assert tensors.fetch_all([2], 5) == alone.fetch_all([0], 5)


def test_steps_are_captured_once_for_all_rollouts() -> None:
    capture = RecordedSteps()
    model = tiny_model()
    engine = native(model, capture=capture)
    sampling = Sampling(20, eos_token_ids=(4, 50))
    run(engine, PROMPTS, 3, sampling, SEEDS)
    before = capture.captured
    shuffled = PROMPTS[::-1]
    found = run(engine, shuffled, 3, sampling, SEEDS)
    assert capture.captured == before
    assert tokens(found) == tokens(run(native(model), shuffled, 3, sampling, SEEDS))
    other = Sampling(20, temperature=0.7, eos_token_ids=(4, 50))  # another law is another step
    assert tokens(run(engine, PROMPTS, 3, other, SEEDS)) == tokens(
        run(native(model), PROMPTS, 3, other, SEEDS)
    )
    assert capture.captured > before


def test_longer_prompts_get_a_larger_workspace() -> None:
    model, capture = tiny_model(), RecordedSteps()
    engine = native(model, capture=capture)
    sampling = Sampling(20, eos_token_ids=(4, 50))
    run(engine, [[3]], 2, sampling, [1])
    before = capture.captured
    long = [[5, 6] * 30, [7]]
    assert tokens(run(engine, long, 2, sampling, [1, 2])) == tokens(
        run(native(model), long, 2, sampling, [1, 2])
    )
    assert capture.captured > before


def test_a_large_workspace_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "KEEP_SHARE", 0.0)
    capture = RecordedSteps()
    engine = native(tiny_model(), capture=capture)
    sampling = Sampling(10)
    first = tokens(run(engine, PROMPTS, 3, sampling, SEEDS))
    before = capture.captured
    assert tokens(run(engine, PROMPTS, 3, sampling, SEEDS)) == first
    assert capture.captured > before


def test_updated_weights_are_read() -> None:
    """The optimizer changes weights in place; captured steps must follow, also when the parameters themselves
    are replaced.
    """
    model, other = tiny_model(), tiny_model(seed=1)
    engine = native(model, capture=RecordedSteps())
    sampling = Sampling(20, eos_token_ids=(4, 50))
    run(engine, PROMPTS, 2, sampling, SEEDS)
    expected = tokens(run(native(other), PROMPTS, 2, sampling, SEEDS))
    with torch.no_grad():
        for mine, new in zip(model.parameters(), other.parameters(), strict=True):
            mine.copy_(new)
    assert tokens(run(engine, PROMPTS, 2, sampling, SEEDS)) == expected
    model.load_state_dict(tiny_model().state_dict())
    run(engine, PROMPTS, 2, sampling, SEEDS)
    model.load_state_dict({name: value.clone() for name, value in other.state_dict().items()}, assign=True)
    model.tie_weights()
    assert tokens(run(engine, PROMPTS, 2, sampling, SEEDS)) == expected


def test_two_rollouts_at_a_time_and_one_abandoned() -> None:
    model = tiny_model()
    engine = native(model, capture=RecordedSteps(), look_every=2)
    sampling = Sampling(20, eos_token_ids=(4, 50))
    expected = tokens(run(native(model), PROMPTS, 2, sampling, SEEDS))
    run(engine, PROMPTS, 2, sampling, SEEDS)
    next(engine.generate(PROMPTS, 2, sampling, SEEDS))
    streams = [engine.generate(PROMPTS, 2, sampling, SEEDS) for _ in range(2)]
    for turn in itertools.zip_longest(*streams):
        assert all(
            [completion.token_ids for completion in group.completions] == expected[group.index]
            for group in turn
        )


def test_oldest_capture_makes_room() -> None:
    runs: list[int] = []
    graphs = StepGraphs(RunAgain())
    for key in range(MAX_GRAPHS + 1):
        graphs.run(key, lambda key=key: runs.append(key))
    graphs.run(MAX_GRAPHS, lambda: runs.append(-1))  # captured: does what it did, not what is handed over now
    graphs.run(0, lambda: runs.append(-2))  # forgotten
    assert runs == [*range(MAX_GRAPHS + 1), MAX_GRAPHS, -2]


# What can't be captured


def with_hook(hook: Any) -> Any:
    """Return a model whose rotary embedding has a forward hook."""
    model = tiny_model()
    model.model.rotary_emb.register_forward_hook(hook)
    return model


def test_a_model_that_waits_for_values_decodes_uncaptured_and_says_why() -> None:
    def look_at_value(
        module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]
    ) -> None:
        assert float(output[0].sum()) < 1e9

    model = with_hook(look_at_value)
    capture = RecordedSteps()
    engine = native(model, reason="it agrees", capture=capture)
    assert engine.reason == "it agrees"
    assert trial_report(engine.trials) == [
        f"Decode steps are not captured: {capture.fault}; a rollout takes about 4 times as long."
    ]
    assert capture.fault in ("item can't be captured", "_local_scalar_dense can't be captured")
    assert engine.allocator.method.capture is None
    sampling = Sampling(12, eos_token_ids=(4, 50))
    assert tokens(run(engine, PROMPTS, 2, sampling, SEEDS)) == tokens(
        run(native(tiny_model()), PROMPTS, 2, sampling, SEEDS)
    )


def test_a_step_that_depends_on_the_host_is_found() -> None:
    """A model that counts its own forwards in Python: recorded once, the count would stand still."""
    calls = itertools.count()

    def turn(
        module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]
    ) -> Any:
        # In the trial's batch of 8 alone, not in the self-check.
        angle = next(calls) % 2 * 3.0 if inputs[0].shape[0] == 8 else 0.0
        return output[0] * (1.0 - angle), output[1]

    engine = native(with_hook(turn), capture=RecordedSteps())
    (line,) = trial_report(engine.trials)
    assert re.match("Decode steps are not captured: (other tokens are drawn|log-probabilities differ)", line)
    assert engine.allocator.method.capture is None


def test_a_capture_that_fails_costs_speed_alone() -> None:
    class Broken:
        fault = None

        def __call__(self, step: Any) -> Any:
            raise OSError("driver too old")

    model = tiny_model()
    engine = native(model, capture=Broken())
    (line,) = trial_report(engine.trials)
    assert line.startswith("Decode steps are not captured: OSError: driver too old; ")
    assert tokens(run(engine, PROMPTS, 2, Sampling(8), SEEDS)) == tokens(
        run(native(model), PROMPTS, 2, Sampling(8), SEEDS)
    )


class Graphs:
    """A stand-in for torch's CUDA graphs.

    Their pool is given up with the last of them, and then captures nothing more.
    """

    def __init__(self) -> None:
        self.users: dict[int, int] = {}
        self.handles = itertools.count()

    def make(self) -> Graph:
        return Graph(self)


class Graph:
    def __init__(self, graphs: Graphs) -> None:
        self.graphs = graphs
        self.handle = -1
        self.replays = 0

    def capture_begin(self, pool: int, capture_error_mode: str) -> None:
        if self.graphs.users.get(pool) == 0:
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        self.handle = pool
        self.graphs.users[pool] = self.graphs.users.get(pool, 0) + 1

    def capture_end(self) -> None:
        pass

    def pool(self) -> int:
        return self.handle

    def replay(self) -> None:
        self.replays += 1

    def __del__(self) -> None:
        if self.handle != -1:
            self.graphs.users[self.handle] -= 1


def test_a_pool_goes_with_its_last_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace that gives way to another takes its captured steps along; those of the next are captured
    all the same.
    """
    graphs = Graphs()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graphs.make)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(graphs.handles))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    capture = CudaCapture(torch.device("cuda"))
    for _ in range(3):
        steps = StepGraphs(capture)
        for key in range(4):
            for _ in range(2):
                steps.run(key, lambda: None)
    assert capture.fault is None
    assert [graph.replays for graph in capture.graphs] == [1] * 4
    assert list(graphs.users.values()) == [0, 0, 4], "the graphs of a workspace share one pool"


class Stream:
    def wait_stream(self, other: Stream) -> None:
        pass


def test_captured_steps_are_named_in_the_reason() -> None:
    assert native(tiny_model(), capture=RecordedSteps()).reason.endswith(
        "its decode steps are captured and replayed"
    )
    assert native(tiny_model(), reason="it agrees").reason == "it agrees"
