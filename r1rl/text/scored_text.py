"""What a reward model reads: how a problem and an answer become its input, in its training and wherever it
scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from r1rl.grading.extract import answer_region

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def scored_answer(text: str, prefill: str = "", answer_only: bool = True) -> str | None:
    """The part of a completion that is scored: with `answer_only` what follows the last `</think>`, else all
    of it with its prefill.

    None for thoughts that never close: then there is no answer.
    """
    answer = answer_region(text, prefill) if answer_only else prefill + text
    return None if answer is None else answer.strip()


def scored_token_ids(tokenizer: PreTrainedTokenizerBase, problem: str, answer: str) -> list[int]:
    """The token ids of a problem and an answer: the tokenizer's chat template, or joined by an empty line
    where it has none.
    """
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": problem}, {"role": "assistant", "content": answer}]
        return list(
            tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)[
                "input_ids"
            ]
        )
    return list(tokenizer(f"{problem}\n\n{answer}")["input_ids"])
