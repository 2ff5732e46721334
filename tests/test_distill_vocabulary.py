"""The token ids that student and teacher share, and the tokenizers that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_policy import save_tiny_policy
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from r1rl.distill.vocabulary import SharedTokens, known_part, shared_tokens
from r1rl.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_policy(tmp_path_factory.mktemp("vocabulary") / "policy")


def load(folder: Path, *further: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(further))
    return tokenizer


def edited(folder: Path, target: Path, old: str, new: str) -> PreTrainedTokenizerBase:
    target.mkdir()
    for file in folder.glob("*token*"):
        text = file.read_text(encoding="utf-8")
        (target / file.name).write_text(
            text.replace(old, new) if file.name == "tokenizer.json" else text, encoding="utf-8"
        )
    assert old in (folder / "tokenizer.json").read_text(encoding="utf-8")
    return AutoTokenizer.from_pretrained(target)


def test_equal_tokenizers_share_all_ids_up_to_the_narrower_logits(folder: Path) -> None:
    shared = shared_tokens(load(folder), load(folder))
    assert shared == SharedTokens(None)
    assert (shared.size(152, 160), shared.size(160, 152)) == (152, 152)


@pytest.mark.parametrize("holder", ["student", "teacher"])
def test_further_tokens_at_the_end_take_no_part(folder: Path, holder: str) -> None:
    plain, longer = load(folder), load(folder, "<tool>", "<call>")
    student, teacher = (longer, plain) if holder == "student" else (plain, longer)
    shared = shared_tokens(student, teacher)
    assert shared.limit == len(plain)
    assert shared.note == (
        f"Only the {holder}'s tokenizer has 2 of the tokens (<tool>, <call>, ...): they take no part in the "
        f"comparison."
    )
    assert shared.size(400, 500) == len(plain)
    assert shared.size(400, len(plain) - 3) == len(plain) - 3


def test_another_token_with_the_same_id_is_refused(folder: Path, tmp_path: Path) -> None:
    teacher = edited(folder, tmp_path / "teacher", '"<eos>"', '"<end>"')
    with pytest.raises(
        UserError,
        match=r"teacher\.path: the teacher has another tokenizer .* \(id 1 is '<end>', the student's is",
    ):
        shared_tokens(load(folder), teacher)


def test_a_token_missing_in_the_middle_is_refused(folder: Path) -> None:
    first, second = load(folder), load(folder)
    for tokenizer, missing in ((first, 100), (second, None)):
        vocabulary = {
            token: token_id for token, token_id in tokenizer.get_vocab().items() if token_id != missing
        }
        tokenizer.get_vocab = lambda vocabulary=vocabulary: vocabulary
    with pytest.raises(
        UserError, match="only the teacher's tokenizer has a token with the id 100, in the middle"
    ):
        shared_tokens(first, second)


def test_equal_tokens_that_split_text_differently_are_refused(folder: Path, tmp_path: Path) -> None:
    teacher = edited(folder, tmp_path / "teacher", '"add_prefix_space": false', '"add_prefix_space": true')
    with pytest.raises(UserError, match="have the same tokens but split text differently"):
        shared_tokens(load(folder), teacher)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [([3, 4, 5], [3, 4, 5]), ([3, 10, 5], [3, 10]), ([12], [12]), ([3, 4, 11, 12], [3, 4, 11]), ([], [])],
)
def test_a_completion_is_used_up_to_the_first_token_that_the_teacher_does_not_know(
    ids: list[int], kept: list[int]
) -> None:
    assert known_part(ids, 10) == kept
