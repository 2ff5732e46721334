"""Activation checkpointing by `model.gradient_checkpointing: null`: where the GPU can't hold the activations,
and nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from config_helpers import MINIMAL
from transformers import GPT2Config, MambaConfig

from r1rl.config.load import load_recipe
from r1rl.memory import activation_checkpointing as recomputation
from r1rl.memory.estimate import NotEstimated, estimate, shape_of
from r1rl.memory.report import verdict
from r1rl.memory.work import GB, Launch

SHAPE = Path(__file__).parent / "data" / "configs" / "qwen2.5-1.5b.json"
SETTINGS = (
    "rollout.num_prompts=128",
    "rollout.max_completion_length=3000",
    "update.micro_batch_tokens=32768",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a recipe, and a model's folder with nothing but its config.json."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(SHAPE.read_text())
    (tmp_path / "recipe.yaml").write_text(f"{MINIMAL}\nmodel: {{path: {tmp_path}/model}}\n")
    return tmp_path


def recipe_of(folder: Path, *overrides: str) -> Any:
    return load_recipe("grpo", folder / "recipe.yaml", [*SETTINGS, *overrides])


@pytest.mark.parametrize(
    ("overrides", "card", "recomputes"),
    [
        ((), 80, True),
        ((), 141, False),  # there is room for everything
        (("update.micro_batch_tokens=4096",), 80, False),
        (("model.gradient_checkpointing=false",), 80, False),  # the recipe decides
        (("model.gradient_checkpointing=true",), 141, True),
        (("update.compile=true",), 80, False),  # a compiled layer can't be recomputed
    ],
)
def test_the_estimate_decides_what_the_recipe_leaves_open(
    folder: Path, overrides: tuple[str, ...], card: int, recomputes: bool
) -> None:
    found = estimate(recipe_of(folder, *overrides), Launch(card_bytes=card * GB), None, None)
    assert found is not None
    assert found.work.gradient_checkpointing is recomputes
    assert found.work.compiled is not recomputes
    assert bool(found.decided) == (recomputes and not overrides)


def test_a_run_takes_its_own_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator: Any = SimpleNamespace(
        num_processes=1, is_main_process=True, device=torch.device("cuda"), distributed_type=None
    )
    for card, recomputes in ((80, True), (141, False)):
        monkeypatch.setattr(recomputation, "total_bytes", lambda device, card=card: card * GB)
        settled, sentences = recomputation.settle_checkpointing(recipe_of(folder), accelerator)
        assert settled.model.gradient_checkpointing is recomputes
        assert len(sentences) == recomputes
    monkeypatch.setattr(recomputation, "total_bytes", lambda device: 80 * GB)
    _, (sentence,) = recomputation.settle_checkpointing(recipe_of(folder), accelerator)
    assert sentence.startswith(
        "Activations are recomputed in the backward pass (model.gradient_checkpointing): "
    )
    assert sentence.endswith(" of 80.")
    accelerator.device = torch.device("cpu")
    settled, sentences = recomputation.settle_checkpointing(recipe_of(folder), accelerator)
    assert (settled.model.gradient_checkpointing, sentences) == (False, [])


def test_check_says_what_a_run_would_do(folder: Path) -> None:
    found = estimate(recipe_of(folder), Launch(), None, None)
    assert found is not None
    assert verdict(found)[:2] == ["fits in 80 GB", found.decided]


def test_decoders_that_are_built_otherwise() -> None:
    shape = shape_of(GPT2Config(n_layer=2, n_embd=32, n_head=2))
    assert (shape.layers, shape.hidden, shape.intermediate, shape.queries, shape.keys) == (2, 32, 128, 32, 32)
    with pytest.raises(NotEstimated, match="MambaForCausalLM is not built like the decoders"):
        shape_of(MambaConfig(num_hidden_layers=2, hidden_size=32))
