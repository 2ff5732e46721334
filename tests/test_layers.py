"""Imports point downwards only, and what must be quick to start imports nothing heavy.

The layers, lowest first; a module may import its own layer and those below it:

    0  foundation   types, errors, config and what they need
    1  text, maths  side by side: text helpers and the grader | the objective, which knows torch and nothing else of r1rl
    2  components   data, rewards, batching, rollout, checkpoints, monitor
    3  jobs         the preflight, the GRPO trainer, stages, evaluation
    4  commands     the command line
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1rl.bundled import PACKAGE, bundled_path

LAYERS = {
    (0, "foundation"): (
        "r1rl.types", "r1rl.errors", "r1rl.config", "r1rl.bundled", "r1rl.seeds", "r1rl.metric_names", "r1rl.checkpoint_folders",
    ),
    (1, "text"): (
        "r1rl.prompts", "r1rl.demonstrations",
        "r1rl.grading", "r1rl.tags", "r1rl.language", "r1rl.language_words", "r1rl.reflection", "r1rl.problems",
        "r1rl.models", "r1rl.sandbox", "r1rl.scored_text",
    ),
    (1, "maths"): (
        "r1rl.sampling", "r1rl.grpo.advantages", "r1rl.grpo.aggregation", "r1rl.grpo.kl", "r1rl.grpo.loss_metrics",
        "r1rl.grpo.losses", "r1rl.distill.divergences", "r1rl.attention_kernels",
    ),
    (2, "components"): (
        "r1rl.data", "r1rl.rewards", "r1rl.grpo.batching", "r1rl.grpo.packed_attention", "r1rl.grpo.costs", "r1rl.grpo.packing",
        "r1rl.grpo.layout", "r1rl.grpo.balance", "r1rl.grpo.logprobs", "r1rl.rollout", "r1rl.checkpoint", "r1rl.monitor",
        "r1rl.run_directory", "r1rl.environment", "r1rl.memory_plan", "r1rl.distributed", "r1rl.launch", "r1rl.optimization",
        "r1rl.phase_clock", "r1rl.lora",
    ),
    (3, "jobs"): (
        "r1rl.preflight", "r1rl.check", "r1rl.training_run", "r1rl.held_out_run", "r1rl.grpo", "r1rl.distill", "r1rl.stages",
        "r1rl.evaluation", "r1rl.pipeline", "r1rl.bench", "r1rl.recomputation",
    ),
    (4, "commands"): ("r1rl.commands", "r1rl.help", "r1rl.cli", "r1rl.__main__"),
}  # fmt: skip
"""By prefix; the longest one that fits counts, so r1rl.grpo stands for what r1rl.grpo.* does not name."""

HEAVY = ("torch", "transformers", "datasets", "accelerate", "trl", "matplotlib", "sympy", "math_verify", "pyarrow")
QUICK = ("r1rl", "r1rl.types", "r1rl.errors", "r1rl.config.load", "r1rl.cli", "r1rl.help", "r1rl.__main__")
OPTIONAL = ("vllm", "peft", "deepspeed", "wandb", "trackio", "tensorboard")
FOR_REWARDS = (
    "r1rl.types", "r1rl.errors", "r1rl.grading", "r1rl.tags", "r1rl.language", "r1rl.reflection", "r1rl.sandbox", "r1rl.models",
    "r1rl.scored_text",
)  # fmt: skip


def module_name(file: Path) -> str:
    """r1rl.config.load for r1rl/config/load.py."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py")) if "_bundled" not in file.parts}


def imports(file: Path, at_import_time: bool = False) -> Iterator[str]:
    """The modules that a file imports; with `at_import_time` not those inside functions or under TYPE_CHECKING."""
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
    """`from r1rl import models` imports r1rl.models; `from r1rl.types import Prompt` imports r1rl.types."""
    for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        yield inner if inner in MODULES else str(node.module)


def layer(module: str) -> tuple[int, str] | None:
    """The layer of a module; None for the package itself, which holds the version only."""
    fitting = [(len(prefix), place) for place, prefixes in LAYERS.items() for prefix in prefixes if is_within(module, prefix)]
    return max(fitting)[1] if fitting else None


def is_within(module: str, prefix: str) -> bool:
    return f"{module}.".startswith(f"{prefix}.")


def test_every_module_has_a_layer() -> None:
    assert len(MODULES) > 20
    assert [module for module in MODULES if layer(module) is None] == ["r1rl"]


@pytest.mark.parametrize("module", MODULES)
def test_no_import_points_upwards(module: str) -> None:
    own = layer(module)
    for imported in imports(MODULES[module]):
        assert not is_within(imported, "scripts"), f"{module} imports {imported}"
        other = layer(imported)
        if own is None or other is None:
            assert not (own is None and other is not None), f"the package itself imports {imported}"
            continue
        sideways = other[0] == own[0] and other[1] != own[1]
        assert other[0] <= own[0] and not sideways, f"{module} ({own[1]}) imports {imported} ({other[1]})"


def test_maths_knows_only_torch() -> None:
    for module, file in MODULES.items():
        if layer(module) == (1, "maths"):
            roots = {name.partition(".")[0] for name in imports(file)} - set(sys.stdlib_module_names) - {"r1rl"}
            assert roots <= {"torch"}, f"{module} imports {sorted(roots)}"


def test_rewards_import_only_the_contract_and_text_helpers() -> None:
    files = sorted(bundled_path("rewards").glob("*.py"))
    assert len(files) >= 3
    for file in files:
        for imported in imports(file):
            if is_within(imported, "r1rl"):
                assert any(is_within(imported, allowed) for allowed in FOR_REWARDS), f"rewards/{file.name} imports {imported}"


@pytest.mark.parametrize("start", QUICK)
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
            waiting += [(imported, f"{path} -> {imported}") for imported in imports(MODULES[name], at_import_time=True)]


@pytest.mark.parametrize("package", OPTIONAL)
def test_optional_packages_are_imported_in_one_module(package: str) -> None:
    users = [module for module, file in MODULES.items() if any(is_within(imported, package) for imported in imports(file))]
    assert len(users) <= 1, users
    for module in users:
        assert not any(is_within(imported, package) for imported in imports(MODULES[module], at_import_time=True)), (
            f"{module} must import {package} where it is used: it may not be installed"
        )


def test_the_walk_sees_what_it_should(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(
        "import os, torch.nn\nfrom typing import TYPE_CHECKING\nfrom r1rl import types\nif TYPE_CHECKING:\n    import sympy\n"
        "def f():\n    from r1rl.cli import main\n",
        encoding="utf-8",
    )
    assert set(imports(file)) == {"os", "torch.nn", "typing", "r1rl.types", "sympy", "r1rl.cli"}
    assert set(imports(file, at_import_time=True)) == {"os", "torch.nn", "typing", "r1rl.types"}
    assert layer("r1rl.grpo.losses") == (1, "maths")
    assert layer("r1rl.grpo.trainer") == (3, "jobs")
    assert layer("r1rl.typesetting") is None
