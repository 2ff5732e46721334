"""Prompt templates: the text that the policy continues for a problem, and the tokens that end a
completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1rl.config.schema import PromptConfig
from r1rl.errors import RecipeError
from r1rl.text.few_shot import text_before, turns_before
from r1rl.types import Problem, Prompt

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

PLACEHOLDER = "{problem}"

R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
    "assistant first "
    "thinks about the reasoning process in the mind and then provides the user with the answer. The "
    "reasoning process and "
    "answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process "
    "here </think> <answer> answer here </answer>. User: {problem}. Assistant:"
)
"""The template of DeepSeek-R1 (arXiv 2501.12948), table 1, word for word."""

TEXT_TEMPLATES = {
    "r1_zero": R1_ZERO,
    "plain": "User: {problem}\nAssistant:",
    "none": PLACEHOLDER,
}
"""The templates that are plain text. "chat" is the tokenizer's own; any other name is a file."""
CHAT = "chat"

_MARK = "r1rl-text-between-the-turns"
"""A stand-in for a turn's text, to find the text that the chat template puts around it."""


class PromptTemplate:
    """The recipe's template, bound to a tokenizer.

    Making one checks the recipe and raises `RecipeError` if the template can't be used.
    """

    def __init__(self, config: PromptConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self._is_chat = config.template == CHAT
        if self._is_chat:
            _check_chat(tokenizer)
        elif config.system is not None:
            raise RecipeError(
                f"prompt.system is set, but the template {config.template} has no system message: use "
                f"prompt.template: chat."
            )
        self._text = "" if self._is_chat else template_text(config.template)
        self._before = "" if self._is_chat else text_before(config, self._ask)
        self._turns = turns_before(config) if self._is_chat else []
        self._check_turns()
        self._first_ids = [] if self._is_chat else ids_before_text(tokenizer)

    def render(self, problem: Problem) -> Prompt:
        """Return the prompt of one problem."""
        return self.render_batch([problem])[0]

    def render_batch(self, problems: Sequence[Problem]) -> list[Prompt]:
        """Return the prompts of many problems, tokenized in one call.

        Template, problem and prefill are tokenized as one text, so that tokens form across their borders as
        they do in any other text. The tokenizer's BOS token comes first, once, if the tokenizer adds one. An
        EOS that it would add at the end is left out, since the policy is to continue the text.
        """
        if not problems:
            return []
        texts, prefills = zip(*(self._render_text(problem.problem) for problem in problems), strict=True)
        encoded = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [
            Prompt(
                problem,
                text,
                ids if ids[: len(self._first_ids)] == self._first_ids else [*self._first_ids, *ids],
                prefill,
            )
            for problem, text, prefill, ids in zip(problems, texts, prefills, encoded, strict=True)
        ]

    def _render_text(self, problem: str) -> tuple[str, str]:
        """Return the whole text and the part at its end that is the prefill."""
        if not self._is_chat:
            return self._before + self._ask(problem) + self.config.prefill, self.config.prefill
        messages = [*self._turns, {"role": "user", "content": problem}]
        if self.config.system is not None:
            messages.insert(0, {"role": "system", "content": self.config.system})
        return _with_prefill(
            _apply_chat(self.tokenizer, messages, add_generation_prompt=True), self.config.prefill
        )

    def _ask(self, problem: str) -> str:
        """Return the text template around a problem."""
        return self._text.replace(PLACEHOLDER, problem)

    def _check_turns(self) -> None:
        """Raise `RecipeError` if the chat template omits the thoughts of earlier turns.

        A demonstration would then show none.
        """
        if not self._turns:
            return
        shown = _apply_chat(
            self.tokenizer, [*self._turns, {"role": "user", "content": _MARK}], add_generation_prompt=True
        )
        lost = next((turn["content"] for turn in self._turns if turn["content"] not in shown), None)
        if lost is not None:
            raise RecipeError(
                f"prompt.demonstrations: the chat template does not show all of a demonstration "
                f"({lost[:60]!r}): it leaves parts of "
                "earlier turns out, as templates of reasoning models do. Use a text template for few-shot "
                "prompts."
            )


def template_text(name: str) -> str:
    """Return the text of a named template or of a template file.

    Raise `RecipeError` if there is none or if it has no {problem}. The newline that editors put at the end of
    a file is not part of the template.
    """
    if name in TEXT_TEMPLATES:
        return TEXT_TEMPLATES[name]
    path = Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise RecipeError(f"prompt.template: {path} is not UTF-8 text.") from None
    except OSError as error:
        known = ", ".join([*TEXT_TEMPLATES, CHAT])
        sentence = (
            f"prompt.template: {name!r} is neither a template ({known}) nor a file that can be read: "
            f"{error.strerror}."
        )
        raise RecipeError(sentence) from None
    if PLACEHOLDER not in text:
        raise RecipeError(
            f"prompt.template: {path} does not contain {PLACEHOLDER}, the place where the problem goes."
        )
    return text


def ids_before_text(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text by itself (BOS, for the models that
    have it).
    """
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    return []


def resolve_eos_token_ids(
    config: PromptConfig, tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None
) -> tuple[int, ...]:
    """Return the token ids that end a completion, in ascending order.

    These are the recipe's, if it names any. Otherwise they are all that the model's generation config and its
    tokenizer name, and with the chat template also the token that it writes at the end of a turn. In base
    models that is often another token than the tokenizer's EOS. Raise `RecipeError` if nothing could end a
    completion, or if an id is not the tokenizer's.
    """
    if config.eos_token_ids:
        size = len(tokenizer)
        for token_id in config.eos_token_ids:
            if not 0 <= token_id < size:
                raise RecipeError(
                    f"prompt.eos_token_ids: {token_id} is not a token of the tokenizer, which has the ids 0 "
                    f"to {size - 1}."
                )
        return tuple(sorted(set(config.eos_token_ids)))
    declared = generation_config.eos_token_id if generation_config is not None else None
    found = set(declared) if isinstance(declared, (list, tuple)) else {declared}
    found |= {tokenizer.eos_token_id, end_of_turn_id(tokenizer) if config.template == CHAT else None}
    ids = tuple(sorted(token_id for token_id in found if token_id is not None))
    if not ids and not config.stop:
        raise RecipeError(
            "prompt.eos_token_ids: neither the tokenizer nor the model's generation config has an EOS "
            "token, so that every completion "
            "would run to max_completion_length. Name the ids, or set prompt.stop."
        )
    return ids


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token that the chat template writes right after an assistant's message, or None if
    it writes none.
    """
    _check_chat(tokenizer)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    after = _apply_chat(tokenizer, messages, add_generation_prompt=False).rpartition(_MARK)[2]
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]
    first = tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return ids[0] if first is not None and first.special else None


def _check_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise RecipeError(
            f"prompt.template is chat, but the tokenizer of {tokenizer.name_or_path or 'the model'} has no "
            f"chat template. "
            f"Use r1_zero, plain, none or a template file."
        )


def _apply_chat(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], add_generation_prompt: bool
) -> str:
    try:
        rendered: Any = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except (
        Exception
    ) as error:  # a template is a program of the model's author: it may refuse a role or fail in any way
        raise RecipeError(
            f"prompt.template: the tokenizer's chat template failed on {[m['role'] for m in messages]}: "
            f"{error}."
        ) from error
    return str(rendered)


def _with_prefill(text: str, prefill: str) -> tuple[str, str]:
    """Add the prefill, unless the text already ends with it but for white space, as R1-style chat templates
    do with <think>.
    """
    wanted = prefill.strip()
    if wanted and text.rstrip().endswith(wanted):
        return text, text[text.rindex(wanted) :]
    return text + prefill, prefill
