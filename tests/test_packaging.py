"""A wheel works outside the checkout: built-in rewards, recipes and the embedded model come with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

from r1rl.models import EMBEDDED
from tests.test_layers import MODULES, imports
from tests.test_library_doc import page_script

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCES = ("r1rl", "rewards", "recipes", "pyproject.toml", "setup.py", "LICENSE", "README.md")
PACKAGE_OF_MODULE = {"yaml": "pyyaml", "math_verify": "math-verify"}
LARGEST_MODEL = 8_000_000
"""Bytes of the embedded weights."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy of the sources.

    So no build output is left in the checkout or taken from it.
    """
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        "dist",
        ".",
    ]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel to a folder, without its dependencies."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        str(wheel),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder


def run(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run Python on the installed package, away from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names} == {
        "r1rl",
        next(name for name in names if ".dist-info" in name).partition("/")[0],
    }
    for folder in ("r1rl", "rewards", "recipes"):
        for file in (CHECKOUT / folder).rglob("*"):
            if (
                file.suffix in (".py", ".yaml", ".txt", ".safetensors", ".json")
                and "__pycache__" not in file.parts
            ):
                inside = file.relative_to(CHECKOUT).as_posix()
                assert (inside if folder == "r1rl" else f"r1rl/_bundled/{inside}") in names
    assert "r1rl/py.typed" in names
    assert not any("test" in Path(name).name for name in names)


def test_embedded_models_are_small(wheel: Path) -> None:
    weights = [
        entry for entry in zipfile.ZipFile(wheel).infolist() if entry.filename.endswith(".safetensors")
    ]
    assert len(weights) == len(EMBEDDED)
    assert sum(entry.file_size for entry in weights) <= LARGEST_MODEL


def test_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (
        archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA")
    )
    assert "Requires-Python: >=3.11" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: torch<2.14,>=2.11" in metadata
    assert {f"Provides-Extra: {name}" for name in ("vllm", "tracking", "peft", "dev")} <= set(
        metadata.splitlines()
    )
    (entry_points,) = (
        archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt")
    )
    assert "r1rl = r1rl.cli.main:main" in entry_points


def test_every_imported_package_is_a_dependency() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        re.split(r"[<>=\[ ]", one)[0]
        for one in (*project["dependencies"], *chain(*project["optional-dependencies"].values()))
    }
    own = {"r1rl", *(Path(file).stem for file in (CHECKOUT / "r1rl").rglob("*.py"))}
    files = [*MODULES.values(), *(CHECKOUT / "rewards").glob("*.py")]
    roots = (
        {imported.partition(".")[0] for file in files for imported in imports(file)}
        - set(sys.stdlib_module_names)
        - own
    )
    # Comes with torch's builds for GPUs; only the kernels need it, which nothing imports elsewhere.
    with_torch = {"triton"}
    assert {PACKAGE_OF_MODULE.get(root, root) for root in roots} - with_torch <= declared


def test_rewards_and_recipes_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from r1rl.config.bundled import bundled_path\n"
        "from r1rl.cli.main import find_recipe\n"
        "from r1rl.config.load import load_recipe\n"
        "from r1rl.rewards.loader import built_in_names, load_reward\n"
        "print(bundled_path('rewards'))\n"
        "names = built_in_names()\n"
        "assert {'accuracy', 'countdown', 'format'} <= set(names), names\n"
        "for name in names: assert callable(load_reward(name, Path.cwd()).function)\n"
        "from r1rl.rewards import accuracy, format\n"
        "assert format(completions=['<think> a </think> <answer> 4 </answer>']) == [1.0]\n"
        "print(load_recipe('grpo', find_recipe('recipes/zero_rl/tiny.yaml')).run_name)\n"
        "print(Path(load_recipe('grpo', "
        "find_recipe('zero_rl/qwen2.5-3b_countdown')).prompt.template).is_file())\n"
    )
    folder, name, template = run(installed, tmp_path, "-c", code).split()
    assert Path(folder) == installed / "r1rl" / "_bundled" / "rewards"
    assert (name, template) == ("tiny", "True")


def test_check_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    text = " ".join(run(installed, tmp_path, "-m", "r1rl", "check", "recipes/zero_rl/tiny.yaml").split())
    assert "held out 256 problems x 4 samples" in text
    assert "tokens in the middle" in text
    assert text.endswith("tiny.yaml")


@pytest.mark.slow
def test_the_library_page_runs_from_a_wheel(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(page_script() + "\nprint(r1rl.__file__)\n", encoding="utf-8")
    *_, place = run(installed, tmp_path, "library.py").splitlines()
    assert Path(place).is_relative_to(installed)
