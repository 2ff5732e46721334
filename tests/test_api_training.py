"""Training from Python gives what the command line gives, with data, rewards, models and hooks in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import prepare, train, untimed
from transformers import AutoModelForCausalLM, AutoTokenizer

import r1rl
from r1rl.config.load import load_recipe
from r1rl.errors import RecipeError, UserError
from r1rl.runs.run_directory import RunDirectory

ROWS = [{"problem": f"Make {number} from 1, 2, 3.", "answer": str(number)} for number in range(1, 9)]


def vowels(completions: list[str], **columns: Any) -> list[float]:
    """Return the share of vowels in each completion."""
    return [sum(text.count(vowel) for vowel in "aeiou") / max(1, len(text)) for text in completions]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def by_command(folder: Path) -> RunDirectory:
    """Return the run that the command line makes of the folder's recipe."""
    return train(folder)


def recorded(run: r1rl.Run) -> list[dict[str, Any]]:
    return untimed(RunDirectory(run.path))


def test_a_recipe_gives_the_same_run_as_on_the_command_line(folder: Path, by_command: RunDirectory) -> None:
    run = r1rl.train(folder / "recipe.yaml")
    assert recorded(run) == untimed(by_command)
    assert list(run.metrics.index) == [1, 2, 3, 4]
    assert run.checkpoint is not None and run.checkpoint.name == "step-000004"


def test_a_loaded_recipe_and_a_mapping_are_recipes_too(folder: Path, by_command: RunDirectory) -> None:
    loaded = load_recipe("grpo", folder / "recipe.yaml")
    first = r1rl.train(loaded, run_name="loaded", max_steps=1)
    mapping = {
        "output_dir": folder / "runs",
        "model": {"path": folder / "policy", "dtype": "float32"},
        "data": {"source": "countdown", "arguments": {"count": 64}},
        "prompt": {"template": "plain"},
        "rewards": [{"function": f"{folder}/reward.py:lowercase"}, {"function": "countdown", "weight": 0.1}],
        "rollout": {"num_prompts": 4, "num_generations": 4, "max_completion_length": 12},
        "optimizer": {"learning_rate": 0.01},
        "logging": {"live": False},
    }
    second = r1rl.train(mapping, run_name="mapping", max_steps=1)
    assert recorded(first) == recorded(second) == untimed(by_command)[:1]


def test_keys_are_changed_by_dots_and_by_sections(folder: Path) -> None:
    run = r1rl.train(
        folder / "recipe.yaml",
        run_name="changed",
        max_steps=1,
        rollout={"num_generations": 2, "temperature": 0.5},
        **{"optimizer.learning_rate": 0.02},
    )
    recipe = run.recipe
    assert (recipe.rollout.num_generations, recipe.rollout.temperature) == (2, 0.5)
    assert recipe.rollout.num_prompts == 4  # a section keeps what is not named
    assert recipe.optimizer.learning_rate == 0.02


def test_model_rows_and_rewards_in_memory(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    before = {name: value.clone() for name, value in model.named_parameters()}
    run = r1rl.train(
        {"prompt": {"template": "plain"}, "optimizer": {"learning_rate": 0.01}, "logging": {"live": False}},
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(folder / "policy"),
        data=ROWS,
        rewards=[vowels],
        max_steps=2,
        output_dir=folder / "runs",
        run_name="memory",
        rollout={"num_prompts": 4, "num_generations": 4, "max_completion_length": 8},
        logging={"completions_every": 1},
    )
    assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    completions = run.completions(2)
    assert set(completions["answer"]) <= {row["answer"] for row in ROWS}
    assert list(completions["reward"]) == pytest.approx(vowels(list(completions["completion"])))
    trained = run.model()
    assert all(
        torch.equal(value, dict(model.named_parameters())[name]) for name, value in trained.named_parameters()
    )


def test_hooks_are_called(folder: Path) -> None:
    class Recorder:
        """A hook that writes down its events."""

        def __init__(self) -> None:
            self.events: list[str] = []

        def on_step(self, run: Any, result: Any) -> None:
            self.events.append(f"step {run.state.step}")

        def on_end(self, run: Any, end: Any) -> None:
            self.events.append(f"end {end.finished}")

    hook = Recorder()
    r1rl.train(folder / "recipe.yaml", run_name="hooks", max_steps=2, hooks=[hook])
    assert hook.events == ["step 1", "step 2", "end True"]


def test_the_loop_by_hand_gives_the_same_run(folder: Path, by_command: RunDirectory) -> None:
    grpo = r1rl.GRPO(folder / "recipe.yaml", run_name="by_hand")
    numbers = []
    for step in grpo:
        sampled = step.rollout()
        rollout = step.rewards(sampled)
        advantages_PG = step.advantages(rollout)
        assert advantages_PG.shape == (4, 4)
        assert step.update(rollout, advantages_PG).metrics["reward"] > 0
        numbers.append(step.number)
    assert numbers == [1, 2, 3, 4]
    assert recorded(grpo.run) == untimed(by_command)
    assert grpo.run.summary is not None


def test_advantages_of_zero_teach_nothing(folder: Path) -> None:
    grpo = r1rl.GRPO(folder / "recipe.yaml", run_name="zero", max_steps=1)
    before = {name: value.clone() for name, value in grpo.model.named_parameters()}
    for step in grpo:
        rollout = step.rewards(step.rollout())
        step.update(rollout, torch.zeros_like(step.advantages(rollout)))
    assert all(torch.equal(value, before[name]) for name, value in grpo.model.named_parameters())


def test_a_step_that_is_not_done_is_said(folder: Path) -> None:
    with pytest.raises(UserError, match="step 1 was not done: call rollout, rewards, advantages and update"):
        for step in r1rl.GRPO(folder / "recipe.yaml", run_name="undone"):
            step.rollout()


def test_a_loop_that_is_left_is_resumed(folder: Path, by_command: RunDirectory) -> None:
    for result in r1rl.GRPO(folder / "recipe.yaml", run_name="left").results():
        if result.metrics["reward"] >= 0 and len(list((folder / "runs/left").glob("metrics.jsonl"))) == 1:
            break
    run = r1rl.train(folder / "recipe.yaml", run_name="left", resume=True)
    assert recorded(run) == untimed(by_command)


@pytest.mark.parametrize(
    ("recipe", "arguments", "error", "sentence"),
    [
        ("recipe.yaml", {"max_step": 3}, RecipeError, "max_step"),
        ("recipe.yaml", {"rollout": {"num_prompts": "many"}}, RecipeError, "rollout.num_prompts"),
        ("recipe.yaml", {"model": "no/such/folder"}, RecipeError, "there is no folder no/such/folder"),
        ("missing.yaml", {}, UserError, "there is no recipe"),
        (7, {}, TypeError, "a recipe is a path, a mapping or a loaded recipe, not int"),
        ({"sources": [{"path": "x.jsonl"}]}, {}, UserError, "trains nothing in steps; these do: grpo"),
    ],
)
def test_what_can_not_be_trained(
    folder: Path, recipe: Any, arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    recipe = folder / recipe if isinstance(recipe, str) else recipe
    with pytest.raises(error, match=sentence):
        r1rl.train(recipe, **arguments)


def test_rewards_are_checked_before_the_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks_for_more(completions: list[str], level: list[int]) -> list[float]:
        return [0.0] * len(completions)

    monkeypatch.setattr(
        "transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    with pytest.raises(UserError, match=r"asks_for_more.*level"):
        r1rl.train(folder / "recipe.yaml", rewards=[asks_for_more])
