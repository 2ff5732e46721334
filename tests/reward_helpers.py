"""Small batches for the tests of the rewards."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from r1rl.config.bundled import bundled_path
from r1rl.config.schema import RewardConfig
from r1rl.rewards import RewardResult, RewardSet
from r1rl.types import Completion, FinishReason, Problem, Prompt


def load_built_in(name: str) -> Any:
    """Return the function of a built-in reward's file."""
    spec = importlib.util.spec_from_file_location(
        f"tested_reward_{name}", bundled_path("rewards") / f"{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def make_prompt(answer: str | None = "4", prefill: str = "", **columns: Any) -> Prompt:
    """Return a prompt for "2 + 2"."""
    return Prompt(Problem("p", "2 + 2", answer, columns), "Q: 2 + 2" + prefill, [1, 2, 3], prefill)


def make_completion(text: str, num_tokens: int = 3) -> Completion:
    """Return a completion of some tokens that ended with EOS."""
    return Completion(list(range(num_tokens)), [-1.0] * num_tokens, text, FinishReason.EOS)


def reward_set(
    *configs: RewardConfig,
    outcome: str | None = None,
    base_dir: Path = Path(),
    columns: set[str] | None = None,
) -> RewardSet:
    """Return a RewardSet over the columns answer and problem."""
    return RewardSet(list(configs), outcome, base_dir, columns or {"answer", "problem"})


def score(rewards: RewardSet, texts: list[str], **columns: list[Any]) -> RewardResult:
    """Score texts; each column has one value per text."""
    prompts = [
        make_prompt(**{name: values[row] for name, values in columns.items()}) for row in range(len(texts))
    ]
    return rewards.score(
        prompts, [make_completion(text) for text in texts], max_completion_length=10, prefill=""
    )
