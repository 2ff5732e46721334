"""The worked examples of docs/extending.md: each diff applies to a copy of the repository, touches as few
files as promised, and does what the check beside it says.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = {section.partition("\n")[0]: section for section in re.split(r"^## ", PAGE, flags=re.M)[1:]}
MOST_FILES = {
    "A loss": 2,
    "An advantage": 1,
    "A reward": 1,
    "A benchmark": 1,
    "An engine": 1,
    "A recipe key": 2,
}
COPIED = ("r1rl", "rewards", "recipes", "pyproject.toml")
SMALL_RUN = [
    "rollout.num_prompts=2",
    "rollout.num_generations=2",
    "rollout.max_completion_length=8",
    "data.arguments.count=16",
    "evaluation.data=null",
    "evaluation.every_steps=0",
    "logging.live=false",
]


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.S | re.M)


def files_of(section: str) -> set[str]:
    """Return the files that the diffs of a section change or make."""
    return set(re.findall(r"^\+\+\+ b/(.*)$", "".join(blocks(section, "diff")), re.M))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package in which every diff of the page is applied."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for section in MOST_FILES:
        for diff in blocks(section, "diff"):
            applied = subprocess.run(
                ["git", "apply", "-"], cwd=folder, input=diff, capture_output=True, text=True, check=False
            )
            assert applied.returncode == 0, f"{section}: {applied.stderr}"
    return folder


SMALL_CHECK = ["data.arguments.count=64"]

DRIVER = """
import contextlib, io, json, sys, traceback
from r1rl.cli.main import main

done = {}
for section, blocks in json.load(sys.stdin).items():
    done[section] = []
    for block in blocks:
        said, failed = io.StringIO(), False
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                if isinstance(block, str):
                    exec(compile(block, section, "exec"), {})
                else:
                    failed = main(block) != 0
            except BaseException:
                failed = True
                traceback.print_exc()
        done[section].append([failed, said.getvalue()])
json.dump(done, sys.__stdout__)
"""
"""One process for all checks, so that torch is imported once: runs blocks of Python and command lines."""


def command_lines(section: str) -> list[list[str]]:
    """Return the words after "r1rl" of each command of a section, with less data and smaller steps."""
    lines = [shlex.split(line) for line in "".join(blocks(section, "bash")).splitlines()]
    assert {words[0] for words in lines} == {"r1rl"}
    small = {"grpo": SMALL_RUN, "check": SMALL_CHECK}
    return [
        [*words[1:], *(small[words[1]] if words[2].startswith("recipes/zero_rl/") else ())] for words in lines
    ]


@pytest.fixture(scope="module")
def checked(copy: Path) -> dict[str, list[tuple[bool, str]]]:
    """Return by section whether each check failed and what it printed: the Python, then the commands."""
    jobs = {section: [*blocks(section, "python"), *command_lines(section)] for section in MOST_FILES}
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=copy,
        env=environment,
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_page_has_these_sections() -> None:
    assert list(SECTIONS) == list(MOST_FILES)


@pytest.mark.parametrize("section", MOST_FILES)
def test_an_example_touches_few_files_and_has_a_check(section: str) -> None:
    assert 1 <= len(files_of(section)) <= MOST_FILES[section]
    assert len(blocks(section, "bash")) >= len(blocks(section, "diff"))


@pytest.mark.parametrize("section", MOST_FILES)
def test_the_checks_of_an_example_pass(checked: dict[str, list[tuple[bool, str]]], section: str) -> None:
    assert [said for failed, said in checked[section] if failed] == []
    commands = checked[section][len(blocks(section, "python")) :]
    for words, (_, said) in zip(command_lines(section), commands, strict=True):
        assert words[0] == "grpo" or "Ready: r1rl" in said


def test_the_examples_are_not_part_of_the_repository() -> None:
    """Without the diffs no check would pass: the files that they make are not there."""
    made = [file for section in MOST_FILES for file in files_of(section) if not (ROOT / file).exists()]
    assert sorted(made) == [
        "countdown4.yaml",
        "my_advantage.py",
        "my_engine.py",
        "my_loss.py",
        "rewards/short_thoughts.py",
    ]
