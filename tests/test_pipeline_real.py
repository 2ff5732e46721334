"""`r1rl pipeline` with the commands themselves, on a policy of a few thousand parameters."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from r1rl.config.bundled import PACKAGE

PIPELINE = """\
run_name: chain
stages:
  - name: base
    command: pretrain
    recipe: recipes/pretrain/tiny.yaml
    set:
      max_steps: 3
      batch_tokens: 512
      corpus.documents: 200
      architecture:
        {hidden_size: 16, num_layers: 1, num_heads: 2, num_key_value_heads: 1, head_dim: 8,
         intermediate_size: 32}
      measured_problems: 0
  - name: r1_zero
    command: grpo
    recipe: grpo.yaml
    set: {model.path: "${base.model}"}
  - name: samples
    command: generate
    recipe: generate.yaml
    set: {model.path: "${r1_zero.model}"}
  - name: again
    command: grpo
    recipe: grpo.yaml
    set:
      model.path: "${r1_zero.model}"
      data: {source: "${samples.data}", columns: {problem: problem}}
  - name: scores
    command: evaluate
    recipe: recipes/evaluate/tiny.yaml
    set:
      models:
        - {name: base, path: "${base.model}"}
        - {name: r1_zero, path: "${r1_zero.model}"}
        - {name: again, path: "${again.model}"}
      benchmarks: [countdown]
      num_problems: 8
      num_samples: 2
      max_completion_length: 16
"""
GRPO = """\
run_name: x
max_steps: 4
data: {source: countdown, arguments: {count: 32}}
prompt: {template: plain}
rewards: [{function: countdown}]
rollout: {num_prompts: 2, num_generations: 2, max_completion_length: 12}
checkpoint: {every_steps: 1}
logging: {live: false}
"""
GENERATE = """\
run_name: x
data: {source: countdown, arguments: {count: 12}}
prompt: {template: plain}
num_samples: 2
max_completion_length: 12
"""
STAGES = ["base", "r1_zero", "samples", "again", "scores"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("pipeline.yaml", PIPELINE), ("grpo.yaml", GRPO), ("generate.yaml", GENERATE)):
        (tmp_path / name).write_text(text)
    return tmp_path


def start(folder: Path, *overrides: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "ACCELERATE_USE_CPU": "true"}
    words = [sys.executable, "-m", "r1rl", "pipeline", "pipeline.yaml", *overrides]
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(folder: Path) -> dict[str, str]:
    """Return the time at which each finished stage ended."""
    path = folder / "runs/chain/pipeline.json"
    if not path.is_file():
        return {}
    stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
    return {name: record["finished"] for name, record in stages.items() if record["state"] == "finished"}


@pytest.mark.slow
def test_killed_five_times_the_chain_finishes_and_loses_and_repeats_nothing(folder: Path) -> None:
    chance, kills, before = random.Random(0), 0, {}
    while True:
        process = start(folder)
        if kills < 5:
            time.sleep(chance.uniform(5.0, 30.0))
            if process.poll() is None:
                process.kill()
                kills += 1
        output = process.communicate(timeout=600)[0].decode()
        now = finished(folder)
        # What was finished stays, and was not done again.
        assert {name: now.get(name) for name in before} == before, output
        before = now
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
    assert list(before) == STAGES
    chain = folder / "runs/chain"
    rows = [
        json.loads(line)
        for line in (chain / "samples/completions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert Counter((row["id"], row["sample"]) for row in rows) == {
        (row["id"], sample): 1 for row in rows for sample in (0, 1)
    }
    assert len(rows) == 24
    for name in STAGES:
        assert json.loads((chain / name / "provenance.json").read_text(encoding="utf-8"))["stage"] == name
    metrics = [
        json.loads(line)["step"]
        for line in (chain / "r1_zero/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert metrics == [1, 2, 3, 4]
    scores = json.loads((chain / "summary.json").read_text(encoding="utf-8"))["scores"]
    assert [score["model"] for score in scores] == ["base", "r1_zero", "again"]
    assert all(len(score["accuracy"]["ci95"]) == 2 for score in scores)
    assert start(folder).wait(timeout=120) == 0
    assert finished(folder) == before
