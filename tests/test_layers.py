"""Imports point downwards only, and what must be quick to start imports nothing heavy."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1rl.config.bundled import PACKAGE, bundled_path

LAYERS = (
    ("types", "errors", "seeds"),
    ("config", "grading", "sandbox", "monitor"),
    ("text", "problems", "models", "objective"),
    ("data", "compute", "attention"),
    ("rewards", "policy"),
    ("rollout",),
    ("scoring", "memory"),
    ("sampling_jobs",),
    ("preflight",),
    ("runs",),
    ("grpo", "distill", "sft", "reward_model", "generate", "select", "pretrain", "evaluation"),
    ("bench", "check"),
    ("pipeline",),
    ("cli", "api"),
    ("__main__",),
)
"""The rooms of the package, lowest layer first.

A room imports from itself and from lower layers only, so rooms of one layer know nothing of each other.
CONTRIBUTING.md says what each is for.
"""

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "trl",
    "matplotlib",
    "sympy",
    "math_verify",
    "pyarrow",
    "pandas",
)
QUICK = (
    "r1rl",
    "r1rl.types",
    "r1rl.errors",
    "r1rl.config.load",
    "r1rl.cli.main",
    "r1rl.cli.help",
    "r1rl.__main__",
)
OPTIONAL = ("vllm", "peft", "wandb", "trackio", "tensorboard")
FOR_REWARDS = (
    "r1rl.types",
    "r1rl.errors",
    "r1rl.grading",
    "r1rl.models",
    "r1rl.sandbox",
    "r1rl.text",
)


def module_name(file: Path) -> str:
    """Return r1rl.config.load for r1rl/config/load.py."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py")) if "_bundled" not in file.parts}
RECORDS = [module for module in MODULES if module.endswith(".command")]
"""The records of the commands, which `find_commands` imports by their names."""


def imports(file: Path, at_import_time: bool = False) -> Iterator[str]:
    """Yield the modules that a file imports.

    With `at_import_time`, those inside functions or under TYPE_CHECKING are left out.
    """
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"), str(file))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the import in full, not relative"
            yield from named_modules(node)
        elif at_import_time and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif at_import_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def named_modules(node: ast.ImportFrom) -> Iterator[str]:
    """Yield the modules of an import: r1rl.models for `from r1rl import models`, r1rl.types for `from
    r1rl.types import Prompt`.
    """
    for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        yield inner if inner in MODULES else str(node.module)


def layer(module: str) -> int | None:
    """Return the number of a module's layer, or None for the package itself, which is above all of them."""
    room = module.split(".")[1] if module.startswith("r1rl.") else None
    return next((number for number, rooms in enumerate(LAYERS) if room in rooms), None)


def is_within(module: str, prefix: str) -> bool:
    return f"{module}.".startswith(f"{prefix}.")


def test_every_module_has_a_layer_and_every_layer_its_rooms() -> None:
    assert [module for module in MODULES if layer(module) is None] == ["r1rl"]
    rooms = {module.split(".")[1] for module in MODULES if "." in module}
    assert sorted(rooms) == sorted(room for rooms_of_layer in LAYERS for room in rooms_of_layer)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_points_upwards_or_sideways(module: str) -> None:
    own = layer(module)
    for imported in imports(MODULES[module]):
        assert not is_within(imported, "scripts"), f"{module} imports {imported}"
        other = layer(imported)
        if own is None or other is None or imported.split(".")[1] == module.split(".")[1]:
            continue
        assert other < own, f"{module} (layer {own}) imports {imported} (layer {other})"


def test_the_objective_knows_only_torch() -> None:
    for module in (module for module in MODULES if is_within(module, "r1rl.objective")):
        names = {name.partition(".")[0] for name in imports(MODULES[module])}
        assert names - set(sys.stdlib_module_names) <= {"torch", "r1rl"}, module


def test_rewards_import_only_the_contract_and_text_helpers() -> None:
    files = sorted(bundled_path("rewards").glob("*.py"))
    assert len(files) >= 3
    for file in files:
        for imported in imports(file):
            if is_within(imported, "r1rl"):
                assert any(is_within(imported, allowed) for allowed in FOR_REWARDS), (
                    f"rewards/{file.name} imports {imported}"
                )


@pytest.mark.parametrize("start", [*QUICK, *RECORDS])
def test_quick_commands_import_nothing_heavy(start: str) -> None:
    """Everything that importing `start` imports in turn, its packages' __init__ included."""
    seen: set[str] = set()
    waiting = [(start, start)]
    while waiting:
        module, path = waiting.pop()
        assert not any(is_within(module, heavy) for heavy in HEAVY), path
        parents = [module.rsplit(".", count)[0] for count in range(module.count(".") + 1)]
        for name in (name for name in parents if name in MODULES and name not in seen):
            seen.add(name)
            waiting += [
                (imported, f"{path} -> {imported}")
                for imported in imports(MODULES[name], at_import_time=True)
            ]


@pytest.mark.parametrize("package", OPTIONAL)
def test_optional_packages_are_imported_in_one_module(package: str) -> None:
    users = [
        module
        for module, file in MODULES.items()
        if any(is_within(imported, package) for imported in imports(file))
    ]
    assert len(users) <= 1, users
    for module in users:
        assert not any(
            is_within(imported, package) for imported in imports(MODULES[module], at_import_time=True)
        ), f"{module} must import {package} where it is used: it may not be installed"


def test_the_walk_sees_what_it_should(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(
        "import os, torch.nn\nfrom typing import TYPE_CHECKING\nfrom r1rl import types\nif TYPE_CHECKING:\n "
        "   import sympy\n"
        "def f():\n    from r1rl.cli.main import main\n",
        encoding="utf-8",
    )
    assert set(imports(file)) == {"os", "torch.nn", "typing", "r1rl.types", "sympy", "r1rl.cli.main"}
    assert set(imports(file, at_import_time=True)) == {"os", "torch.nn", "typing", "r1rl.types"}
    assert layer("r1rl.objective.losses") == layer("r1rl.objective") == 2
    assert layer("r1rl.typesetting") is None
