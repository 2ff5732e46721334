"""Runs of tiny models for tests: what a `grpo` run needs, two processes, and what a run left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_policy import save_tiny_policy
from transformers import AutoModelForCausalLM

from r1rl.config.load import load_recipe
from r1rl.grpo.run import run
from r1rl.models.checkpoint_folders import find_checkpoint
from r1rl.runs.run_directory import RunDirectory

Job = Callable[[Any, Path, str | None], None]

TIMES = ("time/", "tokens_per_second", "/seconds")

REWARD = '''
def lowercase(completions, **columns):
    """The share of small letters, of which a random policy writes some."""
    return [sum(map(str.islower, text)) / max(1, len(text)) for text in completions]
'''

HELD_OUT = """
evaluation:
  data: {source: countdown, split: test, arguments: {count: 6}}
  num_problems: 6
  during_problems: 4
  num_samples: 2
checkpoint: {every_steps: 2}
"""
"""The evaluation and the checkpoints of runs of any kind."""

RECIPE = """
run_name: test
output_dir: {folder}/runs
max_steps: 4
model: {{path: {folder}/policy, dtype: float32}}
data: {{source: countdown, arguments: {{count: 64}}}}
prompt: {{template: plain}}
rewards:
  - {{function: {folder}/reward.py:lowercase, weight: 1.0}}
  - {{function: countdown, weight: 0.1}}
rollout: {{num_prompts: 4, num_generations: 4, max_completion_length: 12}}
optimizer: {{learning_rate: 1.0e-2}}
{held_out}
logging: {{live: false, completions_every: 2, show_completions: 0}}
"""


def prepare(folder: Path) -> Path:
    """Put a random policy, a reward and a recipe into the folder, and return it."""
    save_tiny_policy(folder / "policy")
    (folder / "reward.py").write_text(REWARD)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, held_out=HELD_OUT))
    return folder


def train(folder: Path, *overrides: str, resume: str | None = None) -> RunDirectory:
    """Run `r1rl grpo` with the folder's recipe, in this process."""
    return do_run("grpo", run, folder / "recipe.yaml", *overrides, resume=resume)


def do_run(command: str, job: Job, path: Path, *overrides: str, resume: str | None = None) -> RunDirectory:
    """Run a recipe of this command by its function, and return the run directory."""
    recipe = load_recipe(command, path, overrides)
    job(recipe, path, resume)
    return RunDirectory.latest(recipe.output_dir, recipe.run_name)


def start_two(
    command: str,
    recipe: Path,
    *words: str,
    launcher: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> RunDirectory:
    """Run a command of r1rl with a recipe in two processes on the CPU, which must succeed, and return its run
    directory.

    `launcher` are Python's arguments before the command, if not those of accelerate's launcher.
    """
    launcher = launcher or ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "r1rl")
    root = str(Path(__file__).parent.parent)
    result = subprocess.run(
        [sys.executable, *launcher, command, str(recipe), *words],
        capture_output=True, text=True, cwd=recipe.parent, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, **(environment or {})},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 process(es)" in result.stdout
    loaded = load_recipe(command, recipe, [word for word in words if "=" in word])
    return RunDirectory.latest(loaded.output_dir, loaded.run_name)


def untimed(directory: RunDirectory) -> list[dict[str, Any]]:
    """Return the metrics of every step without those that depend on the clock."""
    return [
        {k: v for k, v in record.items() if not any(part in k for part in TIMES)}
        for record in directory.read_metrics()
    ]


def newest(directory: RunDirectory) -> Path:
    """Return the run's last checkpoint."""
    checkpoint = find_checkpoint(directory.checkpoints)
    assert checkpoint is not None
    return checkpoint


def final_weights(directory: RunDirectory) -> dict[str, torch.Tensor]:
    """Return the weights of the causal language model in the run's last checkpoint."""
    return AutoModelForCausalLM.from_pretrained(newest(directory)).state_dict()
