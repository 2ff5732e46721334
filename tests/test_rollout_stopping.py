"""The module r1rl.rollout.stopping: EOS tokens and stop strings."""

from __future__ import annotations

import pytest
from rollout_helpers import TEXTS, VOCABULARY, ids, tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r1rl.objective.sampling import Sampling
from r1rl.rollout.stopping import Stopping, StoppingRules, may_complete
from r1rl.types import FinishReason


def stopping(eos: tuple[int, ...] = (), stop: tuple[str, ...] = ()) -> Stopping:
    return Stopping(eos, stop, tokenizer(), VOCABULARY)


def test_first_of_several_eos_tokens_ends() -> None:
    assert stopping(eos=(3, 9)).end([1, 2, 9, 3], 0) == (3, FinishReason.EOS)
    assert stopping(eos=(3, 9)).end([1, 2, 4], 0) is None


def test_only_new_tokens_are_looked_at() -> None:
    assert stopping(eos=(3,)).end([3, 1, 2], 1) is None
    assert stopping(eos=(3,)).end([3, 1, 3], 1) == (3, FinishReason.EOS)


def test_stop_string_across_tokens_and_inside_one() -> None:
    stop = stopping(stop=("</answer>",))
    spelled = ids("x </answer> y")
    assert stop.end(spelled, 0) == (len(ids("x </answer>")), FinishReason.STOP)
    # "</", "answer>": completed by the second token. "</", "answe", "r>\n": the text after the stop string
    # stays, too.
    assert stop.end([TEXTS.index("</"), TEXTS.index("answer>"), 5], 0) == (2, FinishReason.STOP)
    assert stop.end([TEXTS.index("</"), *ids("answe"), TEXTS.index("r>\n"), 5], 0) == (7, FinishReason.STOP)


def test_stop_string_that_began_before_the_new_tokens() -> None:
    spelled = ids("</answer>")
    assert stopping(stop=("</answer>",)).end(spelled, 6) == (9, FinishReason.STOP)


def test_earliest_end_wins() -> None:
    both = stopping(eos=(TEXTS.index("Z"),), stop=("ab",))
    assert both.end(ids("xabZ"), 0) == (3, FinishReason.STOP)
    assert both.end(ids("xZab"), 0) == (2, FinishReason.EOS)


def test_marks_every_token_that_can_end_a_completion() -> None:
    marked = {
        TEXTS[token]
        for token in stopping(eos=(0,), stop=("</answer>",)).may_end_V.nonzero().flatten().tolist()
    }
    # A token is marked if it begins with an end of the stop string; "</" and "answer" leave its last
    # character to come.
    assert marked == {" ", ">", "answer>", "r>\n"}


def test_vocabulary_is_looked_through_once_per_set_of_rules() -> None:
    rules = StoppingRules(tokenizer(), VOCABULARY)
    first = rules.of(Sampling(10, stop=("a",)))
    assert rules.of(Sampling(20, temperature=0.5, stop=("a",))) is first
    assert rules.of(Sampling(10, stop=("b",))).stop == ("b",)
    assert rules.of(Sampling(10, eos_token_ids=(1,), stop=("a",))).eos_token_ids == {1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">", True),
        ("answer> so", True),
        ("x</answer>y", True),
        ("answer", False),
        ("</answer", False),
        (" >", False),
        ("\ufffd", True),
        ("", False),
    ],
)
def test_may_complete(text: str, expected: bool) -> None:
    assert may_complete(text, ["</answer>"]) is expected


def test_lost_leading_space_counts() -> None:
    # SentencePiece decodes a lone "_end" to "end": with the space back it completes " end".
    assert may_complete("end", ["."]) is False
    assert may_complete("x", [" x"]) is True


def test_stop_character_of_several_byte_tokens() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={text: index for index, text in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    bytewise = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    tokens = bytewise("naïve ✓ done")["input_ids"]
    assert len(tokens) == len("naïve ✓ done".encode())
    end = Stopping((), ("✓",), bytewise, 256).end(tokens, 0)
    assert end == (len("naïve ✓".encode()), FinishReason.STOP)
