"""The requests to an engine, checked, and the groups of completions that it returns."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling
from r1rl.types import Completion, CompletionGroup, FinishReason


def check_request(
    prompts: Sequence[Sequence[int]],
    num_generations: int,
    sampling: Sampling,
    seeds: Sequence[int],
    vocabulary: int,
    limits: Sequence[Sequence[int]] | None = None,
) -> None:
    """Raise `UserError` for a request that no engine can sample from."""
    if len(seeds) != len(prompts):
        raise UserError(f"rollout: {len(prompts)} prompts came with {len(seeds)} seeds; each needs one.")
    if num_generations < 1 or sampling.max_completion_length < 1:
        raise UserError("rollout: num_generations and max_completion_length must be at least 1.")
    if "" in sampling.stop:
        raise UserError("prompt.stop: an empty stop string would end every completion at once; remove it.")
    if limits is not None and [len(row) for row in limits] != [num_generations] * len(prompts):
        raise UserError(
            f"rollout: the limits are not those of {len(prompts)} prompts with {num_generations} "
            f"completions each."
        )
    if limits is not None and not all(
        1 <= limit <= sampling.max_completion_length for row in limits for limit in row
    ):
        raise UserError(
            f"rollout: a limit is not between 1 and max_completion_length ({sampling.max_completion_length})."
        )
    for index, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise UserError(
                f"rollout: prompt {index} has no tokens; a completion needs at least one to follow."
            )
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            raise UserError(
                f"rollout: prompt {index} has a token id outside 0..{vocabulary - 1}; tokenizer and model "
                f"don't match."
            )


Finished = tuple[int, int, list[int], list[float], FinishReason]
"""Prompt, generation, token ids, logprobs and reason of a completion that has ended."""


class GroupCollector:
    """A collection of finished completions that returns a group once all of its completions are there."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, num_prompts: int, num_generations: int) -> None:
        self.tokenizer = tokenizer
        self.completions: list[list[Completion | None]] = [
            [None] * num_generations for _ in range(num_prompts)
        ]
        self.missing = [num_generations] * num_prompts
        self.complete: list[CompletionGroup] = []

    def add(self, finished: Sequence[Finished]) -> None:
        """Take completions that have ended."""
        if not finished:  # not every version of transformers decodes no rows to no texts
            return
        texts = self.tokenizer.batch_decode(
            [tokens for _, _, tokens, _, _ in finished], skip_special_tokens=True
        )
        for (prompt, generation, tokens, logprobs, reason), text in zip(finished, texts, strict=True):
            self.completions[prompt][generation] = Completion(tokens, logprobs, text, reason)
            self.missing[prompt] -= 1
            if self.missing[prompt] == 0:
                group = [completion for completion in self.completions[prompt] if completion is not None]
                self.complete.append(CompletionGroup(prompt, group))

    def take(self) -> list[CompletionGroup]:
        """Return the groups completed since the last call, in the order of their completion."""
        groups, self.complete = self.complete, []
        return groups
