"""One-step-off rollouts: which weights sample, exact resumption, several processes, and how a run ends when
something fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from run_helpers import final_weights, prepare, start_two, train, untimed
from transformers import AutoModelForCausalLM

from r1rl.config.load import load_recipe
from r1rl.errors import RewardError, UserError
from r1rl.grpo.one_step_off import Background
from r1rl.grpo.preflight import check_rows
from r1rl.grpo.trainer import GRPOTrainer, StepResult
from r1rl.grpo.update import PolicyUpdate
from r1rl.monitor import metric_names as names
from r1rl.objective.sampling import Sampling, process_logits
from r1rl.rollout.weights import RolloutWeights
from r1rl.runs.checkpoint import read_ahead
from r1rl.runs.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("on_the_cpu")

ON = "rollout.one_step_off=true"
REFILLING = ("algorithm.dynamic_sampling=true", "algorithm.max_refills=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("one_step_off"))


@pytest.fixture(scope="module")
def finished(folder: Path) -> RunDirectory:
    """Train an uninterrupted run of four steps, with evaluations between them and every checkpoint kept."""
    return train(
        folder,
        ON,
        "run_name=uninterrupted",
        "checkpoint.every_steps=1",
        "checkpoint.keep=0",
        "evaluation.every_steps=1",
    )


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "one-step-off"]


# the thread


def test_background_gives_its_result_and_raises_its_exception_as_it_is() -> None:
    with Background(lambda go_on: 7, None) as background:
        assert background.result() == 7
    assert background.seconds > 0
    error = RewardError("no")

    def fail(go_on: object) -> None:
        raise error

    with pytest.raises(RewardError) as caught, Background(fail, None) as background:
        background.result()
    assert caught.value is error


def test_background_has_ended_when_the_main_thread_goes_on_with_an_exception() -> None:
    rounds: list[int] = []

    def work(go_on: object) -> None:
        while True:
            rounds.append(0)
            go_on("rollout", len(rounds), 0)  # type: ignore[operator]
            time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt), Background(work, None):
        while not rounds:
            time.sleep(0.001)
        raise KeyboardInterrupt
    assert not threads()
    ended = len(rounds)
    time.sleep(0.02)
    assert len(rounds) == ended


# what is sampled


def test_first_rollout_is_of_the_policy_and_the_others_lag_by_one(finished: RunDirectory) -> None:
    metrics = finished.read_metrics()
    assert [record[names.LAG] for record in metrics] == [0, 1, 1, 1]
    for record in metrics:
        parts = [record[f"time/{phase}"] for phase in ("rollout", "reward", "update")]
        assert min(parts) >= 0
        assert sum(parts) <= record[names.TIME_STEP]
        assert record[names.TIME_ROLLOUT_HIDDEN] >= 0
    for record in metrics[1:]:  # the optimizer step starts with a ratio that is not 1
        assert record["ratio/max"] > 1.0001
        assert record["sampler/logprob_diff_max"] < 1e-6  # and nothing is left for the importance weight


def test_without_it_there_is_no_lag_and_no_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", counting_starts(started := []))
    (record,) = train(folder, "run_name=off", "max_steps=1", "evaluation.data=null").read_metrics()
    assert names.LAG not in record
    assert names.TIME_ROLLOUT_HIDDEN not in record
    assert "one-step-off" not in started
    directory = RunDirectory.latest(str(folder / "runs"), "off")
    assert not list(directory.path.rglob("ahead-*"))


def counting_starts(started: list[str]) -> Callable[[threading.Thread], None]:
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    return counted


def test_rollout_is_of_the_weights_before_the_update_beside_it(finished: RunDirectory) -> None:
    """The checkpoint after step 2 holds the third rollout. Its log-probabilities are those of the checkpoint
    after step 1.
    """
    (saved,) = read_ahead(finished.checkpoints / "step-000002")
    differences = {}
    for step in (1, 2):
        model = AutoModelForCausalLM.from_pretrained(finished.checkpoints / f"step-{step:06d}")
        difference = 0.0
        for group in saved["collected"]["groups"]:
            for completion in group["completions"]:
                ids = torch.tensor([group["prompt_ids"] + completion["token_ids"]])
                with torch.no_grad():
                    logits = model(ids).logits[0, len(group["prompt_ids"]) - 1 : -1]
                logprobs = (
                    process_logits(logits, Sampling(12))
                    .log_softmax(-1)
                    .gather(1, torch.tensor(completion["token_ids"])[:, None])
                )
                difference = max(
                    difference, float((logprobs[:, 0] - torch.tensor(completion["logprobs"])).abs().max())
                )
        differences[step] = difference
    assert differences[1] < 1e-5
    assert differences[2] > 1e-2


def test_thread_samples_and_never_takes_over_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, list[str]] = {"refresh": [], "borrowed": []}

    def noted(name: str) -> Callable[..., object]:
        function = getattr(RolloutWeights, name)

        def wrapper(weights: RolloutWeights, *arguments: object) -> object:
            calls[name].append(threading.current_thread().name)
            return function(weights, *arguments)

        return wrapper

    for name in calls:
        monkeypatch.setattr(RolloutWeights, name, noted(name))
    train(folder, ON, "run_name=noted", "max_steps=2", "evaluation.data=null", *REFILLING)
    assert set(calls["refresh"]) == {"MainThread"}
    assert "one-step-off" in calls["borrowed"]


@pytest.fixture
def another_precision() -> Iterator[None]:
    """Make accelerate forget the precision of the process, which it otherwise keeps."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("another_precision")
def test_in_bfloat16_the_importance_weight_takes_in_the_lag(folder: Path) -> None:
    """The update runs under autocast and the thread beside it in plain bfloat16, as it also does alone in the
    first step.
    """
    settings = ("model.dtype=bfloat16", "run_name=half", "max_steps=3", "evaluation.data=null")
    first, *lagged = train(folder, ON, *settings).read_metrics()
    for record in lagged:
        assert record["ratio/max"] == record["ratio/min"] == 1
        assert record["sampler/logprob_diff_mean"] > 5 * first["sampler/logprob_diff_mean"]
    (alone, _) = train(
        folder, *settings[:1], "run_name=half-off", "max_steps=2", "evaluation.data=null"
    ).read_metrics()
    for name in ("reward", "completions/mean_length", "sampler/logprob_diff_mean"):
        assert alone[name] == first[name]


def test_kernels_that_torch_may_choose_are_given_back(finished: RunDirectory) -> None:
    assert torch.backends.cuda.cudnn_sdp_enabled()  # torch's own default


def test_it_learns(folder: Path) -> None:
    settings = (
        "max_steps=40",
        "rollout.num_generations=8",
        "evaluation.data=null",
        "checkpoint.every_steps=0",
    )
    rewards = [record["reward"] for record in train(folder, ON, "run_name=learns", *settings).read_metrics()]
    assert sum(rewards[:2]) / 2 < 0.5
    assert sum(rewards[-5:]) / 5 > 0.9


def test_both_engines_sample_the_same(folder: Path) -> None:
    common = (ON, "max_steps=3", "optimizer.learning_rate=2e-3", "evaluation.data=null", *REFILLING)
    native = train(folder, "run_name=native", *common)
    plain = train(folder, "run_name=plain", *common, "rollout.engine=transformers", "update.layout=padded")
    for one, other in zip(untimed(native), untimed(plain), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


# going on


def assert_same(directory: RunDirectory, expected: RunDirectory) -> None:
    assert untimed(directory) == untimed(expected)
    weights, others = final_weights(directory), final_weights(expected)
    assert all(torch.equal(weights[name], others[name]) for name in others)


@pytest.mark.parametrize("settings", [(), REFILLING, ("algorithm.num_minibatches=2", "algorithm.beta=0.1")])
def test_resumed_run_equals_the_uninterrupted_one(folder: Path, settings: tuple[str, ...]) -> None:
    whole = train(folder, ON, "run_name=whole", *settings)
    train(folder, ON, "run_name=resumed", "max_steps=2", *settings)
    assert_same(train(folder, ON, "run_name=resumed", *settings, resume="latest"), whole)


def test_interrupted_run_equals_the_uninterrupted_one(
    folder: Path, finished: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step_and_press_ctrl_c(trainer: GRPOTrainer) -> StepResult:
        if trainer.state.step == 2:
            signal.raise_signal(signal.SIGINT)
        return one_step(trainer)

    one_step = GRPOTrainer.step
    settings = (ON, "run_name=interrupted", "checkpoint.every_steps=0")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GRPOTrainer, "step", step_and_press_ctrl_c)
        train(folder, *settings)
    assert not threads()
    directory = train(folder, *settings, resume="latest")
    assert_same(directory, finished)


def test_with_other_settings_the_next_step_samples_anew(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("run_name=changed", "evaluation.data=null")
    train(folder, ON, *settings, "max_steps=2")
    directory = train(folder, ON, *settings, "max_steps=3", "rollout.temperature=0.9", resume="latest")
    assert "was made with other settings or data: the next step samples anew" in capsys.readouterr().out
    assert [record[names.LAG] for record in directory.read_metrics()] == [0, 1, 0]
    directory = train(folder, *settings, "max_steps=4", resume="latest")  # switched off
    last = directory.read_metrics()[-1]
    assert names.LAG not in last
    assert last["epoch"] == 4 * 4 / 64  # no prompt was passed over


# processes


def test_two_processes_equal_one_and_one_goes_on_for_two(folder: Path) -> None:
    alone = train(folder, ON, "run_name=alone", "max_steps=3", *REFILLING)
    directory = start_two("grpo", folder / "recipe.yaml", ON, "run_name=two", "max_steps=2", *REFILLING)
    assert len(read_ahead(directory.checkpoints / "step-000002")) == 2
    train(folder, ON, "run_name=two", "max_steps=3", *REFILLING, resume="latest")
    assert [record[names.LAG] for record in directory.read_metrics()] == [0, 1, 1]
    for one, two in zip(untimed(alone), untimed(directory), strict=True):
        assert one == pytest.approx(two, rel=0, abs=1e-4)


# failures


def test_error_of_the_thread_ends_the_run_as_it_is(folder: Path) -> None:
    """The reward refuses its third batch of four groups, which the thread of the second step submits."""
    (folder / "refusing.py").write_text(
        "from r1rl.errors import RewardError\ncalls = []\n"
        "def refusing(completions, **columns):\n    calls.append(0)\n"
        "    if len(calls) > 8:\n        raise RewardError('enough is enough')\n    return "
        "[float(len(text)) for text in completions]\n"
    )
    settings = (
        f"rewards=[{{function: {folder}/refusing.py:refusing}}]",
        "outcome=refusing",
        "evaluation.data=null",
    )
    with pytest.raises(RewardError, match="enough is enough"):
        train(folder, ON, "run_name=refused", *settings)
    assert not threads()
    assert len(RunDirectory.latest(str(folder / "runs"), "refused").read_metrics()) == 1


def test_reward_that_raises_beside_the_update_costs_its_rows_alone(folder: Path) -> None:
    (folder / "raising.py").write_text(
        "calls = []\ndef raising(completions, **columns):\n    calls.append(0)\n"
        "    if len(calls) > 4:\n        raise ValueError('no connection')\n    return [float(len(text)) "
        "for text in completions]\n"
    )
    settings = (
        f"rewards=[{{function: {folder}/raising.py:raising}}]",
        "outcome=raising",
        "evaluation.data=null",
        "max_steps=2",
    )
    metrics = train(folder, ON, "run_name=raising", *settings).read_metrics()
    assert [record.get("reward/raising/exception", 0) for record in metrics] == [0, 16]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_update_that_fails_leaves_no_thread(
    folder: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        assert threads()
        raise error("in the update")

    monkeypatch.setattr(PolicyUpdate, "run", fail)
    with pytest.raises(error, match="in the update"):
        train(
            folder,
            ON,
            "run_name=failing",
            "evaluation.data=null",
            "rollout.max_completion_length=64",
            "rollout.num_prompts=16",
        )
    assert not threads()


def test_killed_run_goes_on_from_its_last_checkpoint(folder: Path, finished: RunDirectory) -> None:
    command = [
        sys.executable,
        "-m",
        "r1rl",
        "grpo",
        str(folder / "recipe.yaml"),
        ON,
        "run_name=killed",
        "max_steps=100000",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        [*command, "checkpoint.every_steps=1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    directory = RunDirectory(folder / "runs" / "killed")
    deadline = time.monotonic() + 120
    while len(directory.read_metrics()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=60)
    done = json.loads(
        (sorted(directory.checkpoints.glob("step-??????"))[-1] / "training" / "state.json").read_text()
    )["step"]
    train(folder, ON, "run_name=killed", f"max_steps={done + 1}", resume="latest")
    common = slice(0, min(4, done + 1))
    assert untimed(directory)[common] == untimed(finished)[common]


def test_rows_must_be_limited_where_the_update_needs_memory_too(folder: Path) -> None:
    recipe = load_recipe("grpo", folder / "recipe.yaml", [ON])
    check_rows(recipe, "cpu")
    with pytest.raises(
        UserError,
        match=r"on a GPU the rows that decode at once can't be as many as fit: write rollout.max_rows",
    ):
        check_rows(recipe, "cuda")
    check_rows(load_recipe("grpo", folder / "recipe.yaml", [ON, "rollout.max_rows=8"]), "cuda")
