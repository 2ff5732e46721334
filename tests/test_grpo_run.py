"""Whole GRPO runs of a tiny random policy: what they leave, resume, processes, every part of the objective in
action.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import final_weights, prepare, start_two, train, untimed
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1rl.cli.main import main
from r1rl.compute.accelerator import use_growing_segments
from r1rl.config.load import load_recipe
from r1rl.config.schema import ModelConfig
from r1rl.errors import UserError
from r1rl.grpo.run import GRPORun
from r1rl.grpo.trainer import GRPOTrainer, StepResult
from r1rl.models.checkpoint_folders import find_checkpoint
from r1rl.models.loading import load_policy
from r1rl.policy.copies import frozen_copy
from r1rl.runs.run_directory import RunDirectory
from r1rl.runs.start import choose_directory

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("grpo"))


@pytest.fixture(scope="module")
def finished(folder: Path) -> RunDirectory:
    """Train an uninterrupted run of four steps."""
    return train(folder, "run_name=uninterrupted")


def test_run_directory_holds_everything(finished: RunDirectory) -> None:
    left = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if path.is_file()}
    expected = {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "summary.json",
        "curves.png",
        "evaluations/before.json",
        "evaluations/after.json",
    }
    assert expected | {"completions/step-000002.jsonl", "completions/step-000004.jsonl"} <= left
    assert [path.name for path in sorted(finished.checkpoints.iterdir())] == ["step-000002", "step-000004"]
    rows = [
        json.loads(line) for line in (finished.completions / "step-000004.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 16
    assert all(row["rewards"].keys() == {"lowercase", "countdown"} for row in rows)
    for slot in range(4):  # advantages of a group are centred
        assert abs(sum(row["advantage"] for row in rows if row["slot"] == slot)) < 1e-9


def test_summary_has_the_promised_figures(finished: RunDirectory) -> None:
    summary = json.loads(finished.summary_path.read_text())
    for moment in ("before", "after"):
        low, high = summary[f"accuracy_{moment}"]["ci95"]
        assert low <= summary[f"accuracy_{moment}"]["value"] <= high
        assert 1 <= summary[f"mean_length_{moment}"] <= 12
        assert 0 <= summary[f"reflection_{moment}"] <= 1
        assert summary["evaluations"][moment]["num_problems"] == 6


def test_trials_of_fast_ways_are_written_down(finished: RunDirectory) -> None:
    trials = json.loads(finished.environment_path.read_text())["trials"]
    assert [(trial["part"], trial["accepted"]) for trial in trials] == [
        ("packed sequences", True),
        ("native engine", True),
        ("logits of the policy's head", True),
    ]
    quantities = [comparison["quantity"] for comparison in trials[0]["comparisons"]]
    assert quantities[:2] == ["hidden states of random tokens", "gradients of random tokens"]
    assert all(0 <= one["fast"] < 1e-5 and one["plain"] == 0 for one in trials[0]["comparisons"])
    assert json.loads(finished.summary_path.read_text())["refused"] == []


def test_checkpoint_loads_as_a_plain_model_and_was_trained(folder: Path, finished: RunDirectory) -> None:
    before = AutoModelForCausalLM.from_pretrained(folder / "policy").state_dict()
    after = final_weights(finished)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert AutoTokenizer.from_pretrained(find_checkpoint(finished.checkpoints)).eos_token == "<eos>"


def test_a_run_starts_from_another_run_and_writes_down_from_which_checkpoint(
    folder: Path, finished: RunDirectory
) -> None:
    settings = ("run_name=second", "max_steps=1", "evaluation.data=null", "optimizer.learning_rate=1e-12")
    directory = train(folder, f"model.path={finished.path}", *settings)
    newest = find_checkpoint(finished.checkpoints)
    assert load_recipe("grpo", directory.config_path).model.path == str(newest)
    first, second = final_weights(finished), final_weights(directory)
    assert all(torch.allclose(first[name], second[name], atol=1e-7) for name in first)


def test_same_recipe_gives_the_same_run(folder: Path, finished: RunDirectory) -> None:
    again = train(folder, "run_name=again")
    assert untimed(again) == untimed(finished)


def test_resumed_run_equals_the_uninterrupted_one(folder: Path, finished: RunDirectory) -> None:
    train(folder, "run_name=resumed", "max_steps=2")
    directory = train(folder, "run_name=resumed", "max_steps=4", resume="latest")
    assert untimed(directory) == untimed(finished)
    weights, expected = final_weights(directory), final_weights(finished)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_going_back_to_an_earlier_checkpoint_sets_later_ones_aside(
    folder: Path, finished: RunDirectory
) -> None:
    directory = train(folder, "run_name=back", "checkpoint.keep=0")
    recipe = load_recipe("grpo", folder / "recipe.yaml", ["run_name=back", "max_steps=5"])
    path, checkpoint = choose_directory(recipe, str(directory.checkpoints / "step-000002"), sharded=False)
    assert (path, checkpoint) == (directory.path, directory.checkpoints / "step-000002")
    assert [record["step"] for record in directory.read_metrics()] == [1, 2]
    assert (directory.checkpoints / "step-000004.set-aside").is_dir()
    assert find_checkpoint(directory.checkpoints) == directory.checkpoints / "step-000002"


def test_finished_run_is_not_resumed(folder: Path, finished: RunDirectory) -> None:
    with pytest.raises(UserError, match=r"has done its 4 steps.*raise max_steps"):
        train(folder, "run_name=uninterrupted", resume="latest")


def test_resume_without_a_run_says_so(folder: Path) -> None:
    with pytest.raises(UserError, match="no run named never"):
        train(folder, "run_name=never", resume="latest")


def test_two_processes_equal_one(folder: Path, finished: RunDirectory) -> None:
    """Two processes of accelerate's CPU launcher have the completions, gradients and metrics of one."""
    directory = start_two("grpo", folder / "recipe.yaml", "run_name=two")
    for one, two in zip(untimed(finished), untimed(directory), strict=True):
        assert one == pytest.approx(two, rel=0, abs=1e-4)


def test_interrupt_saves_and_the_run_goes_on(folder: Path, finished: RunDirectory) -> None:
    command = [
        sys.executable,
        "-m",
        "r1rl",
        "grpo",
        str(folder / "recipe.yaml"),
        "run_name=interrupted",
        "max_steps=100000",
        "checkpoint.every_steps=0",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    metrics = folder / "runs" / "interrupted" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "everything is saved" in output
    directory = RunDirectory(metrics.parent)
    stopped_after = directory.read_metrics()[-1]["step"]
    assert find_checkpoint(directory.checkpoints) == directory.checkpoints / f"step-{stopped_after:06d}"
    train(folder, "run_name=interrupted", f"max_steps={stopped_after + 1}", resume="latest")
    common = slice(0, min(4, stopped_after + 1))
    assert untimed(directory)[common] == untimed(finished)[common]


def test_interrupt_of_two_processes_saves(folder: Path) -> None:
    """The process that started the others passes the signal on and waits until they have saved."""
    start = "import sys; from r1rl.cli.launch import start_processes; start_processes(2, sys.argv[1:])"
    overrides = [
        "run_name=two-interrupted",
        "max_steps=5000",
        "checkpoint.every_steps=0",
        "evaluation.data=null",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    with (folder / "two-interrupted.log").open("w") as log:
        command = [sys.executable, "-c", start, "grpo", str(folder / "recipe.yaml"), *overrides]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    directory = RunDirectory(folder / "runs" / "two-interrupted")
    deadline = time.monotonic() + 120
    while not directory.read_metrics() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    # KeyboardInterrupt, for which the command line ends with 130.
    assert process.wait(timeout=60) == -signal.SIGINT
    stopped_after = directory.read_metrics()[-1]["step"]
    assert find_checkpoint(directory.checkpoints) == directory.checkpoints / f"step-{stopped_after:06d}"


def test_interrupt_in_the_last_step_leaves_the_evaluation_for_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step_and_press_ctrl_c(trainer: GRPOTrainer) -> StepResult:
        signal.raise_signal(signal.SIGINT)
        return one_step(trainer)

    one_step = GRPOTrainer.step
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GRPOTrainer, "step", step_and_press_ctrl_c)
        train(folder, "run_name=last", "max_steps=1")
    directory = RunDirectory(folder / "runs" / "last")
    assert not directory.summary_path.exists()
    train(folder, "run_name=last", "max_steps=1", resume="latest")
    assert json.loads(directory.summary_path.read_text())["evaluations"].keys() == {"before", "after"}


def test_run_killed_after_its_last_checkpoint_is_summed_up_on_resume(folder: Path) -> None:
    """The run is summed up even if an earlier, shorter leg of it was summed up already."""
    directory = train(folder, "run_name=killed", "max_steps=1", "evaluation.data=null")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(GRPORun, "_finish", _die)
        train(folder, "run_name=killed", "max_steps=2", "evaluation.data=null", resume="latest")
    train(folder, "run_name=killed", "max_steps=2", "evaluation.data=null", resume="latest")
    assert json.loads(directory.summary_path.read_text())["steps"] == 2
    assert json.loads((directory.path / "summary-before-step-000002.json").read_text())["steps"] == 1


def _die(run: GRPORun) -> None:
    raise InterruptedError


def test_resume_evaluates_no_trained_policy_as_the_one_before(folder: Path) -> None:
    train(folder, "run_name=late", "max_steps=1", "evaluation.at_start=false")
    directory = train(folder, "run_name=late", "max_steps=2", "evaluation.at_start=true", resume="latest")
    assert json.loads(directory.summary_path.read_text())["evaluations"].keys() == {"after"}


def test_settings_changed_on_resume_have_their_effect(folder: Path) -> None:
    train(folder, "run_name=changed", "max_steps=2", "evaluation.data=null")
    changed = ["optimizer.learning_rate=3e-4", "optimizer.schedule=linear", "max_steps=4"]
    directory = train(folder, "run_name=changed", *changed, "evaluation.data=null", resume="latest")
    # Steps 3 and 4 of 4 of a linear schedule that falls to zero: the shares 2/4 and 1/4 of the new peak.
    assert [record["learning_rate"] for record in directory.read_metrics()[2:]] == pytest.approx(
        [1.5e-4, 0.75e-4]
    )


def test_gradient_checkpointing_is_in_effect_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(path=str(folder / "policy"), gradient_checkpointing=True)
    part = type(load_policy(config).model.layers[0].mlp)
    calls: list[None] = []
    monkeypatch.setattr(part, "forward", counted(part.forward, calls))
    results = []
    for recomputes in (False, True):
        calls.clear()
        policy = load_policy(replace(config, gradient_checkpointing=recomputes))
        policy(input_ids=torch.arange(2, 10)[None]).logits.square().mean().backward()
        assert len(calls) == (4 if recomputes else 2)  # two layers, computed again in the backward pass
        results.append(policy.get_input_embeddings().weight.grad)
    torch.testing.assert_close(results[0], results[1])


def counted(forward: Callable[..., Any], calls: list[None]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return forward(*args, **kwargs)

    return wrapper


def test_reference_in_bfloat16_keeps_its_rotary_frequencies(folder: Path) -> None:
    policy = load_policy(ModelConfig(path=str(folder / "policy")))
    reference = frozen_copy(policy, torch.bfloat16, torch.device("cpu"))
    assert {parameter.dtype for parameter in reference.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    for buffer, expected in zip(reference.buffers(), policy.buffers(), strict=True):
        assert torch.equal(buffer, expected)  # of the same dtype, float32


def test_policy_learns_the_reward(folder: Path) -> None:
    directory = train(
        folder,
        "run_name=learns",
        "max_steps=40",
        "rollout.num_generations=8",
        "evaluation.data=null",
        "checkpoint.every_steps=0",
    )
    rewards = [record["reward"] for record in directory.read_metrics()]
    # A random policy writes a third small letters; one that has learnt writes little else.
    assert sum(rewards[:2]) / 2 < 0.5
    assert sum(rewards[-5:]) / 5 > 0.9


def test_fast_path_and_reference_path_have_the_same_curves(folder: Path) -> None:
    """The native engine with packed sequences and shared prompts; transformers' generate with padded ones.
    Both draw from the same streams, so up to rounding not only the curves but every step is the same.
    """
    common = [
        "max_steps=6",
        "optimizer.learning_rate=2e-3",
        "algorithm.num_iterations=2",
        "algorithm.beta=0.05",
    ]
    common += ["evaluation.data=null", "checkpoint.every_steps=0"]
    fast = train(folder, "run_name=fast", *common, "rollout.engine=native", "update.layout=packed")
    reference = train(
        folder, "run_name=plain", *common, "rollout.engine=transformers", "update.layout=padded"
    )
    for one, other in zip(untimed(fast), untimed(reference), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


def test_warm_up_counts_the_steps_that_max_steps_counts(folder: Path) -> None:
    """Each step makes 2 x 2 optimizer steps, and the metrics have the rate of the last of them."""
    directory = train(
        folder,
        "run_name=warm_up",
        "max_steps=3",
        "optimizer.learning_rate=1e-3",
        "optimizer.warmup_steps=2",
        "algorithm.num_iterations=2",
        "algorithm.num_minibatches=2",
        "evaluation.data=null",
    )
    # 2 steps of 4 optimizer steps are 8: (3 + 1) / 8 and (7 + 1) / 8 of the peak, which then stays.
    rates = [record["learning_rate"] for record in directory.read_metrics()]
    assert rates == pytest.approx([0.5e-3, 1e-3, 1e-3])


OBJECTIVES = {
    "several optimizer steps": ["algorithm.num_iterations=2", "algorithm.num_minibatches=2"],
    "reference": ["algorithm.beta=0.1"],
    "gradient checkpointing": ["model.gradient_checkpointing=true", "algorithm.beta=0.1"],
    "sequence ratios": [
        "algorithm.importance_level=sequence",
        "algorithm.num_iterations=2",
        "algorithm.aggregation=grpo",
    ],
    "cispo with an entropy bonus": ["algorithm.surrogate=cispo", "algorithm.entropy_coefficient=0.01"],
    "online RFT": ["algorithm.surrogate=online_rft"],
    "reinforce++": ["algorithm.baseline=reinforce_plus_plus", "algorithm.scale=batch"],
    "restricted sampling": [
        "rollout.temperature=0.8",
        "rollout.top_k=50",
        "rollout.top_p=0.95",
        "rollout.min_p=0.001",
    ],
    "truncated completions masked": ["algorithm.mask_truncated=true"],
    "reference engine": ["rollout.engine=transformers"],
    "padded sequences": ["update.layout=padded"],
}


@pytest.mark.parametrize("overrides", OBJECTIVES.values(), ids=OBJECTIVES)
def test_objective_runs_and_its_sampler_agrees_with_its_trainer(folder: Path, overrides: list[str]) -> None:
    directory = train(folder, "run_name=objective", "max_steps=2", "evaluation.data=null", *overrides)
    for record in directory.read_metrics():
        assert record["update/skipped"] == 0
        if record["update/trained_share"] > 0:
            assert record["sampler/logprob_diff_max"] < 1e-4, (
                "the distribution that is trained is not the one that was sampled"
            )
    first = directory.read_metrics()[0]
    if "algorithm.mask_truncated=true" not in overrides:
        assert first["update/trained_share"] > 0
    if "algorithm.beta=0.1" in overrides:
        assert first["kl"] == pytest.approx(0.0, abs=1e-6)  # the policy is still the reference
        assert directory.read_metrics()[1]["kl"] > 1e-6


def test_trackers_write_into_the_run_directory(folder: Path) -> None:
    directory = train(
        folder, "run_name=tracked", "max_steps=1", "evaluation.data=null", "logging.trackers=[tensorboard]"
    )
    assert list(directory.path.rglob("events.out.tfevents.*"))


def test_tracker_that_is_not_installed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb, which is not installed: pip install 'r1rl\[tracking\]'"):
        train(folder, "logging.trackers=[wandb]")


def test_reward_that_never_applies_ends_the_run(folder: Path) -> None:
    (folder / "broken.py").write_text(
        "def broken(completions, **columns):\n    raise RuntimeError('no connection')\n"
    )
    with pytest.raises(UserError, match=r"none applied to any completion.*no connection"):
        train(
            folder,
            f"rewards=[{{function: {folder}/broken.py:broken}}]",
            "evaluation.data=null",
            "outcome=broken",
        )


def test_rewards_by_domain_and_their_metrics(folder: Path) -> None:
    """Two sources, each with its reward; two processes would gather the same sums."""
    rows = [{"problem": f"Say {n}.", "domain": "helpfulness"} for n in range(64)]
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    directory = train(
        folder,
        "run_name=domains",
        "max_steps=3",
        "data.constants={domain: reasoning}",
        f"data.mix=[{{source: {folder}/talk.jsonl}}]",
        "evaluation.data.constants={domain: reasoning}",
        "rollout.num_prompts=8",
        "rewards.0.where={domain: helpfulness}",
        "rewards.1.where={domain: reasoning}",
        "algorithm.dynamic_sampling=true",
        "algorithm.max_refills=1",
    )
    metrics = directory.read_metrics()
    assert len(metrics) == 3
    for step in metrics:
        counts = [step[f"domain/{name}/completions/number"] for name in ("reasoning", "helpfulness")]
        assert sum(counts) == 32
        assert all(counts)
        assert step["domain/reasoning/reward"] == pytest.approx(0.1 * step["rewards/countdown/mean"])
        assert step["domain/helpfulness/reward"] == pytest.approx(step["rewards/lowercase/mean"])
        total = sum(
            count * step[f"domain/{name}/reward"]
            for count, name in zip(counts, ("reasoning", "helpfulness"), strict=True)
        )
        assert step["reward"] == pytest.approx(total / 32)
        assert step["accuracy"] == step["domain/reasoning/accuracy"]
        assert "domain/helpfulness/accuracy" not in step
        # groups without an outcome are refilled by their reward, which varies: not all of them every time
        assert step["dynamic_sampling/refilled"] < 8
    after = json.loads((directory.evaluations / "after.json").read_text())["figures"]
    assert after["by_value"]["domain"]["reasoning"]["num_problems"] == 6


def test_dynamic_sampling_refills_groups_without_variance(folder: Path) -> None:
    # Countdown answers of a random policy are never right, so every group lacks variance and every refill is
    # used up.
    directory = train(
        folder,
        "run_name=dynamic",
        "max_steps=1",
        "evaluation.data=null",
        "algorithm.dynamic_sampling=true",
        "algorithm.max_refills=2",
    )
    (record,) = directory.read_metrics()
    assert record["dynamic_sampling/refilled"] == 8  # 4 groups, twice
    assert record["epoch"] == pytest.approx(12 / 64)
    kept = record["completions/mean_length"] * 4 * 4
    # The replaced groups took their time too.
    assert record["tokens_per_second"] * record["time/step"] > 2 * kept


def test_batch_that_processes_can_not_share_is_refused(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["grpo", str(folder / "recipe.yaml"), "rollout.num_prompts=3", "algorithm.num_minibatches=2"]
    assert main(arguments) == 2
    assert "num_minibatches" in capfd.readouterr().err


def test_the_allocator_is_told_to_grow_its_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator is told so unless the user has configured it, under either of torch's names."""
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512")
    use_growing_segments()
    assert "PYTORCH_ALLOC_CONF" not in os.environ
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    use_growing_segments()
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")
    use_growing_segments()
    assert os.environ["PYTORCH_ALLOC_CONF"] == ""
