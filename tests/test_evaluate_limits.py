"""The places where a lower token limit would have cut a completion."""

from __future__ import annotations

import pytest
from tiny_policy import save_tiny_policy
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from r1rl.scoring.limits import find_cuts, lower_limits


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(save_tiny_policy(tmp_path_factory.mktemp("policy")))


def test_lower_limits() -> None:
    assert lower_limits(3000) == [32, 64, 128, 256, 512, 1024, 2048]
    assert lower_limits(64) == [32]
    assert lower_limits(32) == lower_limits(8) == []


def test_cuts_are_at_the_first_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "0123456789" * 7  # no merge has digits: a token is a character
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == 70
    assert find_cuts([*ids, 1], text, tokenizer, 128) == ((32, 32), (64, 64))
    assert find_cuts(ids[:64], text[:64], tokenizer, 128) == ((32, 32),)
    assert find_cuts(ids, text, tokenizer, 32) == ()


def test_half_a_character_does_not_count(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "x" * 31 + "\N{EURO SIGN}" * 10  # three bytes, three tokens: token 32 is the first of a sign
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == 61
    assert find_cuts(ids, text, tokenizer, 128) == ((32, 31),)
