"""The tokenizer of small base models."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from r1rl.pretrain.corpus import END_OF_TEXT, PAD
from r1rl.pretrain.tokenizer import as_transformers, train_tokenizer

TEXTS = [
    "User: Make 46 from 3, 7, 25.\nAssistant: <think> 25+7*3=25+21=46 check: yes. </think> "
    "<answer>25+7*3</answer>"
] * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 512)


def test_digits_and_signs_stand_alone_and_tags_are_one_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(" <think> 25+7*3=46 check: yes. </think> <answer>").tokens == [
        "Ġ<think>", "Ġ", "2", "5", "+", "7", "*", "3", "=", "4", "6", "Ġcheck:", "Ġyes.", "Ġ</think>",
        "Ġ<answer>",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [TEXTS[0], "any text: é, 你好, \t tabs\n\n and <tags> 007", "", " leading"])
def test_any_text_survives(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_prompt_and_prefill_can_be_tokenized_apart(tokenizer: Tokenizer) -> None:
    prompt, prefill = "User: Make 4 from 1, 3.\nAssistant:", " <think>"
    assert (
        tokenizer.encode(prompt + prefill).ids == tokenizer.encode(prompt).ids + tokenizer.encode(prefill).ids
    )


def test_loads_with_auto_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    as_transformers(tokenizer, 256).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(TEXTS[0])["input_ids"] == tokenizer.encode(TEXTS[0]).ids
    assert (loaded.eos_token, loaded.pad_token, loaded.model_max_length) == (END_OF_TEXT, PAD, 256)
    assert loaded.eos_token_id != loaded.pad_token_id
    assert len(loaded) == tokenizer.get_vocab_size() <= 512
