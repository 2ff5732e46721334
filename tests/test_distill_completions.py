"""Completions from a file: which rows are used, with which prompt, which tokens are learnt, and what a user is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_policy import save_tiny_policy
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from r1rl.config.schema import DataConfig, PromptConfig
from r1rl.distill.completions import PreparedCompletions, prepare_completions, read_completions
from r1rl.errors import DataError
from r1rl.sampling import Sampling

EOS = 1
PROMPT = PromptConfig(template="plain", prefill=" <think>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(save_tiny_policy(tmp_path_factory.mktemp("completions") / "policy"))


def write(path: Path, rows: list[dict[str, Any]]) -> DataConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataConfig(source=str(path))


def prepare(
    tokenizer: PreTrainedTokenizerBase, data: DataConfig, shared: int = 1000, longest: int = 100, max_prompt_tokens: int | None = None
) -> PreparedCompletions:
    sampling = Sampling(max_completion_length=longest, eos_token_ids=(EOS,))
    return prepare_completions(read_completions(data, 0).rows, PROMPT, tokenizer, sampling, shared, max_prompt_tokens)


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_eos_is_learnt_where_the_completion_ended_by_it(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    reasons = ["eos", "length", "stop", None, "something"]
    rows = [{"problem": "2+2", "completion": " 4", **({"finish_reason": reason} if reason else {})} for reason in reasons]
    found = prepare(tokenizer, write(tmp_path / "rows.jsonl", rows))
    ends = [list(row.completion_ids) == [*ids(tokenizer, " 4"), EOS] for row in found.rows]
    assert ends == [True, False, False, True, True]
    assert all(list(row.completion_ids)[: len(ids(tokenizer, " 4"))] == ids(tokenizer, " 4") for row in found.rows)
    assert [row.finish_reason.value for row in found.rows] == ["eos", "length", "stop", "eos", "eos"]


def test_a_row_keeps_its_own_prefill(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = [{"problem": "2+2", "completion": "4", "prefill": prefill} for prefill in ("", " <answer>", None)]
    found = prepare(tokenizer, write(tmp_path / "rows.jsonl", [*rows, {"problem": "2+2", "completion": "4"}]))
    assert [row.prompt.text for row in found.rows] == [
        "User: 2+2\nAssistant:", "User: 2+2\nAssistant: <answer>", "User: 2+2\nAssistant: <think>", "User: 2+2\nAssistant: <think>"
    ]  # fmt: skip


def test_long_completions_are_cut_and_long_prompts_dropped(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [{"problem": "1", "completion": "7" * 30}, {"problem": "1" * 90, "completion": "7"}])
    found = prepare(tokenizer, data, longest=10, max_prompt_tokens=60)
    assert (len(found.rows), found.dropped, found.cut) == (1, 1, 1)
    assert list(found.rows[0].completion_ids) == ids(tokenizer, "7" * 30)[:10]
    assert found.rows[0].finish_reason.value == "length"


def test_tokens_that_the_teacher_does_not_know(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    token = ids(tokenizer, "z")[0]
    low, high = "abc", "z"  # "z" has the largest id of these
    assert max(ids(tokenizer, low)) < token
    plain = PromptConfig(template="none")
    rows = [{"problem": low, "completion": low + high + low}, {"problem": high, "completion": low}]
    loaded = read_completions(write(tmp_path / "rows.jsonl", rows), 0).rows
    sampling = Sampling(max_completion_length=100, eos_token_ids=(EOS,))
    found = prepare_completions(loaded, plain, tokenizer, sampling, token, None)
    assert [list(row.completion_ids) for row in found.rows] == [ids(tokenizer, low + high)]
    assert (found.dropped, found.cut) == (1, 1)


def test_bad_rows_are_skipped_counted_and_shown(tmp_path: Path) -> None:
    rows = [
        {"problem": "1", "completion": "a"}, {"problem": "2", "completion": None}, {"problem": "3"},
        {"problem": "4", "completion": 5}, {"problem": "5", "completion": "a", "prefill": 7}, {"problem": "6", "completion": ["a"]},
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    loaded = read_completions(write(path, rows), 0)
    assert [row.problem.problem for row in loaded.rows] == ["1"]
    (warning,) = loaded.warnings
    places = [f"{path}, line {line}: completion is no text" for line in (2, 3, 4)]
    assert warning == f"{path}: 5 rows skipped: {'; '.join(places)}; and 2 more."


def test_nothing_to_use_is_an_error(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"completions: no row of .* can be used; .*line 1: completion is no text"):
        read_completions(write(tmp_path / "a.jsonl", [{"problem": "1", "completion": 1}]), 0)
    with pytest.raises(DataError, match="completions: none of the 1 rows can be used"):
        prepare(tokenizer, write(tmp_path / "b.jsonl", [{"problem": "1", "completion": "", "finish_reason": "length"}]))


def test_an_empty_completion_that_ended_teaches_to_end(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    found = prepare(tokenizer, write(tmp_path / "rows.jsonl", [{"problem": "1", "completion": "", "finish_reason": "eos"}]))
    assert [list(row.completion_ids) for row in found.rows] == [[EOS]]
