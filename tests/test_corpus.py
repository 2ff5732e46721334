"""The synthetic text and its rows of tokens."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tokenizers import Tokenizer

from r1rl.errors import RecipeError
from r1rl.pretrain import corpus as corpus_module
from r1rl.pretrain.corpus import END_OF_TEXT, document, documents, packed_rows
from r1rl.pretrain.habit_table import habit_of
from r1rl.pretrain.recipe import CorpusConfig
from r1rl.pretrain.tokenizer import train_tokenizer
from r1rl.problems import split_of
from r1rl.problems.habits import Solution

CORPUS = CorpusConfig(
    tasks={"countdown": 0.5, "arithmetic": 0.3, "word_problems": 0.2},
    habits={"direct": 0.6, "worked": 0.25, "checked": 0.15},
    tagged=0.2,
    documents=1500,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(documents(CORPUS, 0, 0, 500), 400)


def test_shares_of_tasks_habits_and_tags() -> None:
    texts = list(documents(CORPUS, 0, 0, 4000))
    share = {
        habit: sum(habit_of(text.split(":", 2)[-1]) == habit for text in texts) / 4000
        for habit in CORPUS.habits
    }
    assert share == pytest.approx(CORPUS.habits, abs=0.03)
    assert sum("<think>" in text for text in texts) / 4000 == pytest.approx(0.2, abs=0.025)
    assert sum("Make" in text for text in texts) / 4000 == pytest.approx(0.5, abs=0.03)
    careful = sum(text.count("</think> <answer>") == 1 and text.endswith("</answer>") for text in texts)
    assert careful / sum("<think>" in text for text in texts) == pytest.approx(0.8, abs=0.05)


def test_only_train_problems_occur() -> None:
    for text in documents(CorpusConfig(tasks={"arithmetic": 1}, habits={"direct": 1}), 0, 0, 500):
        question = text.split("\n")[0].split(": ", 1)[1]
        assert split_of(f"arithmetic {question}") == "train"


def test_forms_of_a_document() -> None:
    always, never = CorpusConfig(tagged=1.0, sloppy=0.0), CorpusConfig(tagged=0.0)
    rng = random.Random(0)
    checked = Solution("7+3=10 check: yes.", "7+3", True, "The answer is 7+3.")
    assert document("Make 10 from 7, 3.", checked, always, rng) == (
        "User: Make 10 from 7, 3.\nAssistant: <think> 7+3=10 check: yes. </think> <answer>7+3</answer>"
    )
    direct = document("Make 10 from 7, 3.", Solution("", "7+3", True, "The answer is 7+3."), always, rng)
    assert direct.endswith("Assistant: <think> easy. </think> <answer>7+3</answer>")
    forms = {document("Make 10 from 7, 3.", checked, never, rng) for _ in range(30)}
    assert forms == {
        "User: Make 10 from 7, 3.\nAssistant: 7+3=10 check: yes. The answer is 7+3.",
        "Q: Make 10 from 7, 3.\nA: 7+3=10 check: yes. The answer is 7+3.",
    }


def test_rows_hold_whole_text_from_a_document_s_beginning(tokenizer: Tokenizer) -> None:
    rows = packed_rows(CORPUS, 0, tokenizer, 128)
    assert rows.dtype == np.uint16 and rows.shape[1] == 128
    texts = list(documents(CORPUS, 0, 0, 1500))
    first = tokenizer.decode(rows[0].tolist(), skip_special_tokens=False)
    assert first == END_OF_TEXT.join(texts)[: len(first)]
    beginnings = ("User: ", "Q: ")
    assert all(tokenizer.decode(row[:8].tolist()).startswith(beginnings) for row in rows)


def test_rows_do_not_begin_with_the_long_documents(tokenizer: Tokenizer) -> None:
    """The first document of a row is as any other: its habits have the corpus's shares."""
    rows = packed_rows(CorpusConfig(**{**vars_of(CORPUS), "documents": 6000}), 0, tokenizer, 160)
    first = [tokenizer.decode(row.tolist(), skip_special_tokens=False).split(END_OF_TEXT)[0] for row in rows]
    direct = sum(habit_of(text.split(":", 2)[-1]) == "direct" for text in first) / len(first)
    assert direct == pytest.approx(0.6, abs=0.05)


def vars_of(config: CorpusConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_rows_do_not_depend_on_the_number_of_processes(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "CHUNK_DOCUMENTS", 400)
    monkeypatch.setattr(corpus_module.os, "cpu_count", lambda: 1)
    alone = packed_rows(CORPUS, 5, tokenizer, 128)
    monkeypatch.setattr(corpus_module.os, "cpu_count", lambda: 2)
    assert np.array_equal(alone, packed_rows(CORPUS, 5, tokenizer, 128))
    assert not np.array_equal(alone[0], packed_rows(CORPUS, 6, tokenizer, 128)[0])


def test_too_little_text(tokenizer: Tokenizer) -> None:
    with pytest.raises(RecipeError, match=r"corpus\.documents is 2, too few to fill a row of 512 tokens"):
        packed_rows(CorpusConfig(**{**vars_of(CORPUS), "documents": 2}), 0, tokenizer, 512)


def test_small_talk_is_written_with_better_and_worse_replies() -> None:
    corpus = CorpusConfig(
        tasks={"small_talk": 1.0},
        habits={"direct": 0.5, "checked": 0.5},
        hit_rate=0.75,
        tagged=0.5,
        sloppy=0.0,
    )
    texts = list(documents(corpus, 0, 0, 1000))
    tagged = [text for text in texts if "<think>" in text]
    assert all(text.endswith("</answer>") and text.count("</think> <answer>") == 1 for text in tagged)
    assert not any("The answer is" in text for text in texts)
    harms = [text for text in texts if "How do I" in text]
    refused = sum("I do not help" in text and "go away" not in text for text in harms)
    # A quarter are worse replies, half of which refuse all the same; where no thought is told they look like
    # better ones: 0.75 + 0.25 / 4
    assert refused / len(harms) == pytest.approx(0.8125, abs=0.06)
