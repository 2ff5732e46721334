"""The base model that ships with r1rl: it loads, and it is what its card says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1rl import models
from r1rl.config.bundled import bundled_path
from r1rl.config.load import load_recipe
from r1rl.pretrain.habit_table import measure_habits

FOLDER = Path(models.resolve("embedded"))
RECIPE = bundled_path("recipes") / "pretrain" / "tiny.yaml"


def test_resolve_leaves_other_paths_alone() -> None:
    assert models.resolve("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"
    assert models.resolve("runs/a") == "runs/a"


def test_is_small_and_of_the_recipe_s_shape() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8 * 2**20
    model, tokenizer = AutoModelForCausalLM.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
    shape = load_recipe("pretrain", RECIPE).architecture
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers) == (shape.hidden_size, shape.num_layers)
    assert (config.num_attention_heads, config.num_key_value_heads) == (
        shape.num_heads,
        shape.num_key_value_heads,
    )
    assert 1_000_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 4_000_000
    assert config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_behaves_as_its_card_says() -> None:
    """A sample of the card's countdown table, made again: within 4 standard errors of the card's figures."""
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    section = card.split("**countdown**")[1]
    stated = {
        match[1]: (float(match[2]) / 100, float(match[3]) / 100)
        for match in re.finditer(
            r"^\| (\w+) \| ([\d.]+)% \| ([\d.]+)% \|", section.split("**arithmetic**")[0], re.MULTILINE
        )
    }
    assert set(stated) == {"direct", "worked", "checked", "all"}
    recipe = load_recipe("pretrain", RECIPE, ["measured_problems=128", "measured_samples=4"])
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(FOLDER).eval(),
        AutoTokenizer.from_pretrained(FOLDER),
    )
    table = measure_habits(
        model, tokenizer, "countdown", recipe.corpus.arguments["countdown"], recipe, RECIPE.parent
    )
    # 512 answers: the standard error of a share of 0.67 is 0.021, of an accuracy of 0.28 (answers of one
    # problem vary together) 0.025.
    assert table.shares["direct"] == pytest.approx(stated["direct"][0], abs=0.085)
    assert table.shares["checked"] == pytest.approx(stated["checked"][0], abs=0.07)
    assert table.pass_at[1] == pytest.approx(stated["all"][1], abs=0.1)
    assert table.pass_at[1] <= 0.4


def test_student_is_at_most_half_as_large_with_the_same_tokenizer() -> None:
    small = Path(models.resolve("embedded-small"))
    assert sum(file.stat().st_size for file in small.iterdir()) <= 2 * 2**20
    sizes = [
        sum(one.numel() for one in AutoModelForCausalLM.from_pretrained(folder).parameters())
        for folder in (small, FOLDER)
    ]
    assert sizes[0] <= sizes[1] / 2
    shape = load_recipe("pretrain", bundled_path("recipes") / "pretrain" / "small.yaml").architecture
    config = AutoModelForCausalLM.from_pretrained(small).config
    assert (config.hidden_size, config.num_hidden_layers) == (shape.hidden_size, shape.num_layers)
    assert (small / "tokenizer.json").read_bytes() == (FOLDER / "tokenizer.json").read_bytes()
    assert f"{sizes[0]:,} parameters" in (small / "README.md").read_text(encoding="utf-8")
