"""`r1rl pipeline`: the stages that run, those that are skipped, resuming, and the files that are written.

pipeline_stage.py stands in for the stages' commands; test_pipeline_real.py runs the commands themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipeline_stage
import pytest

from r1rl.cli import main as cli
from r1rl.pipeline import runner
from r1rl.pipeline.state import locked

PIPELINE = """\
run_name: chain
stages:
  - name: scores
    command: evaluate
    recipe: evaluate.yaml
    set: {models: [{name: base, path: embedded}, {name: last, path: "${second.model}"}]}
  - {name: first, command: grpo, recipe: grpo.yaml, set: {max_steps: 2}}
  - name: second
    command: grpo
    recipe: grpo.yaml
    set: {model.path: "${first.model}", data.source: train.jsonl}
  - {name: apart, command: grpo, recipe: grpo.yaml, set: {max_steps: 1}}
"""
GRPO = """\
run_name: x
max_steps: 3
model: {path: embedded}
data: {source: countdown}
rewards: [{function: countdown}, {function: own.py:own}]
"""
EVALUATE = "run_name: x\nmodels: [{path: embedded}]\nbenchmarks: [countdown]\nnum_problems: 2\n"
ORDER = ["first", "second", "scores", "apart"]

Run = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a pipeline of four stages; `apart` needs nothing, the others need each other in a row."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("pipeline.yaml", PIPELINE), ("grpo.yaml", GRPO), ("evaluate.yaml", EVALUATE)):
        (tmp_path / name).write_text(text)
    (tmp_path / "own.py").write_text(
        "def own(completions, **columns):\n    return [0.0 for _ in completions]\n"
    )
    (tmp_path / "train.jsonl").write_text('{"problem": "make 3 from 1, 2", "numbers": [1, 2], "target": 3}\n')
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the pipeline and tells which stages' commands were started, with the words
    after their recipes.
    """

    def start(*overrides: str, code: int = 0, stop: Callable[[str], int] | None = None) -> list[str]:
        started: list[str] = []

        def process(words: list[str], stage: Path, log: Path) -> int:
            started.append(f"{stage.name}{' --resume' if words[-1] == '--resume' else ''}")
            with log.open("a") as file:
                file.write(f"{stage.name} speaks\n")
            ended = stop(stage.name) if stop is not None else 0
            return ended or pipeline_stage.main(list(words[2:]))

        monkeypatch.setattr(runner, "run_process", process)
        assert cli.main(["pipeline", "pipeline.yaml", *overrides]) == code
        return started

    return start


def state() -> dict[str, Any]:
    return json.loads(Path("runs/chain/pipeline.json").read_text(encoding="utf-8"))["stages"]


def test_stages_run_in_the_order_of_their_needs_and_once(run: Run) -> None:
    assert run() == ORDER
    assert run() == []
    assert {name: record["state"] for name, record in state().items()} == dict.fromkeys(ORDER, "finished")


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("first.optimizer.learning_rate=0.5", ["first", "second", "scores"]),
        ("second.max_steps=2", ["second", "scores"]),
        ("stages.2.set.rollout.temperature=0.5", ["second", "scores"]),
        ("scores.num_problems=3", ["scores"]),
        ("apart.seed=1", ["apart"]),
        ("stages.1.launch.num_processes=2", []),  # how a stage is launched is no input
    ],
)
def test_what_changed_and_what_depends_on_it_runs_again(run: Run, override: str, again: list[str]) -> None:
    run()
    assert run(override) == again
    assert run(override) == []


def test_a_reward_s_file_is_an_input_of_every_stage_that_names_it(run: Run) -> None:
    run()
    Path("own.py").write_text("def own(completions, **columns):\n    return [1.0 for _ in completions]\n")
    assert run() == ORDER


def test_data_and_recipes_are_known_by_their_content(run: Run) -> None:
    run()
    Path("train.jsonl").rename("moved.jsonl")
    assert run("second.data.source=moved.jsonl") == []
    Path("recipe_elsewhere.yaml").write_text("# a remark\n" + GRPO)
    assert run("second.data.source=moved.jsonl", "stages.1.recipe=recipe_elsewhere.yaml") == []
    Path("moved.jsonl").write_text('{"problem": "make 7 from 3, 4", "numbers": [3, 4], "target": 7}\n')
    assert run("second.data.source=moved.jsonl") == ["second", "scores"]


def test_weights_that_were_changed_by_hand_are_another_input(run: Run) -> None:
    run()
    Path("runs/chain/first/checkpoints/step-000002/model.safetensors").write_text("other weights")
    assert run() == ["second", "scores"]


def test_what_runs_again_keeps_what_it_had_left(run: Run) -> None:
    run()
    former = Path("runs/chain/second/provenance.json").read_text()
    run("second.max_steps=2")
    run("second.max_steps=1")
    kept = Path("runs/chain/set-aside")
    assert sorted(path.name for path in kept.iterdir()) == ["scores-1", "scores-2", "second-1", "second-2"]
    assert (kept / "second-1/provenance.json").read_text() == former
    assert (kept / "second-1/checkpoints/step-000003/model.safetensors").is_file()
    assert (kept / "second-1/stage.log").read_text() == "second speaks\n"


def test_an_output_that_is_gone_is_made_again(run: Run) -> None:
    run()
    Path("runs/chain/first/checkpoints/step-000002").rename("elsewhere")
    Path("runs/chain/first/checkpoints/step-000001").rename("elsewhere-1")
    assert run() == ["first"]  # with the same result, so that nothing else has another input


def test_a_failed_stage_goes_on_from_its_checkpoint(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def break_second(name: str) -> int:
        if name == "second":
            (Path("runs/chain/second/checkpoints/step-000001")).mkdir(parents=True)
            (Path("runs/chain/second/config.yaml")).write_text("run_name: second\n")
            return 7
        return 0

    assert run(code=2, stop=break_second) == ["first", "second"]
    error = capsys.readouterr().err
    assert "stage second failed with exit code 7" in error
    assert "runs/chain/second.log. Once mended, the same command goes on here." in error
    assert state()["second"]["state"] == "failed"
    assert run() == ["second --resume", "scores", "apart"]
    assert state()["second"]["attempts"] == 2
    assert Path("runs/chain/second/steps.log").read_text() == "2\n3\n"
    assert Path("runs/chain/second/stage.log").read_text() == "second speaks\nsecond speaks\n"


def test_a_stage_without_a_checkpoint_starts_anew_in_a_clean_folder(run: Run) -> None:
    def break_first(name: str) -> int:
        Path("runs/chain/first").mkdir(parents=True)
        Path("runs/chain/first/config.yaml").write_text("half a line")
        return -9

    assert run(code=2, stop=break_first) == ["first"]
    assert run() == ORDER
    assert Path("runs/chain/set-aside/first-1/config.yaml").read_text() == "half a line"
    assert Path("runs/chain/set-aside/first-1/stage.log").is_file()


def test_an_interrupted_stage_whose_inputs_changed_starts_anew(run: Run) -> None:
    def stop_second(name: str) -> int:
        if name == "second":
            Path("runs/chain/second/checkpoints/step-000001").mkdir(parents=True)
            raise KeyboardInterrupt
        return 0

    assert run(code=130, stop=stop_second) == ["first", "second"]
    assert state()["second"]["state"] == "interrupted"
    assert run("second.seed=5") == ["second", "scores", "apart"]
    assert Path("runs/chain/set-aside/second-1/checkpoints/step-000001").is_dir()


def test_an_evaluation_goes_on_in_its_folder(run: Run) -> None:
    def stop_scores(name: str) -> int:
        if name == "scores":
            Path("runs/chain/scores").mkdir()
            Path("runs/chain/scores/samples.log").write_text("base 0\nlast 1\n")
            return 1
        return 0

    run(code=2, stop=stop_scores)
    assert run() == ["scores", "apart"]
    assert sorted(Path("runs/chain/scores/samples.log").read_text().splitlines()) == [
        "base 0",
        "base 1",
        "last 0",
        "last 1",
    ]


def test_a_stage_that_had_finished_when_the_pipeline_was_killed_is_only_noted(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    path = Path("runs/chain/pipeline.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["stages"]["second"] |= {"state": "running", "finished": None, "outputs": {}, "summary": {}}
    path.write_text(json.dumps(content))
    Path("runs/chain/second/provenance.json").unlink()
    Path("runs/chain/.pipeline.json.partial").write_text('{"half a fi')  # it was writing when it was killed
    assert run() == []
    assert "had finished when the pipeline was killed" in capsys.readouterr().out
    assert state()["second"]["outputs"] == {"model": "checkpoints/step-000003"}
    assert Path("runs/chain/second/provenance.json").is_file()


def test_provenance_says_what_made_a_stage(run: Run) -> None:
    run()
    first, second = (
        json.loads(Path(f"runs/chain/{name}/provenance.json").read_text(encoding="utf-8"))
        for name in ("first", "second")
    )
    assert (second["stage"], second["command"], second["recipe"]) == ("second", "grpo", "grpo.yaml")
    assert second["files"]["model.path"] == {
        "path": "runs/chain/first/checkpoints/step-000002",
        "content": first["outputs"]["model"]["content"],
        "stage": "first",
    }
    assert second["files"]["data.source"]["path"] == "train.jsonl"
    assert "stage" not in second["files"]["data.source"]
    assert second["stages"] == {"first": first["fingerprint"]}
    assert second["inputs"]["max_steps"] == 3
    # Every value, not only those that a recipe writes.
    assert second["inputs"]["optimizer.learning_rate"] == 1e-6
    assert "run_name" not in second["inputs"]
    assert second["command_line"][1:5] == ["-m", "r1rl", "grpo", "grpo.yaml"]
    assert second["r1rl"]
    assert second["started"] <= second["finished"]


def test_the_report_has_the_scores_with_their_intervals(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    page = Path("runs/chain/report.md").read_text(encoding="utf-8")
    # "embedded" has 8 letters; language: the mean of 0.5 and 1.0 over as many completions
    assert "| countdown | base | 2 x 1 | 8.0 % (0.0\u2013100.0) | 20.0 | 25.0 % | 75.0 % |" in page
    assert "accuracy 50.0 % (40.0\u201360.0)" in page
    summary = json.loads(Path("runs/chain/summary.json").read_text(encoding="utf-8"))
    assert [(score["stage"], score["model"]) for score in summary["scores"]] == [
        ("scores", "base"),
        ("scores", "last"),
    ]
    assert "8.0 % (0.0\u2013100.0)" in capsys.readouterr().out


def test_dry_run_tells_what_would_happen_and_writes_nothing(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--dry-run") == []
    assert not Path("runs").exists()
    shown = capsys.readouterr().out
    # 2 steps of 32 prompts x 8 completions of at most 1,024 tokens
    assert "2 steps, 512 completions, at most 524k tokens" in shown
    assert "after second" in shown
    assert "4 stages: 4 to run. Nothing was run." in shown
    run()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    assert run("--dry-run", "first.max_steps=1") == []
    shown = capsys.readouterr().out
    assert "changed: max_steps: 2 -> 1" in shown
    assert "again after first" in shown
    assert "4 stages: 3 to run, 1 to skip. Nothing was run." in shown
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_only_one_pipeline_works_in_a_folder(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(Path("runs/chain")):
        assert run(code=2) == []
    assert "another r1rl pipeline is at work in runs/chain (process " in capsys.readouterr().err
    assert run() == ORDER  # the file that was locked is still there


def test_a_folder_of_something_else_is_left_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/chain").mkdir(parents=True)
    Path("runs/chain/metrics.jsonl").write_text("{}\n")
    assert run(code=2) == []
    assert (
        "runs/chain exists and was not made by r1rl pipeline (it holds metrics.jsonl)"
        in capsys.readouterr().err
    )


def test_a_command_that_leaves_nothing_has_failed(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_stage, "main", lambda words: 0)
    assert run(code=2) == ["first"]
    assert (
        "stage first ended without an error, but runs/chain/first lacks model, run" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "second.model",
            "third.model",
            "refers to ${third.model}; there is no stage third; the stages are scores, first, second, apart",
        ),
        (
            "second.model",
            "second.weights",
            "a stage of r1rl grpo has the outputs ${second.model}, ${second.run}",
        ),
        (
            "set: {max_steps: 2}",
            'set: {model.path: "${second.model}"}',
            "need each other in a circle: second needs first needs second",
        ),
        (
            "set: {max_steps: 2}",
            'set: {model.path: "${first.model}"}',
            "stages need each other in a circle: first needs first",
        ),
        (
            "set: {max_steps: 2}",
            "set: {run_name: mine}",
            "stages.1.set has run_name, but the pipeline itself gives each stage its folder",
        ),
        ("name: apart", "name: first", "stages has two of the name first"),
        ("name: apart", "name: a/b", 'stages.3.name is "a/b"; it names a folder'),
        (
            "command: evaluate",
            "command: evaluation",
            'stages.0.command is the text "evaluation"; expected grpo, distill',
        ),
        (
            "set: {max_steps: 2}",
            "set: {max_step: 2}",
            "stage first: grpo.yaml, override max_step=2: max_step is unknown",
        ),
        (
            "recipe: evaluate.yaml",
            "recipe: evaluat.yaml",
            "stage scores: there is no recipe evaluat.yaml here or",
        ),
        ("recipe: evaluate.yaml", "recipe: grpo.yaml", "stage scores: grpo.yaml is a recipe of r1rl grpo"),
        (
            "train.jsonl",
            "lost.jsonl",
            "stage second (grpo.yaml): data.source: there is no file lost.jsonl in",
        ),
        (
            "set: {max_steps: 2}",
            "set: {model.path: ./lost}",
            "stage first (grpo.yaml): model.path: there is no file or folder ./lost in",
        ),
        (
            "set: {max_steps: 2}",
            "set: {prompt.template: lost.txt}",
            "stage first (grpo.yaml): prompt.template",
        ),
        ("set: {max_steps: 2}", "set: {rewards.0.function: lost.py:f}", "stage first (grpo.yaml): rewards: "),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    run: Run, capsys: pytest.CaptureFixture[str], old: str, new: str, sentence: str
) -> None:
    assert PIPELINE.count(old) == 1
    Path("pipeline.yaml").write_text(PIPELINE.replace(old, new))
    assert run(code=2) == []
    assert sentence in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_stage_can_be_launched_with_accelerate(folder: Path) -> None:
    from r1rl.config.load import load_recipe
    from r1rl.pipeline.stage import command_line, make_stages

    launch = "stages.1.launch={config_file: recipes/accelerate/fsdp2.yaml, num_processes: 4}"
    stages = make_stages(load_recipe("pipeline", "pipeline.yaml", [launch]), Path("pipeline.yaml"))
    words = command_line(stages[0], stages, resume=True)
    assert words[1:4] == ["-m", "accelerate.commands.launch", "--config_file"]
    assert words[4].endswith("recipes/accelerate/fsdp2.yaml")
    assert Path(words[4]).is_file()
    assert words[5:] == [
        "--num_processes", "4", "-m", "r1rl", "grpo", "grpo.yaml", "max_steps=2", "run_name=first",
        "output_dir=runs/chain", "--resume",
    ]  # fmt: skip
