"""Rendered prompts, word for word and token by token, with a small byte-level tokenizer made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from r1rl.config.schema import PromptConfig
from r1rl.data import build_prompts
from r1rl.errors import DataError, RecipeError
from r1rl.text.prompts import PromptTemplate, end_of_turn_id, ids_before_text, resolve_eos_token_ids
from r1rl.types import Problem

SPECIAL = ["<|endoftext|>", "<s>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(post_processor: Any = None, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["User: 2 + 3?\nAssistant:<think> 2 + 3 = 5 </think>"] * 4, trainer)
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        bos_token="<s>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    made.chat_template = chat_template
    return made


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="module")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(chat_template=CHAT_TEMPLATE)


def problem(text: str = "What is 2 + 3?") -> Problem:
    return Problem("p", text, "5")


def test_r1_zero_is_the_papers_text(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = PromptTemplate(PromptConfig(), tokenizer).render(problem())
    # DeepSeek-R1, table 1
    assert prompt.text == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
        "The assistant first thinks "
        "about the reasoning process in the mind and then provides the user with the answer. The reasoning "
        "process and answer are "
        "enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
        "reasoning process here </think> "
        "<answer> answer here </answer>. User: What is 2 + 3?. Assistant:"
    )
    assert tokenizer.decode(prompt.token_ids) == prompt.text
    assert (prompt.prefill, prompt.problem.answer) == ("", "5")


def test_plain_and_none(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (
        PromptTemplate(PromptConfig(template="plain"), tokenizer).render(problem()).text
        == "User: What is 2 + 3?\nAssistant:"
    )
    assert PromptTemplate(PromptConfig(template="none"), tokenizer).render(problem()).text == "What is 2 + 3?"


def test_prefill_is_tokenized_together_with_the_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = PromptTemplate(PromptConfig(template="plain", prefill="<think>"), tokenizer).render(
        problem("2 + 3?")
    )
    assert prompt.text == "User: 2 + 3?\nAssistant:<think>"
    assert prompt.prefill == "<think>"
    assert prompt.token_ids == tokenizer(prompt.text)["input_ids"]
    apart = tokenizer("User: 2 + 3?\nAssistant:")["input_ids"] + tokenizer("<think>")["input_ids"]
    assert len(prompt.token_ids) < len(apart)  # this tokenizer has one token across the border


def test_braces_of_latex_survive_and_the_problem_is_no_template(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Find $\\frac{1}{2} + {problem}$ for {x}."
    assert (
        PromptTemplate(PromptConfig(template="plain"), tokenizer).render(problem(text)).text
        == f"User: {text}\nAssistant:"
    )


def test_custom_file(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Aufgabe {1}: {problem}\n\nLösung:\n", encoding="utf-8")
    prompt = PromptTemplate(PromptConfig(template=str(path), prefill=" Also"), tokenizer).render(problem())
    assert prompt.text == "Aufgabe {1}: What is 2 + 3?\n\nLösung: Also"


def test_special_tokens_are_added_once() -> None:
    both_ends = processors.TemplateProcessing(
        single="<s> $A <|endoftext|>", special_tokens=[("<s>", 1), ("<|endoftext|>", 0)]
    )
    tokenizer = make_tokenizer(both_ends, CHAT_TEMPLATE)
    assert ids_before_text(tokenizer) == [1]
    bare = make_tokenizer()("User: 2\nAssistant:")["input_ids"]
    # BOS in front; no EOS at the end, since the policy is to go on
    assert PromptTemplate(PromptConfig(template="plain"), tokenizer).render(problem("2")).token_ids == [
        1,
        *bare,
    ]
    # a template that writes its own special tokens gets no further BOS
    chat = PromptTemplate(PromptConfig(template="chat"), tokenizer).render(problem("2")).token_ids
    assert chat[0] == tokenizer.convert_tokens_to_ids("<|im_start|>") and 1 not in chat and 0 not in chat


def test_a_file_that_writes_bos_itself_gets_one(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]))
    (tmp_path / "t.txt").write_text("<s>Q: {problem}")
    assert (
        PromptTemplate(PromptConfig(template=str(tmp_path / "t.txt")), tokenizer)
        .render(problem("2"))
        .token_ids.count(1)
        == 1
    )


def test_chat(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    config = PromptConfig(template="chat", system="Reason step by step.", prefill="<think>\n")
    prompt = PromptTemplate(config, chat_tokenizer).render(problem())
    assert prompt.text == (
        "<|im_start|>system\nReason step by step.<|im_end|>\n<|im_start|>user\nWhat is 2 + "
        "3?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert prompt.prefill == "<think>\n"
    assert prompt.token_ids.count(chat_tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


def demonstrations(tmp_path: Path) -> str:
    rows = [
        '{"problem": "1+1?", "completion": " so 2 </think> 2"}',
        '{"problem": "2+2?", "completion": "<think> so 4 </think> 4"}',
    ]
    (tmp_path / "shown.jsonl").write_text("\n\n".join(rows) + "\n", encoding="utf-8")
    return str(tmp_path / "shown.jsonl")


def test_demonstrations_are_answered_problems_before_the_own_one(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = PromptConfig(template="plain", prefill=" <think>", demonstrations=demonstrations(tmp_path))
    prompt = PromptTemplate(config, tokenizer).render(Problem("1", "3+3?", "6"))
    first = (
        "User: 1+1?\nAssistant: <think> so 2 </think> 2\n\nUser: 2+2?\nAssistant: <think> so 4 </think> 4\n\n"
    )
    assert prompt.text == f"{first}User: 3+3?\nAssistant: <think>" and prompt.prefill == " <think>"


def test_demonstrations_are_earlier_turns_of_a_chat(
    chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = PromptConfig(
        template="chat", prefill="<think>", system="Think.", demonstrations=demonstrations(tmp_path)
    )
    turns = (
        PromptTemplate(config, chat_tokenizer)
        .render(Problem("1", "3+3?", "6"))
        .text.split("<|im_start|>")[1:]
    )
    assert turns == [
        "system\nThink.<|im_end|>\n", "user\n1+1?<|im_end|>\n",
        "assistant\n<think> so 2 </think> 2<|im_end|>\n", "user\n2+2?<|im_end|>\n",
        "assistant\n<think> so 4 </think> 4<|im_end|>\n", "user\n3+3?<|im_end|>\n", "assistant\n<think>",
    ]  # fmt: skip


def test_a_chat_template_that_hides_thoughts_of_earlier_turns_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(
        chat_template=CHAT_TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}")
    )
    config = PromptConfig(template="chat", demonstrations=demonstrations(tmp_path))
    with pytest.raises(RecipeError, match="does not show all of a demonstration"):
        PromptTemplate(config, tokenizer)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"problem": "x"}',
        '{"problem": "x", "completion": 3}',
        '{"problem": "", "completion": "y"}',
    ],
)
def test_a_demonstration_that_is_none_ends_the_run(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, line: str
) -> None:
    path = tmp_path / "shown.jsonl"
    path.write_text('{"problem": "x", "completion": "y"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"shown\.jsonl, line 2: it must be an object"):
        PromptTemplate(PromptConfig(template="plain", demonstrations=str(path)), tokenizer)


def test_a_chat_template_that_opens_the_thoughts_is_not_given_them_twice() -> None:
    tokenizer = make_tokenizer(
        chat_template=CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    )
    prompt = PromptTemplate(PromptConfig(template="chat", prefill="<think>"), tokenizer).render(problem())
    assert prompt.text.endswith("<|im_start|>assistant\n<think>\n") and prompt.text.count("<think>") == 1
    assert prompt.prefill == "<think>\n"


def test_templates_that_cannot_be_used(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "no_place.txt").write_text("Solve this:")
    (tmp_path / "latin.txt").write_bytes(b"\xe9 {problem}")
    cases = [
        (PromptConfig(template="chat"), "has no chat template"),
        (
            PromptConfig(template="r1zero"),
            "'r1zero' is neither a template (r1_zero, plain, none, chat) nor a file",
        ),
        (PromptConfig(template=str(tmp_path / "no_place.txt")), "does not contain {problem}"),
        (PromptConfig(template=str(tmp_path / "latin.txt")), "is not UTF-8"),
        (PromptConfig(template="plain", system="Be brief."), "prompt.system is set"),
    ]
    for config, sentence in cases:
        with pytest.raises(RecipeError) as error:
            PromptTemplate(config, tokenizer)
        assert sentence in str(error.value)


def test_a_chat_template_that_refuses_the_system_message() -> None:
    tokenizer = make_tokenizer(
        chat_template="{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% "
        "endif %}x"
    )
    template = PromptTemplate(PromptConfig(template="chat", system="s"), tokenizer)
    with pytest.raises(RecipeError, match=r"failed on \['system', 'user'\]: no system role"):
        template.render(problem())


def test_eos_ids_come_from_all_that_declare_them(
    tokenizer: PreTrainedTokenizerFast, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    end_of_turn = chat_tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_of_turn_id(chat_tokenizer) == end_of_turn
    plain, chat = PromptConfig(template="plain"), PromptConfig(template="chat")
    assert resolve_eos_token_ids(plain, tokenizer, None) == (0,)
    assert resolve_eos_token_ids(plain, tokenizer, GenerationConfig(eos_token_id=7)) == (0, 7)
    assert resolve_eos_token_ids(plain, tokenizer, GenerationConfig(eos_token_id=[9, 7])) == (0, 7, 9)
    # the end-of-turn token ends a completion only where the chat template is used
    assert resolve_eos_token_ids(plain, chat_tokenizer, None) == (0,)
    assert resolve_eos_token_ids(chat, chat_tokenizer, None) == (0, end_of_turn)
    assert resolve_eos_token_ids(
        PromptConfig(eos_token_ids=[5, 4, 5]), tokenizer, GenerationConfig(eos_token_id=7)
    ) == (4, 5)


def test_eos_ids_that_cannot_be_used(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(RecipeError, match="100000 is not a token of the tokenizer"):
        resolve_eos_token_ids(PromptConfig(eos_token_ids=[100000]), tokenizer, None)
    without = make_tokenizer()
    without.eos_token = None
    with pytest.raises(RecipeError, match="every completion would run to max_completion_length"):
        resolve_eos_token_ids(PromptConfig(), without, None)
    assert resolve_eos_token_ids(PromptConfig(stop=["</answer>"]), without, None) == ()


def test_long_prompts_are_dropped_and_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    template = PromptTemplate(PromptConfig(template="none"), tokenizer)
    problems = [problem("zz"), problem("z" * 30), problem("zzz")]
    prompts, dropped = build_prompts(problems, template, max_prompt_tokens=3)
    assert ([prompt.problem.problem for prompt in prompts], dropped) == (["zz", "zzz"], 1)
    assert build_prompts(problems, template, None)[1] == 0
    assert [prompt.token_ids for prompt in prompts] == [
        template.render(problem(text)).token_ids for text in ("zz", "zzz")
    ]
    assert build_prompts([], template, 3) == ([], 0)
    with pytest.raises(DataError, match="the shortest of the 3 prompts has 2 tokens"):
        build_prompts(problems, template, max_prompt_tokens=1)
