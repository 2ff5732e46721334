"""A run driven from Python: step by step, by hand, left early; with a model, rows and rewards from memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import final_weights, newest, prepare, train, untimed
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from r1rl.config.load import load_recipe
from r1rl.config.renamed import RecipeWarning
from r1rl.errors import DataError, RewardError, UserError
from r1rl.grpo.run import GRPORun
from r1rl.reward_model.run import RewardModelRun
from r1rl.rewards import countdown
from r1rl.runs.inputs import Given
from r1rl.runs.run_directory import RunDirectory
from r1rl.seeds import derive_seed
from r1rl.sft.run import SFTRun

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("training_run"))


@pytest.fixture(scope="module")
def finished(folder: Path) -> RunDirectory:
    """Train a whole run by `train`."""
    return train(folder, "run_name=whole")


def start(folder: Path, *overrides: str, resume: str | None = None, **given: Any) -> GRPORun:
    path = folder / "recipe.yaml"
    return GRPORun.start(load_recipe("grpo", path, overrides), path, resume, Given(**given))


def by_hand(run: GRPORun) -> None:
    for trainer in run.steps_by_hand():
        sampled = trainer.rollout()
        rollout = trainer.rewards(sampled)
        trainer.update(rollout, trainer.advantages(rollout))


# the loop


@pytest.mark.parametrize("one_step_off", ["false", "true"])
def test_steps_by_hand_are_the_steps_of_the_run(folder: Path, one_step_off: str) -> None:
    settings = (f"rollout.one_step_off={one_step_off}", "algorithm.dynamic_sampling=true", "max_steps=3")
    whole = train(folder, "run_name=alone", *settings)
    run = start(folder, "run_name=by-hand", *settings)
    by_hand(run)
    assert untimed(run.directory) == untimed(whole)
    weights = final_weights(whole)
    assert all(torch.equal(weights[name], value) for name, value in final_weights(run.directory).items())
    assert json.loads(run.directory.summary_path.read_text())["steps"] == 3


def test_each_step_is_logged_when_it_is_given(folder: Path, finished: RunDirectory) -> None:
    run = start(folder, "run_name=steps")
    for number, result in enumerate(run.steps(), start=1):
        assert run.state.step == number
        assert run.directory.read_metrics()[-1]["reward"] == result.metrics["reward"]
    assert number == 4
    assert untimed(run.directory) == untimed(finished)
    assert run.directory.summary_path.exists()


def test_leaving_the_loop_saves_the_run_and_it_goes_on(folder: Path, finished: RunDirectory) -> None:
    run = start(folder, "run_name=left", "checkpoint.every_steps=0")
    steps = run.steps()
    next(steps)
    next(steps)
    assert not list(run.directory.checkpoints.iterdir())
    steps.close()
    assert newest(run.directory).name == "step-000002"
    assert not run.directory.summary_path.exists()
    start(folder, "run_name=left", resume="latest").train()
    assert untimed(run.directory) == untimed(finished)


@pytest.mark.parametrize("updated", [False, True])
def test_leaving_a_step_that_is_done_by_hand(folder: Path, finished: RunDirectory, updated: bool) -> None:
    run = start(folder, f"run_name=left-{updated}", "checkpoint.every_steps=0")
    steps = run.steps_by_hand()
    for trainer in steps:
        rollout = trainer.rewards(trainer.rollout())
        advantages_PG = trainer.advantages(rollout)
        if run.state.step == 1 and not updated:
            break
        trainer.update(rollout, advantages_PG)
        if run.state.step == 2:
            break
    steps.close()
    done = 2 if updated else 1
    assert newest(run.directory).name == f"step-{done:06d}"
    assert len(run.directory.read_metrics()) == done
    start(folder, f"run_name=left-{updated}", resume="latest").train()
    assert untimed(run.directory) == untimed(finished)


def test_a_step_must_be_done(folder: Path) -> None:
    run = start(folder, "run_name=undone", "evaluation.data=null")
    with pytest.raises(UserError, match="step 1 was not done: call rollout, rewards, advantages and update"):
        for trainer in run.steps_by_hand():
            trainer.rollout()


def test_advantages_of_the_caller_are_trained(folder: Path, finished: RunDirectory) -> None:
    run = start(folder, "run_name=mine", "evaluation.data=null", "max_steps=1", "checkpoint.every_steps=0")
    for trainer in run.steps_by_hand():
        rollout = trainer.rewards(trainer.rollout())
        result = trainer.update(rollout, torch.zeros_like(trainer.advantages(rollout)))
    assert result.metrics["update/trained_share"] == 0
    assert run.directory.read_metrics()[0]["reward"] == finished.read_metrics()[0]["reward"]


# what is given in memory


def lowercase(completions: list[str], **columns: Any) -> list[float]:
    """Return the reward of `run_helpers`, in Python."""
    return [sum(map(str.islower, text)) / max(1, len(text)) for text in completions]


def test_model_and_rewards_in_memory_give_the_same_run(folder: Path, finished: RunDirectory) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.bfloat16).float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    files = AutoModelForCausalLM.from_pretrained(folder / "policy")
    model.load_state_dict(files.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    recipe = ("run_name=memory", "rewards.0.function=lowercase", "model.path=nowhere/at/all")
    run = start(folder, *recipe, model=model, tokenizer=tokenizer, rewards=[lowercase, countdown])
    run.train()
    assert untimed(run.directory) == untimed(finished)
    weights = final_weights(finished)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in weights.items())
    recorded = load_recipe("grpo", run.directory.config_path)
    assert recorded.model.path == str(folder / "policy")
    assert [(one.function, one.weight) for one in recorded.rewards] == [
        ("lowercase", 1.0),
        ("countdown", 0.1),
    ]


def test_rows_in_memory_take_the_place_of_both_sources(folder: Path) -> None:
    rows = [{"question": f"Say {n}", "answer": str(n), "level": n % 2} for n in range(12)]
    held_out = [{"problem": f"Write {n}", "answer": str(n)} for n in range(3)]
    run = start(
        folder,
        "run_name=rows",
        "max_steps=1",
        "data.columns={problem: question}",
        "data.where={level: 1}",
        "rewards=[{function: accuracy}]",
        "data.mix=[{source: arithmetic}]",
        "evaluation.data.mix=[{source: arithmetic}]",
        rows=rows,
        evaluation_rows=held_out,
    )
    assert {prompt.problem.problem for prompt in run.parts.prompts} == {f"Say {n}" for n in range(1, 12, 2)}
    assert [prompt.problem.problem for prompt in run.parts.evaluation_prompts] == [
        "Write 0",
        "Write 1",
        "Write 2",
    ]
    run.train()
    recorded = load_recipe("grpo", run.directory.config_path)
    assert recorded.data.source == recorded.evaluation.data.source == "in memory"
    assert recorded.data.mix == recorded.evaluation.data.mix == []
    assert json.loads(run.directory.summary_path.read_text())["evaluations"]["after"]["num_problems"] == 3


def test_held_out_rows_need_no_section_of_the_recipe(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    settings = (
        "run_name=held-out",
        "evaluation.data=null",
        "outcome=lowercase",
        f"rewards=[{{function: {folder}/reward.py:lowercase}}]",
    )
    run = start(folder, *settings, evaluation_rows=[{"problem": "Add 1"}])
    run.close()
    assert [prompt.problem.problem for prompt in run.parts.evaluation_prompts] == ["Add 1"]
    assert load_recipe("grpo", run.directory.config_path).evaluation.data.source == "in memory"
    assert not [one for one in recwarn if issubclass(one.category, RecipeWarning)]


def test_what_is_given_is_checked_first(folder: Path) -> None:
    with pytest.raises(UserError, match="model and tokenizer are given together"):
        start(folder, tokenizer=AutoTokenizer.from_pretrained(folder / "policy"))
    with pytest.raises(UserError, match="rewards: 2 functions are named lowercase: give each its own name"):
        start(folder, rewards=[lowercase, lowercase])
    with pytest.raises(RewardError, match="lowercase needs 'colour', which is not a column of the data"):
        start(folder, rewards=[_named("lowercase")])
    with pytest.raises(DataError, match=r"data \(in memory\) has no column named problem"):
        start(folder, rows=[{"text": "a"}])


def _named(name: str) -> Any:
    def reward(completions: list[str], colour: list[str]) -> list[float]:
        return [0.0 for _ in completions]

    reward.__name__ = name
    return reward


def test_supervised_commands_take_model_and_rows_from_memory(folder: Path, tmp_path: Path) -> None:
    """Their loss is that of the same model and rows in files."""
    rows = [
        {"problem": f"Add {n}", "completion": f" {n + 1}", "chosen": f" {n + 1}", "rejected": " no"}
        for n in range(6)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command, run in (("sft", SFTRun), ("reward-model", RewardModelRun)):
        text = SUPERVISED.format(command=command, out=tmp_path, folder=folder, rows=tmp_path / "rows.jsonl")
        path = tmp_path / f"{command}.yaml"
        path.write_text(text)
        run.start(load_recipe(command, path), path).train()
        tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
        kind = AutoModelForCausalLM if command == "sft" else AutoModelForSequenceClassification
        settings = {} if command == "sft" else {"num_labels": 1}
        torch.manual_seed(derive_seed(0, "score head"))
        model = kind.from_pretrained(folder / "policy", **settings)
        given = Given(model=model, tokenizer=tokenizer, rows=rows)
        recipe = load_recipe(command, path, ["run_name=memory", "data.source=nowhere.jsonl"])
        memory = run.start(recipe, path, given=given)
        memory.train()
        whole = RunDirectory.latest(str(tmp_path / "runs"), command)
        assert untimed(memory.directory) == untimed(whole)
        assert len(untimed(whole)) == 2
        memory.directory.path.rename(tmp_path / f"done-{command}")


SUPERVISED = """
run_name: {command}
output_dir: {out}/runs
max_steps: 2
batch_size: 2
max_length: 512
model: {{path: {folder}/policy, dtype: float32}}
data: {{source: {rows}}}
logging: {{live: false}}
"""
