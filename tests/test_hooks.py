"""The hooks of a run: every event and its order, from a recipe and from Python, refusals, and a hook that
raises.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from run_helpers import do_run, prepare, start_two, train, untimed

from r1rl.cli.main import main
from r1rl.config.load import load_recipe
from r1rl.errors import HookError
from r1rl.grpo.run import GRPORun
from r1rl.grpo.setup import GRPOParts
from r1rl.runs.hooks import EvaluationRecord, RunEnd, check_hook, load_hooks
from r1rl.runs.inputs import Given
from r1rl.runs.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("on_the_cpu")

HOOKS = '''
from pathlib import Path

FILE = Path(__file__).with_name("events.txt")


class Notes:
    """Writes down every event."""

    def note(self, *words):
        with FILE.open("a") as file:
            print(*words, file=file)

    def on_step(self, run, result):
        self.note("step", run.state.step, "step" not in result.metrics)

    def on_evaluation(self, run, record):
        self.note("evaluation", record.name, record.step, record.figures["num_problems"])

    def on_save(self, run, path):
        self.note("save", path.name, (path / "training" / "state.json").is_file())

    def on_end(self, run, end):
        self.note("end", end.step, end.finished, run.directory.summary_path.exists())


class OnlyTheEnd:
    def on_end(self, run, end):
        Notes().note("only the end")


class Nothing:
    def on_steps(self, run, result):
        pass


class Narrow:
    def on_step(self, run):
        pass


class Demanding:
    def __init__(self, channel):
        self.channel = channel

    on_end = OnlyTheEnd.on_end


ready = Demanding("a channel")


def function(run):
    pass
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepare(tmp_path_factory.mktemp("hooks"))
    (folder / "hooks.py").write_text(HOOKS)
    return folder


def events(folder: Path) -> list[str]:
    """Return the events that were noted since the last time."""
    file = folder / "events.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def start(folder: Path, *overrides: str, hooks: tuple[Any, ...] = (), resume: str | None = None) -> GRPORun:
    """Start a run with hooks given in Python."""
    path = folder / "recipe.yaml"
    return GRPORun.start(load_recipe("grpo", path, overrides), path, resume, Given(hooks=hooks))


class Seen:
    """A hook that keeps its records."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def on_step(self, run: GRPORun, result: Any) -> None:
        assert isinstance(run.parts, GRPOParts)
        self.records.append(result)

    def on_evaluation(self, run: GRPORun, record: EvaluationRecord) -> None:
        self.records.append(record)

    def on_end(self, run: GRPORun, end: RunEnd) -> None:
        self.records.append(end)


# events


def test_every_event_in_its_order_by_path(folder: Path) -> None:
    train(
        folder, "run_name=events", "hooks=[hooks.py:Notes, hooks.py:OnlyTheEnd]", "evaluation.every_steps=3"
    )
    assert events(folder) == [
        "evaluation before 0 6",
        "step 1 True",
        "step 2 True",
        "save step-000002 True",
        "step 3 True",
        "evaluation step-000003 3 4",
        "step 4 True",
        "save step-000004 True",
        "evaluation after 4 6",
        "end 4 True True",
        "only the end",
    ]


def test_hooks_in_python_get_the_records_after_those_of_the_recipe(folder: Path) -> None:
    seen = Seen()

    class Last:
        def on_end(self, run: GRPORun, end: RunEnd) -> None:
            with (folder / "events.txt").open("a") as file:
                file.write("given in Python\n")

    run = start(folder, "run_name=python", "max_steps=1", "hooks=[hooks.py:OnlyTheEnd]", hooks=(seen, Last()))
    run.train()
    before, step, after, end = seen.records
    assert (before.name, before.step, after.name, after.step) == ("before", 0, "after", 1)
    assert before.figures["accuracy"] == run.state.evaluations["before"]["accuracy"]
    assert step.metrics["reward"] == run.directory.read_metrics()[0]["reward"]
    assert len(step.groups) == 4
    assert end == RunEnd(step=1, finished=True)
    assert events(folder) == ["only the end", "given in Python"]


def test_an_object_of_a_module_may_be_named_and_runs_stay_as_they_are(folder: Path) -> None:
    plain = train(folder, "run_name=plain", "max_steps=2", "evaluation.data=null")
    hooked = train(folder, "run_name=hooked", "max_steps=2", "evaluation.data=null", "hooks=[hooks.py:ready]")
    assert events(folder) == ["only the end"]
    assert untimed(hooked) == untimed(plain)


def test_hooks_run_in_the_main_process_only(folder: Path) -> None:
    start_two(
        "grpo",
        folder / "recipe.yaml",
        "run_name=two",
        "max_steps=1",
        "evaluation.data=null",
        "hooks=[hooks.py:Notes]",
    )
    assert events(folder) == ["step 1 True", "save step-000001 True", "end 1 True True"]


def test_a_hook_may_end_the_run_early(folder: Path) -> None:
    class EnoughAtTwo:
        def on_step(self, run: GRPORun, result: Any) -> None:
            if run.state.step == 2:
                run.finish_early()

    run = start(folder, "run_name=early", "max_steps=9", hooks=(EnoughAtTwo(),))
    run.train()
    summary = json.loads(run.directory.summary_path.read_text())
    assert summary["steps"] == 2
    assert summary["evaluations"].keys() == {"before", "after"}
    assert (run.directory.checkpoints / "step-000002").is_dir()


# a hook that raises


class Raises:
    """A hook that raises at its second event of one kind."""

    def __init__(self, event: str) -> None:
        self.event = event
        self.calls = 0

    def raise_at(self, event: str) -> None:
        self.calls += event == self.event
        if event == self.event and self.calls == 2:
            raise ConnectionError("the server is away")
        assert self.calls < 3, "it was called again"

    def on_step(self, run: GRPORun, result: Any) -> None:
        self.raise_at("on_step")

    def on_evaluation(self, run: GRPORun, record: EvaluationRecord) -> None:
        self.raise_at("on_evaluation")

    def on_save(self, run: GRPORun, path: Path) -> None:
        self.raise_at("on_save")


@pytest.mark.parametrize(
    ("event", "raised_after", "stopped_after"),
    [("on_step", 2, 2), ("on_evaluation", 1, 2), ("on_save", 2, 3)],
)
def test_a_hook_that_raises_stops_the_run_and_nothing_is_lost(
    folder: Path, event: str, raised_after: int, stopped_after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (f"run_name={event}", "evaluation.every_steps=1", "checkpoint.every_steps=1", "max_steps=5")
    seen = Seen()
    run = start(folder, *settings, hooks=(Raises(event), seen))
    sentence = rf"hooks: Raises.{event} raised ConnectionError after step {raised_after}: the server is away"
    with pytest.raises(HookError, match=sentence) as caught:
        run.train()
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert "in raise_at" in capsys.readouterr().out  # the traceback, when it happens
    assert seen.records[-1] == RunEnd(step=stopped_after, finished=False)
    directory = run.directory
    assert [record["step"] for record in directory.read_metrics()] == list(range(1, stopped_after + 1))
    assert (directory.checkpoints / f"step-{stopped_after:06d}").is_dir()
    assert not directory.summary_path.exists()
    resumed = start(folder, *settings, hooks=(), resume="latest")
    assert resumed.state.step == stopped_after
    resumed.close()


def test_a_hook_that_raises_at_the_end_leaves_a_finished_run(folder: Path) -> None:
    class Last:
        def on_end(self, run: GRPORun, end: RunEnd) -> None:
            raise OSError("no space")

    run = start(folder, "run_name=last", "max_steps=1", "evaluation.data=null", hooks=(Last(),))
    with pytest.raises(HookError, match=r"Last.on_end raised OSError after step 1: no space"):
        run.train()
    assert json.loads(run.directory.summary_path.read_text())["steps"] == 1


# what can't be a hook


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            "hooks.py:Notess",
            r"Notess does not exist in .*hooks.py. Did you mean Notes\? It has: Notes, OnlyTheEnd",
        ),
        ("hooks.py:Nothing", r"Nothing is a class, not a hook, in .*hooks.py"),
        ("hooks.py:function", r"function is not a hook in .*hooks.py"),
        ("elsewhere.py:Notes", r"'elsewhere.py:Notes': there is no file .*elsewhere.py"),
        ("hooks.py", r"must end in the name of a hook, as in my_package.my_module:MyHook"),
        (
            "hooks.py:Demanding",
            r"making Demanding .* failed: TypeError: .*'channel'.*my_hook = Demanding\(...\)",
        ),
        ("hooks.py:Narrow", r"Narrow.on_step is called with two arguments, the run and a record"),
        ("no.such.module:Notes", r"there is no module no.such.module"),
    ],
)
def test_what_can_not_be_loaded(folder: Path, spec: str, sentence: str) -> None:
    with pytest.raises(HookError, match=rf"hooks: .*{sentence}"):
        load_hooks([spec], folder)


def test_what_nothing_would_call_is_refused() -> None:
    with pytest.raises(
        HookError, match=r"hooks: object has none of the methods on_step, on_evaluation, on_save"
    ):
        check_hook(object())  # type: ignore[arg-type]

    class Narrow:
        def on_step(self, run: Any) -> None: ...

    with pytest.raises(
        HookError, match=r"hooks: Narrow.on_step is called with two arguments, the run and a record"
    ):
        check_hook(Narrow())  # type: ignore[arg-type]


def test_hooks_are_found_before_a_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hooks are also found by `r1rl check`, which makes none."""
    assert main(["check", str(folder / "recipe.yaml"), "hooks=[hooks.py:Notess]"]) == 2
    assert "Did you mean Notes?" in capsys.readouterr().err
    assert main(["check", str(folder / "recipe.yaml"), "hooks=[hooks.py:Demanding]"]) == 0
    monkeypatch.setattr("r1rl.grpo.setup.load_policy", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(HookError, match="Notess does not exist"):
        train(folder, "run_name=misspelt", "hooks=[hooks.py:Notess]")
    assert not RunDirectory(folder / "runs" / "misspelt").path.exists()


# the page, and the other commands


def test_the_hook_of_the_page_works(folder: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "hooks.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    (folder / "early.py").write_text(code.replace("patience=30", "patience=1"))
    directory = train(
        folder, "run_name=plateau", "max_steps=40", "evaluation.data=null", "hooks=[early.py:StopAtPlateau]"
    )
    rewards = [record["reward"] for record in directory.read_metrics()]
    assert len(rewards) < 40
    assert rewards[-1] <= max(rewards[:-1])
    assert all(later > earlier for earlier, later in pairwise(rewards[:-1]))
    assert (directory.path / "newest.txt").read_text() == f"step-{len(rewards):06d}"


@pytest.mark.parametrize("command", ["distill", "sft", "reward-model"])
def test_every_command_that_trains_calls_hooks(folder: Path, command: str, tmp_path: Path) -> None:
    from r1rl.distill import run as distill
    from r1rl.reward_model import run as reward_model
    from r1rl.sft import run as sft

    rows = [
        {"problem": f"Add {n} and 1.", "completion": f" {n + 1}", "chosen": f" {n + 1}", "rejected": " no"}
        for n in range(8)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = OTHER_RECIPES[command].format(folder=folder, rows=tmp_path / "rows.jsonl", out=tmp_path)
    (tmp_path / "recipe.yaml").write_text(text)
    job = {"distill": distill.run, "sft": sft.run, "reward-model": reward_model.run}[command]
    events(folder)
    do_run(command, job, tmp_path / "recipe.yaml", f"hooks=[{folder}/hooks.py:Notes]")
    noted = [line.split()[:2] for line in events(folder)]
    assert [event for event in noted if event[0] != "evaluation"] == [
        ["step", "1"], ["step", "2"], ["save", "step-000002"], ["end", "2"]
    ]  # fmt: skip


OTHER_RECIPES = {
    "distill": """
run_name: distill
output_dir: {out}/runs
max_steps: 2
on_policy: 1
model: {{path: {folder}/policy, dtype: float32}}
teacher: {{path: {folder}/policy}}
data: {{source: countdown, arguments: {{count: 8}}}}
prompt: {{template: plain}}
rollout: {{num_prompts: 2, num_generations: 2, max_completion_length: 8}}
logging: {{live: false}}
""",
    "sft": """
run_name: sft
output_dir: {out}/runs
max_steps: 2
batch_size: 2
max_length: 64
model: {{path: {folder}/policy, dtype: float32}}
data: {{source: {rows}}}
prompt: {{template: plain}}
logging: {{live: false}}
""",
    "reward-model": """
run_name: reward-model
output_dir: {out}/runs
max_steps: 2
batch_size: 2
max_length: 64
model: {{path: {folder}/policy, dtype: float32}}
data: {{source: {rows}}}
logging: {{live: false}}
""",
}
