"""`r1rl check`: what it shows and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config

from r1rl import cli

RECIPE = """\
run_name: test
max_steps: 6
model: {path: model}
data: {source: train.jsonl}
prompt: {template: plain, prefill: "<think>"}
rewards:
  - {function: accuracy}
  - {function: format, weight: 0.1}
rollout: {num_prompts: 2, num_generations: 4, max_completion_length: 40}
"""


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe, four problems, and a model folder with a tokenizer that makes one token of each character."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {character: index for index, character in enumerate(["[UNK]", "</s>", *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="[UNK]").save_pretrained(tmp_path / "model")
    Qwen3Config(max_position_embeddings=64).save_pretrained(tmp_path / "model")
    write_rows(tmp_path / "train.jsonl", [{"id": f"row{n}", "problem": f"{n}+{n}?", "answer": str(2 * n)} for n in range(4)])
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert cli.main(["check", "recipe.yaml", *overrides]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_sound_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys)
    assert "data 4 problems from train.jsonl; columns answer, problem" in text
    assert "6 steps visit 12 prompts, 3 epochs" in text
    assert "rewards accuracy x 1, format x 0.1 outcome accuracy" in text
    assert "2 prompts x 4 generations = 8 completions 1 optimizer step of 8 completions each" in text
    # "User: 0+0?\nAssistant:<think>" has 28 characters, all prompts the same number.
    assert "prompts 28 tokens in the middle, 28 at 95 %, 28 at most" in text
    assert "example User: 0+0? Assistant:<think>" in text
    assert "Ready: r1rl grpo recipe.yaml" in text
    assert text.count("warning") == 1  # 28 + 40 tokens do not fit 64 positions
    assert "prompts and completions take up to 68 tokens, but the model's configuration allows 64" in text


def test_long_prompts_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"problem": "1" * 50, "answer": "1"}) + "\n")
    text = shown(capsys, "data.max_prompt_tokens=30", "rollout.max_completion_length=8")
    assert "28 at most; 1 over data.max_prompt_tokens are dropped" in text
    assert "warning" not in text


def test_gold_answers_that_do_not_grade_themselves_correct(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        for number in range(25):
            file.write(json.dumps({"id": f"bad{number:02}", "problem": f"bad {number}?", "answer": "\\frac{1}{"}) + "\n")
    text = shown(capsys, "rollout.max_completion_length=8")
    assert "25 gold answers can't be graded and 0 only by their text" in text
    before = len((folder / "train.jsonl").read_text(encoding="utf-8").splitlines()) - 25
    assert f"line {before + 1} " in text
    assert "bad00" in text
    assert "bad19" in text
    assert "bad20" not in text
    assert "and 5 more" in text
    assert "row0" not in text


def test_data_without_a_usable_gold_answer_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(folder / "train.jsonl", [{"problem": "a?", "answer": "\\frac{1}{"}, {"problem": "b?", "answer": "\\sqrt{"}])
    assert cli.main(["check", "recipe.yaml"]) == 2
    assert "no gold answer can be graded" in capsys.readouterr().err


def test_other_outcomes_have_rules_of_their_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"problem": "make 5 from 2, 3", "answer": "\\frac{1}{", "numbers": [2, 3], "target": 5}]
    write_rows(folder / "train.jsonl", rows)
    text = shown(capsys, "rewards.0.function=countdown", "rollout.max_completion_length=8")
    assert "outcome countdown" in text
    assert "gold" not in text


def test_without_the_tokenizer_the_rest_is_checked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a hub model on a machine without network."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no connection\nsome advice about another library's options")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    text = shown(capsys, "model.path=some/hub-model")
    assert "model.path: the tokenizer of some/hub-model can't be loaded here (no connection). Prompts and their lengths" in text
    assert "Ready" in text


def test_a_tokenizer_without_its_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """transformers then makes an empty one, which turns every text into no tokens."""
    for file in (folder / "model").glob("tokenizer*"):
        file.unlink()
    assert cli.main(["check", "recipe.yaml"]) == 2
    assert "its tokenizer makes no tokens of a prompt" in capsys.readouterr().err


def test_a_model_that_does_not_exist(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "recipe.yaml", "model.path=./nowhere"]) == 2
    assert "model.path: there is no folder nowhere" in capsys.readouterr().err


def test_a_template_that_the_tokenizer_does_not_have(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "recipe.yaml", "prompt.template=chat"]) == 2
    assert "has no chat template" in capsys.readouterr().err
