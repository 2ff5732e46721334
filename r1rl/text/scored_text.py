"""The input of a reward model: a problem and an answer as one text, the same in training and wherever it
scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from r1rl.grading.extract import answer_region

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def scored_answer(text: str, prefill: str = "", answer_only: bool = True) -> str | None:
    """Return the part of a completion that is scored, or None for thoughts that never close, which have no
    answer.

    With `answer_only` it is the text after the last `</think>`, else the whole completion with its prefill.
    """
    answer = answer_region(text, prefill) if answer_only else prefill + text
    return None if answer is None else answer.strip()


def scored_token_ids(tokenizer: PreTrainedTokenizerBase, problem: str, answer: str) -> list[int]:
    """Return the token ids of a problem and an answer, in the tokenizer's chat template.

    Without a chat template, an empty line joins the two.
    """
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": problem}, {"role": "assistant", "content": answer}]
        return list(
            tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)[
                "input_ids"
            ]
        )
    return list(tokenizer(f"{problem}\n\n{answer}")["input_ids"])
