"""`r1rl evaluate` from the command line: the path itself is proven, and interrupted evaluations resume."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from evaluate_helpers import completion, evaluate_scripted, serving, write_jsonl, write_recipe
from tiny_policy import save_tiny_policy

from r1rl.cli import main as cli
from r1rl.config.bundled import PACKAGE
from r1rl.sampling_jobs.loading import load_target_model

OWN = [{"id": f"own-{i}", "problem": f"What is {i}+{i}?", "answer": str(2 * i)} for i in range(40)]


def evaluate(tmp_path: Path, reply: Callable[[str, dict[str, Any]], Any], *overrides: str) -> dict[str, Any]:
    """Return the figures of a scripted model on OWN."""
    own = write_jsonl(tmp_path / "own.jsonl", OWN)
    return evaluate_scripted(tmp_path, str(own), reply, "num_samples=1", *overrides)


def folder_of(tmp_path: Path) -> Path:
    return tmp_path / "runs/proof/scripted/own"


def test_an_interrupted_evaluation_samples_only_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def reply(path: str, body: dict[str, Any]) -> str:
        return f"\\boxed{{{body['seed'] % 7}}}"

    whole = evaluate(tmp_path, reply, "num_samples=3")
    log = folder_of(tmp_path) / "samples-00000.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 120
    log.write_text("".join(lines[:50]) + lines[50][:30], encoding="utf-8")
    asked: list[Any] = []
    again = evaluate(
        tmp_path, lambda path, body: asked.append(body["prompt"]) or reply(path, body), "num_samples=3"
    )
    assert len(asked) == 70 and again == whole
    assert sorted(log.read_text(encoding="utf-8").splitlines(keepends=True)) == sorted(lines)
    assert "120 completions, 50 of them from before" in capsys.readouterr().out


def test_completions_of_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(tmp_path, lambda path, body: "\\boxed{2}")
    recipe = str(tmp_path / "r.yaml")
    capsys.readouterr()
    assert cli.main(["evaluate", recipe, "sampling.temperature=0.9", "seed=3"]) == 2
    message = capsys.readouterr().err
    assert "sampling.temperature: 0.6 and 0.9" in message and "seed: 0 and 3" in message
    (tmp_path / "runs/proof/config.yaml").write_text("run_name: proof\nrewards: []\n", encoding="utf-8")
    assert cli.main(["evaluate", recipe]) == 2
    assert "is the run of another command" in capsys.readouterr().err


def test_compare_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = {row["problem"]: row["answer"] for row in OWN}
    for name, text in (
        ("a", lambda prompt: "\\boxed{-1}"),
        ("b", lambda prompt: f"\\boxed{{{gold[prompt]}}}"),
    ):
        with serving(lambda path, body, text=text: text(body["prompt"])) as server:
            recipe = write_recipe(
                tmp_path / "r.yaml", server.url, str(write_jsonl(tmp_path / "own.jsonl", OWN))
            )
            assert cli.main(["evaluate", str(recipe), f"run_name={name}", f"models.0.name=model-{name}"]) == 0
    first, second = str(tmp_path / "runs/a"), str(tmp_path / "runs/b/model-b")
    capsys.readouterr()
    assert cli.main(["evaluate", "--compare", first, second]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "own: model-b minus model-a is +100.0 points, 95 % interval +81.4 to +100.0 (paired over 40 problems)"
        in out
    )
    assert cli.main(["evaluate", "--compare", first]) == 2
    assert "--compare needs 2 values" in capsys.readouterr().err


def small_recipe(tmp_path: Path) -> Path:
    save_tiny_policy(tmp_path / "model")
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        f"run_name: small\noutput_dir: {tmp_path / 'runs'}\nmodels: [{{name: tiny, path: "
        f"{tmp_path / 'model'}}}]\n"
        "benchmarks: [arithmetic]\nnum_problems: 24\nnum_samples: 4\nmax_completion_length: 48\nmax_rows: 4\n"
        "prompt: {template: plain}\nsampling: {temperature: 1.0, top_p: 1.0}\n",
        encoding="utf-8",
    )
    return recipe


def run(recipe: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", *words, "evaluate", str(recipe)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def outcome(folder: Path) -> tuple[Any, list[str]]:
    """Return the figures, and the log without its order."""
    lines = [
        line
        for path in folder.glob("tiny/arithmetic/samples-*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))["scores"], sorted(lines)


def test_kill_in_the_middle_and_start_again_is_the_same_as_uninterrupted(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    log = tmp_path / "runs/killed/tiny/arithmetic/samples-00000.jsonl"
    command = [*run(recipe, "r1rl"), "run_name=killed"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.read_bytes().count(b"\n") >= 8):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = log.read_bytes().count(b"\n")
    assert 8 <= done < 96, "it was to be killed in the middle"
    assert cli.main(["evaluate", str(recipe), "run_name=killed"]) == 0
    assert cli.main(["evaluate", str(recipe), "run_name=whole"]) == 0
    killed, whole = outcome(tmp_path / "runs/killed"), outcome(tmp_path / "runs/whole")
    assert len(killed[1]) == 96 == len(set(killed[1]))
    assert killed == whole


def test_the_score_at_a_lower_limit_is_that_of_a_run_with_this_limit(tmp_path: Path) -> None:
    recipe = str(small_recipe(tmp_path))
    words = [
        "benchmarks=[countdown]",
        "models.0={name: tiny, path: embedded}",
        "max_rows=0",
        'prompt.prefill=" <think>"',
    ]
    assert cli.main(["evaluate", recipe, *words, "run_name=long", "max_completion_length=96"]) == 0
    assert cli.main(["evaluate", recipe, *words, "run_name=short", "max_completion_length=32"]) == 0
    pages = [
        (tmp_path / f"runs/{name}/summary.json").read_text(encoding="utf-8") for name in ("long", "short")
    ]
    long, short = (json.loads(page)["scores"][0] for page in pages)
    assert [(entry["limit"], entry["is_lower_bound"]) for entry in long["by_limit"]] == [
        (32, False),
        (64, False),
        (96, False),
    ]
    assert long["by_limit"][0]["accuracy"] == short["accuracy"] != long["accuracy"]
    assert long["by_limit"][-1]["accuracy"] == long["accuracy"]
    assert long["by_limit"][0]["truncated_rate"] == short["truncated_rate"]["value"] > 0.0


@pytest.mark.slow
def test_many_kills_at_random_moments(tmp_path: Path) -> None:
    """A server that kills the evaluation somewhere among its next requests, again and again, from two
    processes too.
    """
    moments = random.Random(5)
    state: dict[str, Any] = {"process": None, "left": 0}
    counted = threading.Lock()

    def reply(path: str, body: dict[str, Any]) -> str:
        time.sleep(0.005)
        with counted:
            state["left"] -= 1
            if state["process"] is not None and state["left"] <= 0:
                kill_family(state["process"].pid)
                state["process"] = None
        return f"\\boxed{{{body['seed'] % 3}}} {body['seed']}"

    write_jsonl(tmp_path / "own.jsonl", OWN)
    kept: set[tuple[str, int]] = set()
    with serving(reply) as server:
        recipe = write_recipe(tmp_path / "r.yaml", server.url, str(tmp_path / "own.jsonl"))
        for kill in range(6):
            launcher = (
                ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "r1rl"]
                if kill % 3 == 2
                else ["r1rl"]
            )
            state["left"], before = moments.randrange(1, 50), len(server.requests)
            command = [*run(recipe, *launcher), "num_samples=8"]
            environment = {**ENVIRONMENT, "ACCELERATE_USE_CPU": "true"}
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            state["process"] = process = subprocess.Popen(command, env=environment, **quiet)
            assert process.wait(timeout=120) != 0 and state["process"] is None, (
                "it was to be killed in the middle"
            )
            asked = [(body["prompt"], body["seed"]) for _, body in server.requests[before:]]
            assert len(set(asked)) == len(asked) and not set(asked) & kept, (
                "sampled again although it was in the log"
            )
            lines = [
                json.loads(line)
                for file in folder_of(tmp_path).glob("samples-*.jsonl")
                for line in whole_lines(file)
            ]
            texts = {row["id"]: row["problem"] for row in OWN}
            kept = {(texts[line["problem"]], line["seed"] % 2**31) for line in lines}
            assert len(kept) == len(lines)
        assert 0 < len(kept) < 320
        assert cli.main(["evaluate", str(recipe), "num_samples=8"]) == 0
        # Twice only what was under way: 16 requests of each process.
        assert len(server.requests) - 320 <= 6 * 2 * 16
        assert cli.main(["evaluate", str(recipe), "num_samples=8", "run_name=whole"]) == 0
    killed, whole = (
        json.loads((tmp_path / f"runs/{name}/summary.json").read_text("utf-8"))["scores"]
        for name in ("proof", "whole")
    )
    assert killed == whole
    logs = [
        sorted(
            line
            for file in (tmp_path / f"runs/{name}/scripted/own").glob("samples-*.jsonl")
            for line in whole_lines(file)
        )
        for name in ("proof", "whole")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 320


def kill_family(pid: int) -> None:
    """Send SIGKILL to a process and all that it started, which a launcher puts into sessions of their own."""
    parent = psutil.Process(pid)
    family = [*parent.children(recursive=True), parent]
    for one in family:
        one.kill()


def whole_lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")[:-1]


@pytest.mark.slow
def test_two_processes_give_the_same_result(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "r1rl"]
    environment = {**ENVIRONMENT, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*run(recipe, *launcher), "run_name=two"], env=environment, check=True, capture_output=True, text=True
    )
    assert "tiny, arithmetic (the share of one of 2 processes): 48 completions" in done.stdout
    assert cli.main(["evaluate", str(recipe), "run_name=one"]) == 0
    two, one = outcome(tmp_path / "runs/two"), outcome(tmp_path / "runs/one")
    assert len(list((tmp_path / "runs/two").rglob("samples-*.jsonl"))) == 2
    assert two == one


def test_a_models_memory_is_free_before_the_next_one_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Any]] = []
    held: list[int] = []

    def load(*arguments: Any) -> Any:
        held.append(sum(reference() is not None for reference in alive))
        model = load_target_model(*arguments)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr("r1rl.sampling_jobs.samplers.load_target_model", load)
    other = save_tiny_policy(tmp_path / "other", seed=1)
    recipe = str(small_recipe(tmp_path))
    assert (
        cli.main(
            ["evaluate", recipe, "num_problems=2", "max_completion_length=4", f"models.1={{path: {other}}}"]
        )
        == 0
    )
    assert held == [0, 0]


def test_every_step_of_a_run_and_the_model_that_it_started_from(tmp_path: Path) -> None:
    start = save_tiny_policy(tmp_path / "model")
    for step in (10, 20):
        save_tiny_policy(tmp_path / f"trained/checkpoints/step-{step:06d}", seed=step)
    (tmp_path / "trained/config.yaml").write_text(f"model: {{path: {start}}}\n", encoding="utf-8")
    recipe = small_recipe(tmp_path)
    words = [
        "num_problems=3",
        "max_completion_length=8",
        f"models.0={{name: tiny, path: {tmp_path / 'trained'}, every_step: true}}",
    ]
    assert cli.main(["evaluate", str(recipe), *words]) == 0
    summary = json.loads((tmp_path / "runs/small/summary.json").read_text(encoding="utf-8"))
    assert [score["model"] for score in summary["scores"]] == [
        f"tiny-step-{step:06d}" for step in (0, 10, 20)
    ]
    assert [difference["first"] for difference in summary["differences"]] == ["tiny-step-000000"] * 2
    page = (tmp_path / "runs/small/report.html").read_text(encoding="utf-8")
    assert "Over training steps" in page
    manifests = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (tmp_path / "runs/small").rglob("manifest.json")
    ]
    assert len({manifest["model"]["weights"] for manifest in manifests}) == 3
    assert {manifest["model"]["step"] for manifest in manifests} == {0, 10, 20}


def test_contamination_probe_finds_a_model_that_recites(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "problem": " ".join(random.Random(i).choices("abcdefgh", k=20)), "answer": "1"}
        for i in range(6)
    ]
    write_jsonl(tmp_path / "long.jsonl", rows)
    texts = [row["problem"] for row in rows]

    def reply(path: str, body: dict[str, Any]) -> Any:
        prompt = body["prompt"]
        known = next(text for text in [*texts[:4], prompt + " x"] if text.startswith(prompt))
        return completion(known.removeprefix(prompt) + " and on")

    with serving(reply) as server:
        recipe = write_recipe(
            tmp_path / "r.yaml", server.url, str(tmp_path / "long.jsonl"), extra="contamination_probe: 0.6\n"
        )
        assert cli.main(["evaluate", str(recipe), "num_samples=1"]) == 0
    scores = json.loads((tmp_path / "runs/proof/summary.json").read_text(encoding="utf-8"))["scores"]
    assert [(score["benchmark"], score["num_samples"]) for score in scores] == [
        ("long", 1),
        ("long-recited", 1),
    ]
    assert scores[1]["accuracy"]["value"] == pytest.approx(4 / 6)


def test_a_limit_beyond_the_models_context_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(small_recipe(tmp_path)), "max_completion_length=250"]) == 2
    message = capsys.readouterr().err
    assert (
        "models: tiny can't hold the prompts and completions:\n  arithmetic: the longest prompt has "
        in message
    )
    assert "but the model's configuration allows 256\nmax_completion_length=" in message
    assert not list(tmp_path.rglob("manifest.json"))
    fits = int(message.split("max_completion_length=")[1].split()[0])
    assert cli.main(["evaluate", str(tmp_path / "small.yaml"), f"max_completion_length={fits + 1}"]) == 2
    # Nothing was sampled, so nothing keeps the same folder from being used with another limit.
    capsys.readouterr()
    assert (
        cli.main(["evaluate", str(tmp_path / "small.yaml"), "max_completion_length=4", "num_problems=2"]) == 0
    )
    assert re.search(
        r"tiny: up to \d+ tokens of prompt and 4 of completion \(arithmetic\); the model holds 256\n",
        capsys.readouterr().out,
    )


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("{path: empty}", "models.0.path: the folder empty has no config.json and no checkpoints"),
        ("{path: runs/none/x}", "models.0.path: there is no folder runs/none/x"),
        (
            "{path: adapter}",
            "models.0.path: adapter holds a PEFT adapter, but its adapter_config.json names no model",
        ),
        ("{path: run}", "models.0.path: run/checkpoints has no whole checkpoint."),
        ("{path: run, step: 5}", "models.0.step: run has no checkpoint of step 5; it has: none."),
        ("{path: embedded, step: 5}", "models.0.step is set, but embedded is no run directory"),
        (
            "{path: embedded, every_step: true}",
            "models.0.every_step is set, but embedded is no run directory",
        ),
        (
            "{path: embedded}, {path: lost/run}",
            "models: run can't be loaded from lost/run, which is no folder here",
        ),
        ("{path: run, every_step: true, step: 5}", "models.0 has both step and every_step: leave one out"),
    ],
)
def test_models_that_are_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for folder in ("empty", "adapter", "run/checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "adapter/adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "r.yaml").write_text(
        f"run_name: e\nmodels: [{model}]\nbenchmarks: [arithmetic]\n", encoding="utf-8"
    )
    assert cli.main(["evaluate", "r.yaml"]) == 2
    assert not (tmp_path / "runs").exists()
    assert sentence in capsys.readouterr().err
