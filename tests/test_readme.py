"""Every code block of the README works: Python runs, YAML is part of a valid recipe, commands run in a small
form.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_policy import save_tiny_policy

from r1rl.cli.launch import missing_cpu_processes
from r1rl.cli.main import main
from r1rl.config.load import load_recipe
from r1rl.runs.run_directory import RunDirectory

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.S | re.M)
COMMANDS = [
    line for language, block in BLOCKS if language == "bash" for line in block.splitlines() if line.strip()
]
SMALL = [
    "rollout.num_prompts=2",
    "rollout.num_generations=2",
    "rollout.max_completion_length=8",
    "data.arguments.count=16",
    "evaluation.data.arguments.count=2",
    "evaluation.num_problems=2",
    "evaluation.during_problems=2",
    "logging.live=false",
]


def blocks(language: str) -> list[str]:
    return [block for name, block in BLOCKS if name == language]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("readme")
    save_tiny_policy(place / "policy")
    return place


def test_blocks_are_of_the_languages_that_are_tested() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python", "yaml", "text"}


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    result = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_r1rl_commands_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    small = [*SMALL, f"model.path={place / 'policy'}"]
    commands = [shlex.split(line)[1:] for line in COMMANDS if line.startswith("r1rl ")]
    assert [command[0] for command in commands] == ["check", "grpo", "grpo", "evaluate", "pipeline"]
    settings = {"evaluate": ["num_problems=2", "num_samples=1", "max_completion_length=8"], "pipeline": []}
    for words in commands:
        # Small steps instead of the README's; the resumed command must still ask for more of them than the
        # first.
        steps = ["max_steps=2" if "--resume" in words else "max_steps=1"] if words[0] == "grpo" else []
        flags = [word for word in words if word.startswith("--")]
        chosen = settings.get(words[0], [*small, *steps])
        assert main([*(word for word in words if word not in flags), *chosen, *flags]) == 0, words
    assert [record["step"] for record in RunDirectory(place / "runs" / "mine").read_metrics()] == [1, 2]
    assert (place / "runs" / "evaluate-tiny" / "report.html").exists()


def test_accelerate_command_starts_the_processes_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = (shlex.split(line) for line in COMMANDS if line.startswith("accelerate "))

    class Launcher:
        def __init__(self, pid: int) -> None:
            pass

        def cmdline(self) -> list[str]:
            return command

    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr("psutil.Process", Launcher)
    assert missing_cpu_processes() == 2


def test_own_reward_is_used_from_a_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    code = next(block for block in blocks("python") if "def brevity" in block)
    assert len(code.strip().splitlines()) <= 10
    (place / "my_reward.py").write_text(code)
    recipe = yaml.safe_load((ROOT / "recipes" / "zero_rl" / "tiny.yaml").read_text(encoding="utf-8"))
    recipe |= yaml.safe_load(next(block for block in blocks("yaml") if "my_reward.py" in block))
    (place / "mine.yaml").write_text(yaml.safe_dump(recipe))
    assert (
        main(
            ["grpo", "mine.yaml", "run_name=reward", "max_steps=1", f"model.path={place / 'policy'}", *SMALL]
        )
        == 0
    )
    (record,) = RunDirectory(place / "runs" / "reward").read_metrics()
    assert "rewards/brevity/seconds" in record


def test_own_reward_scores_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "readme_reward.py").write_text(
        next(block for block in blocks("python") if "def brevity" in block)
    )
    monkeypatch.syspath_prepend(tmp_path)
    brevity = importlib.import_module("readme_reward").brevity
    ids = [[0] * 50, [0] * 90, [0] * 300, [0]]
    # Budget 60: 50 tokens are within it; 90 give 2 - 90/60 = 0.5; 300 give 2 - 5 < 0; the last is wrong.
    assert brevity([""] * 4, ids, [1.0, 1.0, 1.0, 0.0], budget=60) == [1.0, 0.5, 0.0, None]


def test_own_data_block_is_part_of_a_valid_recipe(place: Path) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "zero_rl" / "tiny.yaml").read_text(encoding="utf-8"))
    recipe |= yaml.safe_load(next(block for block in blocks("yaml") if "problems.jsonl" in block))
    (place / "data.yaml").write_text(yaml.safe_dump(recipe))
    assert load_recipe("grpo", place / "data.yaml").data.columns == {
        "problem": "question",
        "answer": "solution",
    }


def test_grading_example_prints_correct() -> None:
    code = next(block for block in blocks("python") if "r1rl.grading" in block)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert result.stdout.strip() == "correct", result.stderr


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
