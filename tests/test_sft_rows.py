"""The rows of demonstrations: the prompt's tokens are RL's, the rest is trained to its end, and nothing is
cut or lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_policy import save_tiny_policy
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from r1rl.config.rows import DemonstrationsConfig
from r1rl.config.schema import ModelConfig, PromptConfig
from r1rl.data.demonstration_tokens import tokenize, trained_end
from r1rl.data.demonstrations import Demonstration, LoadedDemonstrations
from r1rl.errors import DataError, RecipeError
from r1rl.sft.recipe import SFTRecipe
from r1rl.sft.rows import as_dataset, make_rows, parts_of
from r1rl.text.prompts import PromptTemplate, resolve_eos_token_ids
from r1rl.types import Problem

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(save_tiny_policy(tmp_path_factory.mktemp("policy")))


def shown(problem: str = "2+2", text: str = " 4", place: str = "line 1") -> Demonstration:
    return Demonstration(problem, None, text, place)


def rendered(prompt: PromptConfig, tokenizer: Any, problem: str = "2+2") -> list[int]:
    return PromptTemplate(prompt, tokenizer).render(Problem("", problem, None)).token_ids


def one_row(
    prompt: PromptConfig, tokenizer: Any, demonstration: Demonstration, max_length: int = 1024
) -> tuple[list[int], list[int]]:
    end = trained_end(prompt, ModelConfig(path=tokenizer.name_or_path), tokenizer)
    row = as_dataset(tokenize([demonstration], prompt, tokenizer, end, max_length))[0]
    ((before, after),) = parts_of(row)
    # The label is the token itself wherever there is one.
    assert row["labels"] == [-100] * len(before) + after
    assert row["input_ids"] == before + after
    return before, after


@pytest.mark.parametrize("template", ["plain", "r1_zero", "none"])
def test_prompt_is_that_of_rl_and_the_end_is_trained(tokenizer: Any, template: str) -> None:
    prompt = PromptConfig(template=template)
    before, after = one_row(prompt, tokenizer, shown(text=" <think> x</think>"))
    assert before == rendered(prompt, tokenizer)
    assert tokenizer.decode(after) == " <think> x</think><eos>"
    assert after[-1] in resolve_eos_token_ids(prompt, tokenizer, None)


def test_prefill_belongs_to_the_prompt(tokenizer: Any) -> None:
    prompt = PromptConfig(template="plain", prefill=" <think>")
    before, after = one_row(prompt, tokenizer, shown(text=" <think> x</think>"))
    assert before == rendered(prompt, tokenizer) and tokenizer.decode(before).endswith("Assistant: <think>")
    assert tokenizer.decode(after) == " x</think><eos>"
    found = tokenize([shown(text="x</think>"), shown(text=" <think>")], prompt, tokenizer, 1, 256)
    assert found.sequences == []
    assert [(row.fault, row.place) for row in found.bad] == [
        ("other_prefill", "line 1"),
        ("missing_value", "line 1"),
    ]
    assert "begins with 'x</think>', not with prompt.prefill (' <think>')" in found.bad[0].detail


def test_rendered_prompt_is_not_rendered_again(tokenizer: Any) -> None:
    prompt = PromptConfig(template="plain", prefill="<think>")
    before, after = one_row(prompt, tokenizer, Demonstration(None, "Q 2+2 A", "4", ""))
    assert tokenizer.decode(before) == "Q 2+2 A" and tokenizer.decode(after) == "4<eos>"


def test_a_token_across_the_border_does_not_change_the_prompt(tokenizer: Any) -> None:
    """`<think>` is one merge of the tiny tokenizer; the policy gets a prompt that ends in "<th" and must go
    on with "ink>".
    """
    prompt = PromptConfig(template="none")
    whole = tokenizer("<think>", add_special_tokens=False)["input_ids"]
    before, after = one_row(prompt, tokenizer, shown("<th", "ink>"))
    assert before == rendered(prompt, tokenizer, "<th") and tokenizer.decode(after) == "ink><eos>"
    assert before + after[:-1] != whole


def test_end_that_is_there_already_is_not_doubled(tokenizer: Any) -> None:
    _, after = one_row(PromptConfig(template="plain"), tokenizer, shown(text=" 4<eos>"))
    assert after.count(1) == 1 and after[-1] == 1


def test_too_long_is_left_out_and_never_cut(tokenizer: Any) -> None:
    prompt = PromptConfig(template="plain")
    before, after = one_row(prompt, tokenizer, shown(text=" 4 " * 20))
    length = len(before) + len(after)
    assert len(tokenize([shown(text=" 4 " * 20)], prompt, tokenizer, 1, length).sequences) == 1
    found = tokenize([shown(text=" 4 " * 20)], prompt, tokenizer, 1, length - 1)
    assert found.sequences == [] and found.bad[0].fault == "too_long"
    assert found.bad[0].detail == f"{length} tokens, more than max_length ({length - 1})"


def test_bos_comes_first_once(tokenizer: Any) -> None:
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    core.post_processor = processors.TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    with_bos = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<pad>", eos_token="<eos>", pad_token="<pad>"
    )
    before, after = one_row(PromptConfig(template="plain"), with_bos, shown())
    assert before[0] == 0 and 0 not in before[1:] + after
    assert after == one_row(PromptConfig(template="plain"), tokenizer, shown())[1]


def chat_tokenizer(tokenizer: Any) -> Any:
    copy = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        eos_token="<eos>",
        pad_token="<pad>",
    )
    copy.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    copy.chat_template = CHAT_TEMPLATE
    return copy


def test_which_token_ends_a_text(tokenizer: Any, tmp_path: Path) -> None:
    chat, model = chat_tokenizer(tokenizer), ModelConfig(path=str(tmp_path))
    turn = chat.convert_tokens_to_ids("<|im_end|>")
    assert trained_end(PromptConfig(template="plain"), model, tokenizer) == 1
    assert trained_end(PromptConfig(template="plain"), model, chat) == 1
    # What its template puts at the end of a turn.
    assert trained_end(PromptConfig(template="chat"), model, chat) == turn
    assert trained_end(PromptConfig(template="plain", eos_token_ids=[9, 4]), model, tokenizer) == 9
    prompt = PromptConfig(template="chat")
    before, after = one_row(prompt, chat, shown())
    assert before == rendered(prompt, chat) and after[-1] == turn
    without = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), pad_token="<pad>"
    )
    assert trained_end(PromptConfig(template="plain", stop=["."]), model, without) is None
    # The model's config has it.
    assert trained_end(PromptConfig(template="plain"), ModelConfig(path=tokenizer.name_or_path), without) == 1
    with pytest.raises(RecipeError, match="every completion would run to max_completion_length"):
        trained_end(PromptConfig(template="plain"), model, without)


def recipe(**changes: Any) -> SFTRecipe:
    settings: dict[str, Any] = {"max_length": 96, **changes}
    return SFTRecipe(
        run_name="x", data=DemonstrationsConfig(source="x"), prompt=PromptConfig(template="plain"), **settings
    )


def test_packing_keeps_every_demonstration_once_and_whole(tokenizer: Any, tmp_path: Path) -> None:
    demonstrations = [shown(f"{number}+1", " x" * (number % 13) + f" {number}") for number in range(60)]
    loaded = LoadedDemonstrations("rows", demonstrations)
    packed, _ = make_rows(recipe(), loaded, tokenizer)
    single, _ = make_rows(recipe(packing=False), loaded, tokenizer)
    assert len(single) == 60 and len(packed) < 30
    assert all(sum(row["seq_lengths"]) == len(row["input_ids"]) <= 96 for row in packed)
    split = lambda rows: sorted(part for row in rows for part in parts_of(row))  # noqa: E731
    assert split(packed) == split(single)


def test_what_is_left_out_is_told(tokenizer: Any) -> None:
    loaded = LoadedDemonstrations(
        "rows.jsonl", [shown(), shown(text=" y" * 200, place="line 2")], notes=["a note"]
    )
    rows, sentences = make_rows(recipe(packing=False), loaded, tokenizer)
    assert len(rows) == 1 and sentences[0] == "a note"
    assert "rows.jsonl: 1 row skipped (too_long): line 2:" in sentences[1]
    with pytest.raises(DataError, match=r"rows: no demonstration is left\. rows: 1 row skipped \(too_long\)"):
        make_rows(recipe(max_length=5), LoadedDemonstrations("rows", [shown()]), tokenizer)
