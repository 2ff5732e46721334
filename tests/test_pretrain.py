"""`r1rl pretrain` at a few steps on a CPU."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1rl.config.load import load_recipe
from r1rl.errors import DataError, HubUnreachable, RecipeError
from r1rl.pretrain.recipe import PretrainRecipe
from r1rl.pretrain.run import batches, check_corpus, run

RECIPE = """
run_name: small
max_steps: 12
batch_tokens: 2048
sequence_length: 128
measured_problems: 4
measured_samples: 2
architecture: {hidden_size: 32, num_layers: 2, num_heads: 2, num_key_value_heads: 1, head_dim: 16,
  intermediate_size: 64, vocab_size: 400}
corpus: {tasks: {countdown: 0.8, arithmetic: 0.2}, habits: {direct: 0.7, checked: 0.3}, documents: 600}
optimizer: {learning_rate: 1.0e-2, schedule: cosine, warmup_steps: 2}
"""


def make(tmp_path: Path, name: str, **changes: object) -> Path:
    """Run the recipe above into a folder of its own; returns the run's directory."""
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    recipe = load_recipe(
        "pretrain",
        file,
        [f"output_dir={tmp_path / name}", *(f"{key}={value}" for key, value in changes.items())],
    )
    run(recipe, file)
    return tmp_path / name / "small"


def test_leaves_a_model_that_loads_and_a_card(tmp_path: Path) -> None:
    directory = make(tmp_path, "one")
    folder = directory / "checkpoints" / "step-000012"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen3"
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    parameters = sum(parameter.numel() for parameter in model.parameters())

    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5
    # Warm-up over 2 steps: half of the peak, then the peak.
    assert [line["learning_rate"] for line in lines[:3]] == pytest.approx([0.005, 0.01, 0.01])
    assert lines[-1]["learning_rate"] < 0.001

    card = (folder / "README.md").read_text()
    for part in (
        f"{parameters:,} parameters",
        "direct 70%, checked 30%",
        "12 steps of 2,048 tokens",
        "| direct |",
    ):
        assert part in card
    assert "**countdown** (4 problems)" in card and "**arithmetic** (4 problems)" in card
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["parameters"] == parameters
    assert set(summary["habits"]) == {"countdown", "arithmetic"}
    assert sum(row["share"] for row in summary["habits"]["countdown"]["habits"].values()) == pytest.approx(1)


def test_same_seed_same_weights_and_bfloat16_can_be_saved(tmp_path: Path) -> None:
    def weights(directory: Path) -> dict[str, torch.Tensor]:
        return AutoModelForCausalLM.from_pretrained(directory / "checkpoints" / "step-000003").state_dict()

    one, again, other = (
        weights(make(tmp_path, name, max_steps=3, measured_problems=0, seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(one[key].shape != other[key].shape or not torch.equal(one[key], other[key]) for key in one)
    half = weights(make(tmp_path, "half", max_steps=3, measured_problems=0, seed=1, save_dtype="bfloat16"))
    assert all(
        half[key].dtype == torch.bfloat16 and torch.equal(half[key], one[key].bfloat16()) for key in one
    )


def test_every_row_once_before_any_twice() -> None:
    recipe = PretrainRecipe(run_name="a", batch_tokens=300, sequence_length=100)
    first, second, third, fourth = (batch.tolist() for batch in islice(batches(6, recipe), 4))
    assert sorted(first + second) == sorted(third + fourth) == list(range(6))
    assert first + second != third + fourth
    again = [batch.tolist() for batch in islice(batches(6, recipe), 2)]
    assert again == [first, second]


def test_bad_corpus_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    recipe = load_recipe("pretrain", file)
    corpus = recipe.corpus
    with pytest.raises(
        RecipeError, match=r'corpus\.habits has "guessed"; the habits are direct, worked, checked'
    ):
        check_corpus(replace(corpus, habits={"guessed": 1.0}), file)
    with pytest.raises(DataError, match=r'there is no generator "countdowns"; did you mean countdown\?'):
        check_corpus(replace(corpus, tasks={"countdowns": 1.0}), file)
    with pytest.raises(DataError, match='no argument "highest"'):
        check_corpus(replace(corpus, arguments={"countdown": {"highest": 9}}), file)
    with pytest.raises(RecipeError, match=r'corpus\.languages has "fr"; the languages are en, zh'):
        check_corpus(replace(corpus, languages={"fr": 1.0}), file)
    with pytest.raises(
        RecipeError, match=r"corpus\.tasks has solved_countdown, which no texts are written about"
    ):
        check_corpus(replace(corpus, tasks={"solved_countdown": 1.0}), file)
    with pytest.raises(
        RecipeError, match=r"corpus.arguments has word_problems, which corpus.tasks does not name"
    ):
        check_corpus(replace(corpus, arguments={"word_problems": {}}), file)


def test_goes_on_from_another_model_with_its_tokenizer(tmp_path: Path) -> None:
    first = make(tmp_path, "first", measured_problems=0)
    start = first / "checkpoints" / "step-000012"
    settings = {
        "measured_problems": 0,
        "architecture": "null",
        "start": first,
        "corpus.languages": "{en: 0.5, zh: 0.5}",
        "seed": 5,
    }
    second = make(tmp_path, "second", **settings)
    folder = second / "checkpoints" / "step-000012"
    assert (folder / "tokenizer.json").read_text() == (start / "tokenizer.json").read_text()
    old, new = (AutoModelForCausalLM.from_pretrained(path) for path in (start, folder))
    assert (
        (old.config.hidden_size, old.config.num_hidden_layers)
        == (new.config.hidden_size, new.config.num_hidden_layers)
        == (32, 2)
    )
    assert not torch.equal(old.lm_head.weight, new.lm_head.weight)
    losses = [
        [json.loads(line)["loss"] for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (first, second)
    ]
    assert losses[1][0] < losses[0][0] - 0.5  # it begins where the other one had come to
    assert "en 50%, zh 50%" in (folder / "README.md").read_text()


def test_start_must_be_a_model_of_this_command(tmp_path: Path) -> None:
    with pytest.raises(HubUnreachable, match=r"start: no tokenizer could be loaded from"):
        make(tmp_path, "a", start=tmp_path / "nothing", architecture="null")
    with pytest.raises(RecipeError, match=r"architecture is set, but start names a model"):
        make(tmp_path, "b", start="embedded")
