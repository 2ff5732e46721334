"""The bench: the same work for every contender, lengths that are met exactly, and a file with the figures."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from vllm_stand_in import StandInLLM, use_stand_in

from r1rl.bench import run as command
from r1rl.bench.machine import measured_bandwidth, measured_peak
from r1rl.bench.ours import OurStep
from r1rl.bench.peer import PEERS, TRL_VLLM, ForceLengths, check_mean_lengths, run_trl
from r1rl.bench.recipe import BenchRecipe, ShapeConfig
from r1rl.bench.run import efficiency, figures
from r1rl.bench.workload import (
    Workload,
    forced_lengths,
    make_model,
    make_tokenizer,
    make_workload,
    one_eos,
    prompt_text,
)
from r1rl.config.bundled import bundled_path
from r1rl.config.load import load_recipe
from r1rl.config.schema import UpdateConfig
from r1rl.errors import RecipeError, UserError
from r1rl.memory.plan import plan_memory
from r1rl.memory.work import Work
from r1rl.policy.layout import choose_layout

SHAPE = ShapeConfig(
    architecture="qwen3",
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    intermediate_size=64,
    vocab_size=50,
)


def small(**choices: object) -> BenchRecipe:
    settings = {
        "num_prompts": 3,
        "num_generations": 4,
        "prompt_length_min": 2,
        "prompt_length_max": 6,
        "steps": 2,
        "warmup": 1,
    }
    lengths = {
        "completion_length_mean": 7,
        "completion_length_max": 20,
        "trl_micro_batch": 12,
        "dtype": "float32",
    }
    return BenchRecipe(run_name="bench", shape=SHAPE, **{**settings, **lengths, **choices})


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.mark.parametrize(
    ("count", "mean", "longest"), [(128, 280, 512), (256, 64, 192), (64, 1000, 4096), (12, 7, 20)]
)
def test_lengths_have_their_mean_and_maximum(count, mean, longest):
    lengths = forced_lengths(count, mean, longest, seed=0)
    assert len(lengths) == count
    assert max(lengths) == longest
    assert min(lengths) >= 1
    assert abs(statistics.mean(lengths) - mean) < max(0.02 * mean, longest / count)
    assert lengths == forced_lengths(count, mean, longest, seed=0)
    assert lengths != forced_lengths(count, mean, longest, seed=1)
    assert statistics.median(lengths) < mean or mean > longest / 2  # a long tail


def test_equal_lengths():
    assert forced_lengths(3, 20, 20, seed=0) == [20, 20, 20]


def test_prompts_never_hold_the_end_of_a_completion():
    workload = make_workload(small(), 50)
    assert workload == make_workload(small(), 50)
    assert workload.eos == 49
    assert all(2 <= len(prompt) <= 6 and max(prompt) < 49 for prompt in workload.prompts)
    assert workload.num_tokens == sum(map(sum, workload.lengths))


@pytest.mark.parametrize("recipe", ["tiny.yaml", "qwen2.5-0.5b.yaml"])
def test_a_prompt_s_text_has_its_tokens(recipe):
    bench = load_recipe("bench", bundled_path("recipes") / "bench" / recipe)
    workload = make_workload(bench, bench.shape.vocab_size)
    tokenizer = make_tokenizer(workload.eos + 1)
    assert tokenizer([prompt_text(prompt) for prompt in workload.prompts])["input_ids"] == workload.prompts
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer)] == [
        0,
        workload.eos,
        bench.shape.vocab_size,
    ]


def contender(recipe: BenchRecipe) -> OurStep:
    model = make_model(recipe, torch.device("cpu"))
    workload = make_workload(recipe, 50)
    one_eos(model, workload.eos)
    return OurStep(recipe, workload, model, make_tokenizer(50), Accelerator())


def test_our_completions_have_the_forced_lengths():
    ours = contender(small())
    groups = list(
        ours.engine.generate(ours.workload.prompts, 4, ours.sampling, [1, 2, 3], ours.workload.lengths)
    )
    for group in groups:
        assert [len(completion.token_ids) for completion in group.completions] == ours.workload.lengths[
            group.index
        ]
        assert all(len(completion.logprobs) == len(completion.token_ids) for completion in group.completions)
    seconds = ours.run(0)
    assert seconds["step"] == pytest.approx(seconds["rollout"] + seconds["reward"] + seconds["update"])


@pytest.mark.parametrize(("dtype", "fast"), [("auto", True), ("bfloat16", True), ("float32", False)])
def test_the_memory_is_planned_for_the_precision_of_the_recipe(monkeypatch, dtype, fast):
    """Layers are compiled and logprobs come from a kernel in bfloat16, which `auto` is on a GPU."""
    planned: list[Work] = []

    def plan(shape, launch, work):
        planned.append(work)
        return plan_memory(shape, launch, work)

    monkeypatch.setattr(command, "plan_memory", plan)
    model = make_model(small(), torch.device("cpu"))
    command.planned_memory(
        small(dtype=dtype),
        make_workload(small(), 50),
        model,
        choose_layout(model, UpdateConfig(), torch.float32),
    )
    assert [(work.compiled, work.fused_logits) for work in planned] == [(fast, fast)]


def test_other_lengths_are_noticed():
    ours = contender(small())
    generate = ours.engine.generate
    ours.engine.generate = lambda *arguments: generate(*arguments[:-1], [[5, 5, 5, 5]] * 3)
    with pytest.raises(AssertionError, match="do not have the lengths"):
        ours.run(0)


def test_trl_rows_end_at_their_lengths():
    force = ForceLengths([1, 3], eos=4, prompt_width=2)
    scores = torch.zeros(2, 5)
    allowed = [(force(torch.zeros(2, 2 + done), scores) > -torch.inf).tolist() for done in range(3)]
    never, only = [True, True, True, True, False], [False, False, False, False, True]
    assert [rows[0] for rows in allowed] == [only, never, never]  # after its end a row is padded by generate
    assert [rows[1] for rows in allowed] == [never, never, only]
    assert torch.equal(scores, torch.zeros(2, 5))


def test_efficiency_counts_useful_operations_and_bytes(monkeypatch):
    ours = contender(small())
    monkeypatch.setattr(command, "measured_peak", lambda device, dtype: 1e9)
    monkeypatch.setattr(command, "measured_bandwidth", lambda device: 1e6)
    workload = Workload([[1, 2], [3, 4, 5]], [[1, 2], [3, 1]], 49)
    found = efficiency(ours, workload, {"rollout": 2.0, "update": 0.5, "step": 3.5})
    costs = ours.layout.costs
    operations = costs.sequences(2, [1, 2]) + costs.sequences(3, [3, 1])
    parameters = sum(parameter.numel() for parameter in ours.engine.weights.model.parameters())
    # three tokens at most; a token's keys and values: 2 x 2 layers x 1 head x 16; rows of 1 + 2 tokens after
    # 2, and 3 + 1 after 3
    cached = (1 * 2 + 1) + (2 * 2 + 3) + (3 * 3 + 6) + (1 * 3 + 1)
    assert found["update_flops_utilisation"] == pytest.approx(operations / 0.5 / 1e9)
    assert found["decode_bandwidth_share"] == pytest.approx(
        (3 * parameters * 4 + cached * 64 * 4) / 2.0 / 1e6
    )
    assert found["tokens_per_second"] == pytest.approx(7 / 3.5)


def test_figures_leave_the_warm_up_out():
    steps = [{"rollout": float(n), "reward": 0.0, "update": 1.0, "step": n + 1.0} for n in (9, 1, 2, 6)]
    found = figures(steps[1:])
    assert found["seconds"] == {"rollout": 2.0, "reward": 0.0, "update": 1.0, "step": 3.0}
    assert len(found["steps"]) == 3


def test_bench_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "measured_peak", lambda device, dtype: 1e9)
    monkeypatch.setattr(command, "measured_bandwidth", lambda device: 1e6)
    command.run(small(output_dir=str(tmp_path)), tmp_path / "recipe.yaml")
    result = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert result["completion_tokens"] == make_workload(small(), 50).num_tokens
    assert result["r1rl"]["seconds"]["step"] > 0
    assert len(result["r1rl"]["steps"]) == 2
    assert "trl" not in result
    assert "completion tokens a second" in capsys.readouterr().out
    assert load_recipe("bench", tmp_path / "bench" / "config.yaml") == small(output_dir=str(tmp_path))


class BenchLLM(StandInLLM):
    """A stand-in that loads the model and its tokenizer from the folder that TRL names, as vLLM does.

    Its answers hold padding and ends, and are longer than any length.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.saved = AutoModelForCausalLM.from_pretrained(settings["model"])
        self.tokenizer = AutoTokenizer.from_pretrained(settings["model"])
        self.eos = self.saved.generation_config.eos_token_id
        self.answers = [[5, 0, self.eos, *range(2, 40)], [0, *range(3, 43)]]


@pytest.fixture
def llms(monkeypatch: pytest.MonkeyPatch) -> list[StandInLLM]:
    monkeypatch.setattr(command, "check_vllm", lambda recipe: None)
    return use_stand_in(monkeypatch, BenchLLM)


@pytest.mark.parametrize("peer", PEERS)
def test_bench_beside_trl(
    tmp_path: Path, llms: list[StandInLLM], peer: str, capsys: pytest.CaptureFixture[str]
):
    """TRL's own mean length says that it did the same work; r1rl's steps ran between TRL's."""
    command.run(small(output_dir=str(tmp_path), steps=1), tmp_path / "recipe.yaml", against=peer)
    result = json.loads((tmp_path / "bench" / "bench.json").read_text())
    for phase in ("rollout", "update", "step"):
        assert result["ratio"][phase] == pytest.approx(
            result[peer]["seconds"][phase] / result["r1rl"]["seconds"][phase]
        )
    step = result[peer]["steps"][0]
    assert step["step"] == pytest.approx(step["rollout"] + step["reward"] + step["update"])
    assert [name for name in PEERS if name in result] == [peer]
    assert capsys.readouterr().out.split("seconds")[1].split()[1:6:2] == ["r1rl", peer, "ratio"]
    assert len(llms) == (peer == TRL_VLLM)


def their_steps(peer: str, recipe: BenchRecipe) -> Workload:
    """Return the work that TRL was given."""
    model = make_model(recipe, torch.device("cpu"))
    workload = make_workload(recipe, 50)
    one_eos(model, workload.eos)
    run_trl(peer, recipe, workload, model, make_tokenizer(50), lambda number: None)
    return workload


@pytest.mark.parametrize("peer", PEERS)
def test_trl_trains_the_same_tokens(llms: list[StandInLLM], peer: str, monkeypatch: pytest.MonkeyPatch):
    """Every prompt as it is, every completion as long as asked, also after an end in the midst of vLLM's. TRL
    shuffles a step's rows.
    """
    trained: list[list[int]] = []
    compute_loss = GRPOTrainer._compute_loss

    def recorded(self: Any, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        masks = zip(inputs["prompt_mask"], inputs["completion_mask"], strict=True)
        trained.extend([int(prompt.sum()), int(completion.sum())] for prompt, completion in masks)
        return compute_loss(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", recorded)
    workload = their_steps(peer, small(trl_micro_batch=6))
    asked = [
        [len(prompt), length]
        for prompt, group in zip(workload.prompts, workload.lengths, strict=True)
        for length in group
    ]
    assert [sorted(trained[start : start + 12]) for start in range(0, len(trained), 12)] == [
        sorted(asked)
    ] * 3


def test_vllm_gets_the_model_and_a_length_per_row(llms: list[StandInLLM]):
    recipe = small(trl_vllm_gpu_memory_utilization=0.45, dtype="bfloat16")
    workload = their_steps(TRL_VLLM, recipe)
    (llm,) = llms
    assert llm.settings["gpu_memory_utilization"] == 0.45
    assert llm.settings["max_model_len"] == 6 + 20
    assert llm.settings["max_num_seqs"] == 12
    assert llm.settings["enable_sleep_mode"] is False
    assert llm.saved.dtype is torch.bfloat16
    assert llm.tokenizer("t7 t48")["input_ids"] == [7, 48]
    assert len(llm.asked) == 3
    for prompts, params in llm.asked:
        assert prompts == [prompt for prompt in workload.prompts for _ in range(4)]
        assert [one["max_tokens"] for one in params] == [
            length for group in workload.lengths for length in group
        ]
        assert all(one["ignore_eos"] and one["n"] == 1 and one["temperature"] == 1.0 for one in params)
    saved = dict(llm.saved.named_parameters())
    assert llm.weights.keys() == saved.keys()
    for (
        name,
        value,
    ) in llm.weights.items():  # the rate is 1e-6: three updates change less than bfloat16 resolves
        torch.testing.assert_close(value.to(torch.bfloat16), saved[name], rtol=0.01, atol=1e-4)


def test_without_a_share_it_is_trl_s(tmp_path: Path, llms: list[StandInLLM]):
    their_steps(TRL_VLLM, small(steps=1))
    assert (
        llms[0].settings["gpu_memory_utilization"]
        == GRPOConfig(output_dir=str(tmp_path), use_cpu=True).vllm_gpu_memory_utilization
    )


def test_other_lengths_of_vllm_are_noticed(monkeypatch: pytest.MonkeyPatch):
    class TooShort(BenchLLM):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.answers = [[5, 6, 7]]

    use_stand_in(monkeypatch, TooShort)
    with pytest.raises(AssertionError, match="TRL's completions have mean lengths"):
        their_steps(TRL_VLLM, small(steps=1))


def test_a_log_without_lengths_is_no_evidence():
    workload = make_workload(small(), 50)
    asked = workload.num_tokens / 12
    check_mean_lengths([{"completions/mean_length": asked}, {"train_runtime": 1.0}], workload)
    for log in (
        [],
        [{"train_runtime": 1.0}],
        [{"completions/mean_length": asked}, {"completions/mean_length": asked + 1}],
    ):
        with pytest.raises(AssertionError, match="not the ones that were asked for"):
            check_mean_lengths(log, workload)


def test_vllm_that_does_not_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    class NoMemory(StandInLLM):
        def __init__(self, **settings: Any) -> None:
            raise ValueError("No available memory for the cache blocks.")

    use_stand_in(monkeypatch, NoMemory)
    with pytest.raises(
        UserError,
        match="TRL's trainer does not start with vLLM: ValueError: No available memory for the cache",
    ):
        their_steps(TRL_VLLM, small())


@pytest.mark.parametrize(
    ("installed", "gpu", "dtype", "sentence"),
    [
        (
            None,
            True,
            "auto",
            r"--against trl-vllm needs vLLM, which is not installed: pip install 'r1rl\[vllm\]'",
        ),
        ("here", False, "bfloat16", "--against trl-vllm needs a GPU for vLLM, and torch finds none"),
        ("here", True, "float32", "dtype is float32, but vLLM computes in bfloat16"),
    ],
)
def test_what_vllm_lacks_is_said_before_a_model_is_built(
    installed, gpu, dtype, sentence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: installed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(command, "make_model", lambda *arguments: pytest.fail("a model was built"))
    with pytest.raises(UserError, match=sentence):
        command.run(small(dtype=dtype, output_dir=str(tmp_path)), tmp_path / "recipe.yaml", against=TRL_VLLM)


def test_the_machine_is_measured():
    assert measured_peak(torch.device("cpu"), torch.float32) > 1e8
    assert measured_bandwidth(torch.device("cpu")) > 1e8


def test_unknown_peer_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="--against verl: the bench knows trl and trl-vllm"):
        command.run(small(), tmp_path / "recipe.yaml", against="verl")


def test_lengths_that_contradict_each_other():
    recipe = bundled_path("recipes") / "bench" / "tiny.yaml"
    with pytest.raises(RecipeError, match="prompt_length_min is 18, above prompt_length_max"):
        load_recipe("bench", recipe, ["prompt_length_max=4"])
    with pytest.raises(RecipeError, match="does not divide the batch of 32 x 8"):
        load_recipe("bench", recipe, ["trl_micro_batch=100"])
