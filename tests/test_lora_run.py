"""Whole runs of `r1rl grpo` that train adapters: what they leave, resume, reference, evaluation, and what is
refused.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from config_helpers import MINIMAL, message
from run_helpers import newest, prepare, start_two, train, untimed
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from r1rl.cli.main import main
from r1rl.config.load import load_recipe
from r1rl.config.schema import ModelConfig
from r1rl.errors import RecipeError, UserError
from r1rl.grpo import setup
from r1rl.grpo.preflight import check_processes
from r1rl.runs.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("on_the_cpu")

LORA = "model.lora={rank: 4, alpha: 8}"
SCALE = 8 / 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("lora"))


def adapter(directory: RunDirectory) -> dict[str, torch.Tensor]:
    return load_file(newest(directory) / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def finished(folder: Path) -> RunDirectory:
    """Train an uninterrupted run of four steps, with the KL term."""
    return train(folder, "run_name=uninterrupted", LORA, "algorithm.beta=0.1", "evaluation.every_steps=2")


def test_a_checkpoint_is_an_adapter_that_was_trained(folder: Path, finished: RunDirectory) -> None:
    checkpoint = newest(finished)
    assert {path.name for path in checkpoint.glob("*.safetensors")} == {"adapter_model.safetensors"}
    config = json.loads((checkpoint / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == (
        "LORA",
        4,
        8,
        0.0,
    )
    assert config["base_model_name_or_path"] == str(folder / "policy")
    assert config["target_modules"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    weights = adapter(finished)
    assert len(weights) == 2 * 7 * 2  # layers, matrices of a layer, A and B
    assert all(tensor.dtype is torch.float32 and bool(tensor.any()) for tensor in weights.values())
    moments = torch.load(checkpoint / "training" / "optimizer.pt", weights_only=True)["optimizer"]["state"]
    assert sorted(moment["exp_avg"].shape for moment in moments.values()) == sorted(
        tensor.shape for tensor in weights.values()
    )


def test_peft_loads_a_checkpoint_and_gives_what_the_run_sampled_from(
    folder: Path, finished: RunDirectory
) -> None:
    from peft import AutoPeftModelForCausalLM

    loaded = AutoPeftModelForCausalLM.from_pretrained(newest(finished))
    dense = AutoModelForCausalLM.from_pretrained(folder / "policy")
    weights = adapter(finished)
    for name, parameter in dense.named_parameters():
        a, b = (
            weights.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight")
            for side in "AB"
        )
        if a is not None and b is not None:
            parameter.data += SCALE * b @ a
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits, dense(input_ids=ids).logits, atol=1e-5)


def test_resumed_run_equals_the_uninterrupted_one(folder: Path, finished: RunDirectory) -> None:
    settings = (LORA, "algorithm.beta=0.1", "evaluation.every_steps=2", "run_name=resumed")
    train(folder, *settings, "max_steps=3")
    directory = train(folder, *settings, "max_steps=4", resume="latest")
    assert untimed(directory) == untimed(finished)
    found, expected = adapter(directory), adapter(finished)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_divergence_is_that_from_the_base_model(finished: RunDirectory) -> None:
    """At first the policy is its own reference; afterwards it is not."""
    divergences = [record["kl"] for record in finished.read_metrics()]
    assert divergences[0] == pytest.approx(0.0, abs=1e-6)
    assert all(value > 1e-4 for value in divergences[1:])


def test_held_out_problems_are_answered_by_the_adapted_policy(finished: RunDirectory) -> None:
    before, after = (
        json.loads((finished.evaluations / f"{name}.json").read_text())["problems"]
        for name in ("before", "after")
    )
    assert before != after
    assert json.loads(finished.summary_path.read_text())["evaluations"].keys() == {
        "before",
        "step-000002",
        "after",
    }


def test_several_optimizer_steps_a_rollout_and_the_reference_engine(folder: Path) -> None:
    settings = (
        LORA,
        "max_steps=2",
        "evaluation.data=null",
        "algorithm.num_minibatches=2",
        "algorithm.num_iterations=2",
    )
    native = train(folder, *settings, "run_name=native", "rollout.engine=native")
    reference = train(folder, *settings, "run_name=transformers", "rollout.engine=transformers")
    for one, other in zip(untimed(native), untimed(reference), strict=True):
        assert one == pytest.approx(other, rel=0, abs=1e-4)


def reset_accelerate() -> None:
    """Make accelerate forget the precision of the first run of a process."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def test_bfloat16_keeps_frozen_weights_in_bfloat16(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[Any]] = {}
    reset_accelerate()

    def watch(module: torch.nn.Module, config: Any) -> torch.optim.AdamW:
        seen["frozen"] = {parameter.dtype for parameter in module.parameters() if not parameter.requires_grad}
        seen["trained"] = {parameter.dtype for parameter in module.parameters() if parameter.requires_grad}
        return make_optimizer(module, config)

    make_optimizer = setup.make_optimizer
    monkeypatch.setattr(setup, "make_optimizer", watch)
    settings = (
        "model.dtype=bfloat16",
        "max_steps=2",
        "evaluation.data=null",
        "algorithm.beta=0.1",
        "model.gradient_checkpointing=true",
    )
    try:
        directory = train(folder, LORA, *settings, "run_name=bfloat16")
    finally:
        reset_accelerate()
    assert seen == {"frozen": {torch.bfloat16}, "trained": {torch.float32}}
    assert all(tensor.dtype is torch.float32 and bool(tensor.any()) for tensor in adapter(directory).values())
    assert len(directory.read_metrics()) == 2


def test_two_processes_equal_one(folder: Path, finished: RunDirectory) -> None:
    directory = start_two(
        "grpo", folder / "recipe.yaml", LORA, "algorithm.beta=0.1", "evaluation.every_steps=2", "run_name=two"
    )
    for one, two in zip(untimed(finished), untimed(directory), strict=True):
        assert one == pytest.approx(two, rel=0, abs=1e-4)


EVALUATION = """
run_name: score
output_dir: {folder}/scores
models: [{{name: base, path: {folder}/policy}}, {{name: trained, path: {run}, every_step: true}}]
benchmarks: [arithmetic]
num_problems: 4
num_samples: 2
max_completion_length: 12
prompt: {{template: plain}}
"""


def test_evaluate_finds_the_adapters_of_a_run(
    folder: Path, finished: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = folder / "evaluate.yaml"
    recipe.write_text(EVALUATION.format(folder=folder, run=finished.path))
    assert main(["evaluate", str(recipe)]) == 0, capsys.readouterr().err
    manifests = [json.loads(path.read_text()) for path in sorted((folder / "scores").rglob("manifest.json"))]
    found = {manifest["model"]["label"]: manifest["model"] for manifest in manifests}
    assert {"base", "trained-step-000000", "trained-step-000002", "trained-step-000004"} == found.keys()
    assert (
        found["trained-step-000000"]["weights"]
        == found["base"]["weights"]
        == found["trained-step-000004"]["base"]["weights"]
    )
    assert found["trained-step-000002"]["weights"] != found["trained-step-000004"]["weights"]


# what is refused


def test_resume_with_another_kind_of_recipe(folder: Path, finished: RunDirectory) -> None:
    with pytest.raises(
        UserError,
        match=r"holds an adapter: go on with the recipe that the run began with, which has model.lora\.",
    ):
        train(folder, "run_name=uninterrupted", "max_steps=9", resume="latest")
    whole = train(folder, "run_name=whole", "max_steps=1", "evaluation.data=null")
    with pytest.raises(
        UserError, match=r"holds no adapter, but the recipe has model.lora: go on with the recipe"
    ):
        train(folder, "run_name=whole", "max_steps=2", LORA, resume=str(newest(whole)))


def test_an_adapter_is_no_model_to_start_from(folder: Path, finished: RunDirectory) -> None:
    with pytest.raises(
        RecipeError,
        match=r"model.path: .* holds a PEFT adapter and no whole model: merge it into its model first",
    ):
        train(folder, "run_name=second", f"model.path={finished.path}")


def test_transformers_loading_an_adapter_onto_its_model_is_noticed(finished: RunDirectory) -> None:
    """An adapter's hub name makes transformers do so, and no check before knows it."""
    with pytest.raises(
        UserError,
        match=r"model.path: .* holds a PEFT adapter and no whole model: merge it into its model first",
    ):
        setup.load_policy(ModelConfig(path=str(newest(finished))))


def test_without_peft(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error comes before a model is loaded, and from `check` too."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "peft" else found(name, *rest)
    )
    monkeypatch.setattr(setup, "load_policy", lambda *_, **__: pytest.fail("the model was loaded"))
    for command in ("grpo", "check"):
        assert main([command, str(folder / "recipe.yaml"), LORA, "run_name=without"]) == 2
        sentence = (
            "model.lora trains adapters through peft, which is not installed: pip install 'r1rl[peft]', or "
            "leave it out."
        )
        assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (folder / "runs" / "without").exists()


def test_vllm_and_sharding_are_refused(folder: Path, tmp_path: Path) -> None:
    sentence = (
        "rollout.engine is vllm, which is sent whole weights and would not see the adapters of model.lora: "
        "write engine: auto"
    )
    assert sentence in message(tmp_path / "recipe.yaml", MINIMAL, "model.lora={}", "rollout.engine=vllm")
    recipe = load_recipe("grpo", folder / "recipe.yaml", [LORA])
    check_processes(recipe, 1, sharded=False)
    with pytest.raises(
        UserError,
        match=r"model.lora trains adapters of a whole model in each process, but this launch shards it",
    ):
        check_processes(recipe, 1, sharded=True)


def test_check_counts_adapters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder / "recipe.yaml"), LORA]) == 0
    shown = capsys.readouterr().out
    assert "frozen; adapters of rank 4, scale 2, on all linear layers of the decoder" in shown
    assert "frozen weights" in shown
    assert "master weights" not in shown
