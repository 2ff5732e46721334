"""Trials of the native engine: an error planted in any of its parts is found, in float32 and in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from recorded_steps import RecordedSteps
from rollout_helpers import configs, native, tiny_model, tokenizer
from torch import Tensor, nn

from r1rl.attention.plans import Scoring
from r1rl.attention.rollout import DecodePlan
from r1rl.compute.trials import trial_report
from r1rl.rollout.native import trial as module
from r1rl.rollout.native.compiled import CompiledStep
from r1rl.rollout.native.fused import LinearPart, Together
from r1rl.rollout.native.method import StepMethod
from r1rl.rollout.native.split import SplitLinear
from r1rl.rollout.native.trial import (
    ATTENTION,
    COMPILED,
    DRAWS,
    UnsupportedModel,
    check_model,
    join_projections,
    try_part,
)
from r1rl.rollout.native.trial_logits import LogitTrial
from r1rl.rollout.sampler import TORCH_OPS
from r1rl.rollout.weights import RolloutWeights

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
METHOD = StepMethod()


def logit_trial(dtype: torch.dtype, name: str = "qwen2") -> LogitTrial:
    """Make a trial of a copy of a model with random biases, with text."""
    model = tiny_model(configs()[name])
    for part_name, parameter in model.named_parameters():
        if part_name.endswith("bias"):
            nn.init.normal_(parameter)
    return check_model(RolloutWeights(model, dtype, own_copy=True), tokenizer(), thorough=True)[0]


class Kernel:
    """An attention kernel in torch's operations, with an error of the caller's choice."""

    def __init__(self, spoil: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.spoil = spoil

    def splits(self, programs: int, columns: int) -> int:
        return 1

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        arrived: tuple[Tensor, Tensor] | None,
        positions_R: Tensor,
        scoring: Scoring,
        splits: int,
    ) -> Tensor:
        call = {"query": query, "key": key, "value": value, "positions": positions_R, "scoring": scoring}
        if self.spoil is not None:
            self.spoil(call)
        plan = DecodePlan(call["positions"], key.shape[2])
        rows = query.shape[0]
        return plan.attend(call["query"], call["key"][:rows], call["value"][:rows], call["scoring"])


def miss_the_new_token(call: dict[str, Any]) -> None:
    call["positions"] = (call["positions"] - 1).clamp(min=0)


def see_a_stale_column(call: dict[str, Any]) -> None:
    call["positions"] = (call["positions"] + 1).clamp(max=call["key"].shape[2] - 1)


def forget_the_window(call: dict[str, Any]) -> None:
    call["scoring"] = call["scoring"]._replace(window=None)


def scale_otherwise(call: dict[str, Any]) -> None:
    call["scoring"] = call["scoring"]._replace(scaling=call["scoring"].scaling * 1.2)


def swap_heads(call: dict[str, Any]) -> None:
    call["key"] = call["key"].flip(1)


@BOTH
def test_a_right_kernel_is_taken(dtype: torch.dtype) -> None:
    method, trial = try_part(
        logit_trial(dtype), ATTENTION, METHOD, lambda _, plainer: replace(plainer, kernel=Kernel())
    )
    assert trial.accepted, trial.line
    assert method.kernel is not None
    assert [comparison.quantity for comparison in trial.comparisons] == [
        f"logits of {tokens}" for tokens in ("random tokens in 6 rows", "random tokens in 40 rows", "text")
    ]
    assert all((comparison.plain == 0) == (dtype is torch.float32) for comparison in trial.comparisons)


@BOTH
@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("qwen2", miss_the_new_token),
        ("qwen2", see_a_stale_column),
        ("mistral", forget_the_window),
        ("qwen2", scale_otherwise),
        ("llama", swap_heads),
    ],
)
def test_a_wrong_kernel_is_refused(
    name: str, spoil: Callable[[dict[str, Any]], None], dtype: torch.dtype
) -> None:
    method, trial = try_part(
        logit_trial(dtype, name), ATTENTION, METHOD, lambda _, plainer: replace(plainer, kernel=Kernel(spoil))
    )
    assert not trial.accepted
    assert method == METHOD
    (line,) = trial_report([trial])
    assert line.startswith("The rollout's attention is torch's: logits of ")
    assert line.endswith("; a rollout takes about 1.2 times as long.")


@BOTH
def test_draws_by_another_temperature_are_refused(dtype: torch.dtype) -> None:
    def sums(logits_BV: Tensor, temperature: float, width: int) -> tuple[Tensor, Tensor]:
        return TORCH_OPS.sum_blocks(logits_BV, temperature * 1.1, width)

    for ops, accepted in ((TORCH_OPS, True), (replace(TORCH_OPS, sum_blocks=sums), False)):
        _, trial = try_part(
            logit_trial(dtype), DRAWS, METHOD, lambda _, plain, ops=ops: replace(plain, ops=ops)
        )
        assert trial.accepted is accepted, trial.line
    assert trial.line.startswith("torch draws the tokens: ")


@BOTH
def test_a_compiler_that_drops_a_bias_is_refused(dtype: torch.dtype) -> None:
    def compiler(drops: bool) -> Callable[[torch.fx.GraphModule, Any], Callable[..., Any]]:
        def compile_graph(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
            biased = [
                node for node in graph.graph.nodes if "linear" in str(node.target) and len(node.args) == 3
            ]
            if drops and biased:
                biased[0].args = (*biased[0].args[:2], None)
                graph.recompile()
            return graph.forward

        return compile_graph

    torch._dynamo.reset()
    logits = logit_trial(dtype)
    for drops in (False, True):
        _, trial = try_part(
            logits,
            COMPILED,
            METHOD,
            lambda _, plain, drops=drops: replace(
                plain, compiled=CompiledStep(logits.weights.model, compiler(drops))
            ),
        )
        assert trial.accepted is not drops, trial.line


@BOTH
@pytest.mark.parametrize("planted", ["", "bias", "order"])
def test_joined_projections_are_separated_if_they_compute_something_else(
    monkeypatch: pytest.MonkeyPatch, planted: str, dtype: torch.dtype
) -> None:
    logits = logit_trial(dtype)
    model = logits.weights.model
    if planted:
        made = Together.__init__

        def spoiled(self: Together, weight: Tensor, bias: Tensor | None, sizes: list[int]) -> None:
            made(
                self,
                weight.flip(0) if planted == "order" else weight,
                None if planted == "bias" else bias,
                sizes,
            )

        monkeypatch.setattr(Together, "__init__", spoiled)
    trial = join_projections(logits, tiny_model(), split=True)
    assert trial.accepted is (planted == ""), trial.line
    kinds = {type(one) for one in model.modules() if isinstance(one, nn.Linear)}
    assert (kinds == {nn.Linear}) == bool(planted)
    assert kinds <= {nn.Linear, LinearPart, SplitLinear}
    if planted:
        assert trial.line.startswith("The rollout's projections are not joined: logits of random tokens")
        (again,) = {one.accepted for one in logits.compare(METHOD)}
        assert again, "the layers are as they were"


def doubled_positions(module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> Any:
    """Rotate as if the token of a decode step stood elsewhere; leave longer inputs alone."""
    return tuple(part.flip(-1) for part in output) if inputs[1].shape[1] == 1 else None


@BOTH
def test_a_model_whose_decode_step_differs_is_not_run(dtype: torch.dtype) -> None:
    model = tiny_model()
    model.model.rotary_emb.register_forward_hook(doubled_positions)
    with pytest.raises(UnsupportedModel, match="logits of random tokens in 6 rows") as caught:
        check_model(RolloutWeights(model, dtype, own_copy=True), tokenizer(), thorough=False)
    assert not caught.value.trial.accepted


@BOTH
@pytest.mark.parametrize("name", sorted(configs()))
def test_the_plain_engine_is_as_near_to_float32_as_the_models_own_forward(
    name: str, dtype: torch.dtype
) -> None:
    logits, trial = check_model(
        RolloutWeights(tiny_model(configs()[name]), dtype, own_copy=True), tokenizer(), thorough=True
    )
    assert trial.accepted
    assert len(trial.comparisons) == 3
    assert trial.comparisons == check_model(logits.weights, tokenizer(), thorough=True)[1].comparisons


def test_stale_captures_are_refused_in_bfloat16_too() -> None:
    """A replay that reads what it read when it was recorded: here, it does nothing."""

    class Stale(RecordedSteps):
        def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
            step()
            return lambda: None

    for dtype in (torch.float32, torch.bfloat16):
        engine = native(tiny_model(), dtype=dtype, capture=Stale())
        (line,) = trial_report(engine.trials)
        assert line.startswith("Decode steps are not captured: ")
        assert engine.allocator.method.capture is None


def test_an_engine_keeps_the_records_of_all_its_trials() -> None:
    engine = native(tiny_model(), capture=RecordedSteps())
    assert [(trial.part, trial.accepted) for trial in engine.trials] == [
        ("native engine", True),
        ("captured decode steps", True),
    ]
    assert module.TAKEN.keys() == {"compiled decoder layers", "captured decode steps"}
