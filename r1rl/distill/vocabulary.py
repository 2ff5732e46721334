"""The token ids that a student and its teacher both have, from their tokenizers alone.

A divergence compares probabilities id by id, so an id must mean the same token in both. Equal
tokenizers are allowed, whatever the widths of the two models' logits. So are tokenizers of which one has
further tokens after all those of the other, such as special tokens that a later model added: then the ids
before them are compared. Everything else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from r1rl.errors import UserError

PROBE = (
    "The answer is 12,345.67 = x^2 + \\frac{1}{2}.\n\n  def f(a):\n\treturn a  # I'm, don't, 2024-01-02\n"
    "na\u00efve caf\u00e9, \u4f60\u597d \U0001f642\n"
)
"""Text of many kinds: tokenizers with equal tokens may still split it differently."""


@dataclass(frozen=True, slots=True)
class SharedTokens:
    """The ids below `limit` mean the same in both tokenizers; None where all do."""

    limit: int | None
    note: str = ""
    """A sentence about the tokens that only one of them has; empty if there are none."""

    def size(self, student_width: int, teacher_width: int) -> int:
        """Return the number of ids that are compared between logits of these widths."""
        widths = (student_width, teacher_width)
        return min(widths) if self.limit is None else min(*widths, self.limit)


@dataclass(frozen=True, slots=True)
class Tokenizers:
    """The student's tokenizer, and what it shares with the teacher's."""

    student: PreTrainedTokenizerBase
    shared: SharedTokens


def shared_tokens(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> SharedTokens:
    """Return what the tokenizers share. Raises UserError if an id means different tokens, or if they split a
    text differently.
    """
    own, theirs = _tokens(student), _tokens(teacher)
    for token_id in sorted(own.keys() & theirs.keys()):
        if own[token_id] != theirs[token_id]:
            raise UserError(
                f"teacher.path: the teacher has another tokenizer than the student (id {token_id} is "
                f"{theirs[token_id]!r}, "
                f"the student's is {own[token_id]!r}), so their probabilities can't be compared token by "
                f"token. Choose a teacher of the "
                "student's family, or train on the teacher's texts: r1rl generate, select and sft."
            )
    extra = own.keys() ^ theirs.keys()
    common = own.keys() & theirs.keys()
    if not common or (extra and min(extra) < max(common)):
        first = min(extra)
        raise UserError(
            f"teacher.path: only the {'student' if first in own else 'teacher'}'s tokenizer has a token "
            f"with the id {first}, in the middle "
            "of the other's vocabulary: they are different tokenizers. Choose a teacher of the student's "
            "family."
        )
    if (
        student(PROBE, add_special_tokens=False)["input_ids"]
        != teacher(PROBE, add_special_tokens=False)["input_ids"]
    ):
        raise UserError(
            "teacher.path: the tokenizers of teacher and student have the same tokens but split text "
            "differently: they are different "
            "tokenizers. Choose a teacher of the student's family."
        )
    if not extra:
        return SharedTokens(None)
    holder, tokens = ("student", own) if min(extra) in own else ("teacher", theirs)
    shown = ", ".join(tokens[token_id] for token_id in sorted(extra)[:3])
    return SharedTokens(
        min(extra),
        f"Only the {holder}'s tokenizer has {len(extra)} of the tokens ({shown}, ...): they take no part in "
        f"the comparison.",
    )


def known_part(completion_ids: list[int], shared: int) -> list[int]:
    """Return the completion up to and including its first id that the teacher does not know: what follows,
    the teacher can't read.

    That id itself is only predicted, never read, so its place is still compared.
    """
    foreign = next((place for place, token_id in enumerate(completion_ids) if token_id >= shared), None)
    return completion_ids if foreign is None else completion_ids[: foreign + 1]


def _tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return each id's token, added tokens included."""
    return {token_id: token for token, token_id in tokenizer.get_vocab().items()}
