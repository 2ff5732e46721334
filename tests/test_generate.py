"""`r1rl generate` from the command line: rows, few-shot and verification prompts, resuming, and refusals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from evaluate_helpers import serving, write_jsonl
from tiny_policy import save_tiny_policy

from r1rl.cli import main as cli
from r1rl.config.bundled import PACKAGE
from r1rl.generate.rounds import sample_seed

PROBLEMS = [
    {"id": f"p{i}", "problem": f"What is {i}+{i}?", "answer": str(2 * i), "level": i, "sample": "x"}
    for i in range(6)
]


def write_recipe(tmp_path: Path, extra: str = "") -> str:
    """Write a recipe without a model: an endpoint or a model follows in `extra`."""
    write_jsonl(tmp_path / "problems.jsonl", PROBLEMS)
    start = f"run_name: g\noutput_dir: {tmp_path}/runs\ndata: {{source: problems.jsonl}}\n"
    (tmp_path / "r.yaml").write_text(start + extra, encoding="utf-8")
    return str(tmp_path / "r.yaml")


def rows_of(tmp_path: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (tmp_path / "runs/g/completions.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def summary_of(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "runs/g/summary.json").read_text(encoding="utf-8"))


def server_lines(url: str, **prompt: Any) -> str:
    section = json.dumps({"template": "none", **prompt})
    return f"model: {{path: m, endpoint: {{url: {url}, retries: 3}}}}\nprompt: {section}\n"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


def local_lines(policy: Path) -> str:
    return (
        f"model: {{path: {policy}}}\nprompt: {{template: plain, prefill: ' <think>'}}\nnum_samples: "
        f"3\nmax_completion_length: 12\n"
        "sampling: {temperature: 1.0, top_p: 1.0}\n"
    )


def test_rows_have_the_problem_the_prompt_and_the_completion(tmp_path: Path, policy: Path) -> None:
    assert cli.main(["generate", write_recipe(tmp_path, local_lines(policy))]) == 0
    rows = rows_of(tmp_path)
    assert [(row["id"], row["sample"]) for row in rows] == [(f"p{i}", g) for i in range(6) for g in range(3)]
    row = rows[4]
    assert list(row) == [
        "id", "problem", "answer", "level", "source_sample", "prompt", "prefill", "completion",
        "finish_reason", "tokens", "sample", "seed", "model", "round",
    ]  # fmt: skip
    assert (row["problem"], row["answer"], row["level"], row["source_sample"]) == (
        "What is 1+1?",
        "2",
        1,
        "x",
    )
    assert row["prompt"] == "User: What is 1+1?\nAssistant: <think>" and row["prefill"] == " <think>"
    assert row["seed"] == sample_seed(0, "answer", "p1", 1) and row["model"] == str(policy)
    assert len({row["completion"] for row in rows}) > 12  # each has a random stream of its own
    figures = summary_of(tmp_path)["rounds"]["answer"]
    assert figures["num_completions"] == 18
    assert figures["truncated_rate"] == pytest.approx(
        sum(row["finish_reason"] == "length" for row in rows) / 18
    )
    assert figures["mean_length"] == pytest.approx(sum(row["tokens"] for row in rows) / 18)


def test_an_interrupted_run_samples_only_what_is_missing(tmp_path: Path, policy: Path) -> None:
    recipe = write_recipe(tmp_path, local_lines(policy))
    assert cli.main(["generate", recipe]) == 0
    whole = (tmp_path / "runs/g/completions.jsonl").read_bytes()
    log = tmp_path / "runs/g/answer/samples-00000.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[:7]) + lines[7][:20], encoding="utf-8")  # as kill -9 leaves it
    (tmp_path / "runs/g/completions.jsonl").unlink()
    assert cli.main(["generate", recipe]) == 0
    assert (tmp_path / "runs/g/completions.jsonl").read_bytes() == whole
    assert summary_of(tmp_path)["sampled_in_last_session"] == 11
    assert len(log.read_text(encoding="utf-8").splitlines()) == 18


def test_more_samples_are_added_and_a_part_is_the_same_alone(tmp_path: Path, policy: Path) -> None:
    recipe = write_recipe(tmp_path, local_lines(policy))
    assert cli.main(["generate", recipe]) == 0
    few = {(row["id"], row["sample"]): row["completion"] for row in rows_of(tmp_path)}
    assert cli.main(["generate", recipe, "num_samples=5"]) == 0
    assert summary_of(tmp_path)["sampled_in_last_session"] == 12
    many = {(row["id"], row["sample"]): row["completion"] for row in rows_of(tmp_path)}
    assert len(many) == 30 and few.items() <= many.items()
    assert cli.main(["generate", recipe, "run_name=alone", "data.where={id: p4}", "num_samples=5"]) == 0
    alone = [
        json.loads(line)
        for line in (tmp_path / "runs/alone/completions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["completion"] for row in alone] == [many["p4", g] for g in range(5)]


def test_completions_of_other_settings_are_refused(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, local_lines(policy))
    assert cli.main(["generate", recipe]) == 0
    capsys.readouterr()
    assert cli.main(["generate", recipe, "sampling.temperature=0.5", "seed=1"]) == 2
    message = capsys.readouterr().err
    assert "sampling.temperature: 1.0 and 0.5" in message and "seed: 0 and 1" in message
    (tmp_path / "runs/other").mkdir()
    (tmp_path / "runs/other/config.yaml").write_text("x", encoding="utf-8")
    assert cli.main(["generate", recipe, "run_name=other"]) == 2
    assert "was not made by r1rl generate" in capsys.readouterr().err


def test_prompts_that_leave_no_room_are_counted(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny policy has 256 positions."""
    recipe = write_recipe(tmp_path, local_lines(policy))
    write_jsonl(
        tmp_path / "problems.jsonl",
        [*PROBLEMS, {"id": "long", "problem": "+1" * 200, "answer": "200", "level": 1, "sample": "x"}],
    )
    assert cli.main(["generate", recipe]) == 0
    assert len(rows_of(tmp_path)) == 18 and summary_of(tmp_path)["rounds"]["answer"]["prompts_too_long"] == 3
    assert "3 prompts were too long" in capsys.readouterr().out
    assert cli.main(["generate", recipe, "run_name=none", "max_completion_length=255"]) == 2
    assert "every prompt is too long" in capsys.readouterr().err


def test_demonstrations_stand_before_the_problem(tmp_path: Path) -> None:
    shown = [
        {"problem": "1+2?", "completion": "so 3"},
        {"problem": "{problem}", "completion": "<think> what"},
    ]
    write_jsonl(tmp_path / "shown.jsonl", shown)
    with serving(lambda path, body: "so") as server:
        recipe = write_recipe(
            tmp_path,
            server_lines(server.url, template="plain", prefill=" <think>", demonstrations="shown.jsonl"),
        )
        assert cli.main(["generate", recipe, "data.limit=1"]) == 0
        chat = ["run_name=chat", "prompt.template=chat", "prompt.prefill=''", "data.limit=1"]
        assert cli.main(["generate", recipe, *chat]) == 0
    (_, text), (_, turns) = server.requests
    assert text["prompt"] == (
        "User: 1+2?\nAssistant: <think>so 3\n\nUser: {problem}\nAssistant: <think> what\n\nUser: What is "
        "0+0?\nAssistant: <think>"
    )
    assert turns["messages"] == [
        {"role": "user", "content": "1+2?"}, {"role": "assistant", "content": "so 3"},
        {"role": "user", "content": "{problem}"}, {"role": "assistant", "content": "<think> what"},
        {"role": "user", "content": "What is 0+0?"},
    ]  # fmt: skip


def test_verification_shows_each_first_answer_and_keeps_both(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "shown.jsonl", [{"problem": "1+2?", "completion": "3"}])
    (tmp_path / "check.txt").write_text("Check this.\nQ: {problem}\nA: {completion}\n", encoding="utf-8")

    def reply(path: str, body: dict[str, Any]) -> str:
        return "checked" if body["prompt"].startswith("Check") else f"first {body['seed']}"

    with serving(reply) as server:
        extra = (
            server_lines(server.url, demonstrations="shown.jsonl")
            + "verification: check.txt\nnum_samples: 2\n"
        )
        recipe = write_recipe(tmp_path, extra)
        assert cli.main(["generate", recipe]) == 0
    rows = rows_of(tmp_path)
    assert [(row["id"], row["sample"], row["round"]) for row in rows] == [
        (f"p{i}", g, name) for i in range(6) for g in range(2) for name in ("answer", "verify")
    ]
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["prompt"].startswith("1+2?3\n\nWhat is")  # the demonstrations are for answering
        assert second["prompt"] == f"Check this.\nQ: {first['problem']}\nA: {first['completion']}"
        assert second["problem"] == first["problem"] and second["completion"] == "checked"
        assert second["seed"] == sample_seed(0, "verify", second["id"], second["sample"])


def test_a_question_can_show_columns_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows are completions that were made before, as in rewriting."""
    with serving(lambda path, body: "rewritten") as server:
        recipe = write_recipe(
            tmp_path,
            server_lines(server.url) + 'question: "{problem} | {completion} | {level} | \\\\frac{1}{x}"\n',
        )
        assert cli.main(["generate", recipe]) == 2
        assert "question has {completion}, but the problem p0" in capsys.readouterr().err
        write_jsonl(tmp_path / "problems.jsonl", [{**PROBLEMS[1], "completion": "old {level}"}])
        assert cli.main(["generate", recipe]) == 0
    (row,) = rows_of(tmp_path)
    assert server.requests[-1][1]["prompt"] == "What is 1+1? | old {level} | 1 | \\frac{1}{x}"
    assert (row["problem"], row["completion"], row["source_completion"]) == (
        "What is 1+1?",
        "rewritten",
        "old {level}",
    )


def test_a_refused_request_is_left_out_and_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {"What is 2+2?"}
    with serving(lambda path, body: 400 if body["prompt"] in refused else "so") as server:
        recipe = write_recipe(tmp_path, server_lines(server.url))
        assert cli.main(["generate", recipe]) == 0
        assert [row["id"] for row in rows_of(tmp_path)] == ["p0", "p1", "p3", "p4", "p5"]
        assert summary_of(tmp_path)["rounds"]["answer"]["requests_refused"] == 1
        assert "1 requests were refused, such as:" in capsys.readouterr().out
        refused.clear()
        assert cli.main(["generate", recipe]) == 0
        assert len(rows_of(tmp_path)) == 6 and len(server.requests) == 7
        refused.update(row["problem"] for row in PROBLEMS)
        assert cli.main(["generate", recipe, "run_name=none"]) == 2
        assert "the server refused every request" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("question: solve it\n", "question has no {problem}"),
        ("verification: is it right?\n", "verification has no {completion}"),
        ("num_samples: 2\nsampling: {temperature: 0}\n", "write num_samples: 1"),
        ("model: {step: 3}\n", "the embedded model is no run directory"),
        (
            "verification: nowhere.txt\n",
            "verification: nowhere.txt can't be read: No such file or directory.",
        ),
        (
            "prompt: {demonstrations: nowhere.jsonl}\nmodel: {endpoint: {url: 'http://127.0.0.1:9/v1'}}\n",
            "nowhere.jsonl can't be read",
        ),
    ],
)
def test_recipes_that_contradict_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: str, sentence: str
) -> None:
    assert cli.main(["generate", write_recipe(tmp_path, extra)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_second_run_in_the_same_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner: list[int] = []

    def reply(path: str, body: dict[str, Any]) -> str:
        if not inner:
            inner.append(cli.main(["generate", str(tmp_path / "r.yaml")]))
        return "so"

    with serving(reply) as server:
        assert cli.main(["generate", write_recipe(tmp_path, server_lines(server.url)), "data.limit=1"]) == 0
    assert inner == [2] and "another r1rl generate is writing" in capsys.readouterr().err


@pytest.mark.slow
def test_kill_at_any_moment_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Two processes, killed with their launcher five times; no row is asked for again once it is in a log."""

    def reply(path: str, body: dict[str, Any]) -> str:
        time.sleep(0.02)
        return f"so {body['seed']}"

    rng = random.Random(0)
    with serving(reply) as server:
        recipe = write_recipe(tmp_path, server_lines(server.url) + "num_samples: 100\n")
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(PACKAGE.parent)}
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        launcher = [*torchrun, "-m", "r1rl", "generate", recipe]
        for _ in range(5):
            before = len(server.requests)
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = subprocess.Popen(launcher, env=environment, start_new_session=True, **quiet)
            limit = time.monotonic() + 120
            while len(server.requests) == before and time.monotonic() < limit:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 0.6))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(launcher, env=environment, check=True, timeout=300, stdout=subprocess.DEVNULL)
    rows = rows_of(tmp_path)
    assert [(row["id"], row["sample"]) for row in rows] == [
        (f"p{i}", g) for i in range(6) for g in range(100)
    ]
    assert all(row["completion"] == f"so {row['seed'] % 2**31}" for row in rows)
    logged = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in (tmp_path / "runs/g/answer").glob("*.jsonl")
    )
    assert logged == 600  # nothing was sampled twice
