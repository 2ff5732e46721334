"""Every recipe snippet of docs/algorithms.md is an objective that r1rl accepts, under the names that the
tables use.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

from r1rl.objective.advantages import group_advantages
from r1rl.objective.config import AlgorithmConfig

PAGE = (Path(__file__).parent.parent / "docs" / "algorithms.md").read_text(encoding="utf-8")
SNIPPETS = re.split(r"\n\n+", re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL).group(1).strip())


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[0].strip("# "))
def test_snippet(snippet):
    config = AlgorithmConfig(**yaml.safe_load(snippet)["algorithm"])
    assert group_advantages(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), config)[0, 0] > 0


def test_every_choice_of_the_objective_is_on_the_page():
    # Of the rollout, not of the objective.
    choices = {field.name for field in fields(AlgorithmConfig)} - {"max_refills"}
    assert not [name for name in sorted(choices) if name not in PAGE]
