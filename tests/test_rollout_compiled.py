"""Compiled decoder layers: one compiled function for all layers and sizes, which does what the layers do, or
isn't taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from recorded_steps import RecordedSteps
from rollout_helpers import PROMPTS, SEEDS, configs, flat, native, run, tiny_model, tokens

from r1rl.compute.graphs import RunAgain
from r1rl.compute.trials import trial_report
from r1rl.objective.sampling import Sampling
from r1rl.rollout import EngineSetup, make_engine
from r1rl.rollout.native.compiled import CompiledStep, LayerCall, find_runs
from r1rl.rollout.native.engine import NativeEngine
from r1rl.rollout.native.method import StepMethod

SAMPLING = Sampling(70, temperature=0.9, eos_token_ids=(4, 50))


class Counted:
    """A compiler that runs the traced operations as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "qwen3" else pytest.mark.slow) for n in sorted(configs())]
)
def test_compiled_layers_draw_the_same_completions(name: str) -> None:
    model, compiler, capture = tiny_model(configs()[name]), Counted(), RecordedSteps()
    engine = native(model, reason="it agrees", compiler=compiler, capture=capture)
    assert (
        engine.reason
        == "it agrees; its decoder layers are compiled; its decode steps are captured and replayed"
    )
    next(engine.generate(PROMPTS, 4, SAMPLING, SEEDS))
    assert not any("forward" in module.__dict__ for module in model.modules()), (
        "between two steps the model is as it was"
    )
    found = flat(run(engine, PROMPTS, 4, SAMPLING, SEEDS))
    expected = flat(run(native(model), PROMPTS, 4, SAMPLING, SEEDS))
    assert [completion.token_ids for completion in found] == [completion.token_ids for completion in expected]
    for mine, plain in zip(found, expected, strict=True):
        assert mine.logprobs == pytest.approx(plain.logprobs, abs=1e-5)
    assert capture.captured >= 4  # 24, 16 and 8 rows, 64 and 128 columns
    # For each kind of layer, of which models have one or two: one graph for fixed sizes, then one as the
    # first of them varies, one as
    # the second does. Not one for each of 3 layers, nor for each of the sizes.
    # Draws, rotary frequencies and the last norm: two or three each, for fixed and for varying numbers of
    # rows.
    assert compiler.graphs <= 3 * (2 if name in ("gemma2", "deepseek_v3") else 1) + 3 * 3


def test_layers_between_which_nothing_happens_run_together() -> None:
    def calls(*changes: int) -> list[LayerCall]:
        """Ten layers; at each of the changes the next ones get another argument."""
        hidden, mask, made = torch.zeros(1), object(), []
        for index in range(10):
            mask = object() if index in changes else mask
            made.append(LayerCall((hidden, mask), {"cache": None}, hidden := torch.zeros(1)))
        return made

    assert find_runs(calls()) == [[0, 1, 2, 3], [], [], [], [4, 5, 6, 7], [], [], [], [8, 9], []]
    assert find_runs(calls(1, 7)) == [[0], [1, 2, 3, 4], [], [], [], [5, 6], [], [7, 8, 9], [], []]
    apart = calls()
    # Something happens between layers 2 and 3.
    apart[3] = replace(apart[3], args=(torch.zeros(1), *apart[3].args[1:]))
    assert find_runs(apart)[:4] == [[0, 1, 2], [], [], [3, 4, 5, 6]]
    in_tuples = [replace(call, output=(call.output,)) for call in calls()]
    assert find_runs(in_tuples) == [[index] for index in range(10)]


def test_a_compiler_that_fails_is_not_used_and_said_why() -> None:
    def broken(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        raise OSError("no compiler on this machine")

    model = tiny_model()
    engine = native(model, reason="it agrees", compiler=broken, capture=RunAgain())
    assert engine.reason == "it agrees; its decode steps are captured and replayed"
    (line,) = trial_report(engine.trials)
    assert line.startswith("The rollout's decoder layers are not compiled: ")
    assert "no compiler on this machine" in line
    assert tokens(run(engine, PROMPTS, 2, SAMPLING, SEEDS)) == tokens(
        run(native(model), PROMPTS, 2, SAMPLING, SEEDS)
    )


def test_a_compiler_that_computes_something_else_is_not_used() -> None:
    def careless(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        return lambda *args: [
            output * 1.5 if output.is_floating_point() else output for output in graph.forward(*args)
        ]

    engine = native(tiny_model(), compiler=careless, capture=RunAgain())
    (line,) = trial_report(engine.trials)
    assert line.startswith(
        "The rollout's decoder layers are not compiled: logits of random tokens in 6 rows "
    )
    assert line.endswith("; a rollout takes about 1.5 times as long.")


def test_nothing_is_compiled_where_steps_are_not_captured() -> None:
    engine = native(tiny_model(), compiler=Counted())
    (line,) = trial_report(engine.trials)
    assert "decoder layers are not compiled: that is for captured steps, on a GPU" in line
    assert engine.allocator.method == StepMethod()


def test_layers_that_cannot_be_told_apart_are_not_compiled() -> None:
    model = tiny_model()
    model.config.num_hidden_layers = 2  # not the length of the list of layers
    with pytest.raises(ValueError, match="not one list of modules"):
        CompiledStep(model, Counted())


def test_the_engine_by_name_takes_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    compilers: list[Any] = []

    def record(self: NativeEngine, *arguments: Any, compiler: Any = None, **rest: Any) -> None:
        self.reason, self.trials = "", []
        compilers.append(compiler)

    monkeypatch.setattr(NativeEngine, "__init__", record)
    for switch in (False, True):
        make_engine("native", EngineSetup(tiny_model(), None, compile_layers=switch))
    assert compilers == [None, "inductor"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2", "gemma2"])
def test_with_torchs_own_compiler(name: str) -> None:
    model = tiny_model(configs()[name])
    engine = native(model, compiler="inductor", capture=RunAgain())
    assert engine.reason.startswith("; its decoder layers are compiled; ")
    assert tokens(run(engine, PROMPTS, 3, SAMPLING, SEEDS)) == tokens(
        run(native(model), PROMPTS, 3, SAMPLING, SEEDS)
    )
