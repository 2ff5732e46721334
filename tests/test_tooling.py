"""The tools of development: what `make lint` and the pre-commit hooks run, and the lock file."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.write_lock import declared

ROOT = Path(__file__).resolve().parents[1]
LOCK_LINES = [
    line
    for line in (ROOT / "requirements-dev.lock").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
LOCKED = dict(line.split("==") for line in LOCK_LINES)


def commands_of(target: str) -> list[str]:
    """Return what `make target` would run with the tools of its environment, without their options."""
    shown = subprocess.run(
        ["make", target, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"^\.venv/bin/python -m (ruff check|ruff format --check|mypy|pytest)\b", shown, re.M)


def test_make_test_runs_the_lint_and_then_the_tests() -> None:
    assert commands_of("lint") == ["ruff check", "ruff format --check", "mypy"]
    assert commands_of("test") == [*commands_of("lint"), "pytest"]


def test_hooks_run_what_make_lint_runs_without_a_network() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    entries = [hook["entry"].removeprefix(".venv/bin/python -m ") for hook in hooks]
    assert [entry.removesuffix(" --force-exclude") for entry in entries] == commands_of("lint")


@pytest.mark.parametrize("requirement", list(declared()), ids=str)
def test_the_lock_has_every_dependency_in_its_range(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    assert name in LOCKED, f"{name} is not in requirements-dev.lock: run make lock"
    assert requirement.specifier.contains(LOCKED[name], prereleases=True)


def test_the_lock_names_versions_only() -> None:
    """One file serves all builds of torch and all package indexes."""
    assert list(LOCKED) == sorted(LOCKED)
    for line in LOCK_LINES:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line


def test_the_readme_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    sentence = re.search(r"\(extras: (.*?)\)", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == set(extras)
