"""Completions from a file: which rows are used, with which prompt, which tokens are learnt, and what a user
is told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_policy import save_tiny_policy
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from r1rl.config.schema import ModelConfig, PromptConfig
from r1rl.data.demonstrations import read_demonstrations
from r1rl.distill.completions import PreparedCompletions, prepare_completions
from r1rl.distill.recipe import CompletionsConfig, DistillRecipe, TeacherConfig
from r1rl.errors import DataError

EOS = 1


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_policy(tmp_path_factory.mktemp("completions") / "policy")


@pytest.fixture(scope="module")
def tokenizer(policy: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(policy)


def prepare(
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    rows: list[dict[str, Any]],
    prefill: str = "",
    shared: int = 1000,
    longest: int = 200,
) -> PreparedCompletions:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    completions = CompletionsConfig(source=str(path), max_length=longest)
    recipe = DistillRecipe(
        run_name="x", model=ModelConfig(path="unused"), teacher=TeacherConfig(path="unused"), on_policy=0.0,
        completions=completions, prompt=PromptConfig(template="plain", prefill=prefill),
    )  # fmt: skip
    return prepare_completions(recipe, read_demonstrations(completions, "completions"), tokenizer, shared)


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_prompt_is_rls_and_the_end_is_learnt(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    (row,) = prepare(tokenizer, tmp_path, [{"problem": "2+2", "completion": " 4"}]).rows
    assert row.prompt_ids.tolist() == ids(tokenizer, "User: 2+2\nAssistant:")
    assert row.completion_ids.tolist() == [*ids(tokenizer, " 4"), EOS]


def test_the_prefill_is_a_part_of_the_prompt(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = [
        {"problem": "2+2", "completion": " 4", "prefill": " <think>"},
        {"problem": "2+2", "completion": " <think> 4", "prefill": ""},
        {"problem": "2+2", "completion": " 4", "prefill": ""},
    ]
    found = prepare(tokenizer, tmp_path, rows, prefill=" <think>")
    assert [row.prompt_ids.tolist() for row in found.rows] == [
        ids(tokenizer, "User: 2+2\nAssistant: <think>")
    ] * 2
    assert [row.completion_ids.tolist() for row in found.rows] == [[*ids(tokenizer, " 4"), EOS]] * 2
    (message,) = found.messages
    assert "1 row skipped (other_prefill): line 3: the text begins with" in message


def test_rows_that_are_too_long_or_were_cut_off_are_left_out(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = [
        {"problem": "1", "completion": "7"}, {"problem": "1", "completion": "7" * 300},
        {"problem": "1", "completion": "7", "finish_reason": "length"},
    ]  # fmt: skip
    found = prepare(tokenizer, tmp_path, rows)
    assert len(found.rows) == 1
    assert [message.split("(")[1].split(")")[0] for message in found.messages] == ["too_long", "truncated"]


def test_tokens_that_the_teacher_does_not_know(policy: Path, tmp_path: Path) -> None:
    """The completion is used up to the first, a prompt with one is not used."""
    tokenizer = AutoTokenizer.from_pretrained(policy)
    unknown = len(tokenizer)
    tokenizer.add_tokens(["<tool>"])
    rows = [{"problem": "abc", "completion": "ab<tool>ab"}, {"problem": "<tool>", "completion": "ab"}]
    found = prepare(tokenizer, tmp_path, rows, shared=unknown)
    assert [row.completion_ids.tolist() for row in found.rows] == [[*ids(tokenizer, "ab"), unknown]]
    first, second = found.messages
    assert f"1 row skipped (foreign_token): line 2: token id {unknown} in its prompt" in first
    assert second.endswith("1 completions are used up to a token that only the student's tokenizer has.")


def test_nothing_to_use_is_an_error(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"completions: no row of .* can be used\. .*too_long"):
        prepare(tokenizer, tmp_path, [{"problem": "1", "completion": "7" * 300}])
