"""The completions that decode, as the host and the device know them.

All that a decode step reads and writes lies in tensors that are made once and changed in place, so that the
step can be captured in a CUDA graph and replayed. A row that has ended, has drawn all it may or is not in use
is frozen: it takes part, but at the same position and into the same column again and again, which nobody
reads any more. So a captured step serves any number of rows up to its own.

Legend: R rows, V vocabulary, S tokens of the longest completion, K columns that are fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from r1rl.objective.sampling import Sampling
from r1rl.rollout.sampler import TORCH_OPS, LogitOps, sample, uniforms


@dataclass(slots=True)
class Row:
    """A completion, as the host knows it."""

    prompt: int
    generation: int
    prompt_length: int
    limit: int
    """The number of tokens that it may draw."""
    place: int = 0
    """The place of its prompt in the prefill that it starts from."""
    drawn: int = 0
    looked: int = 0
    """The number of tokens drawn that are known to hold no end."""
    ended: bool = False
    tokens: list[int] = field(default_factory=list)
    """The tokens drawn before it had to give up its place; it goes on from them."""
    logprobs: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        """The number of tokens of prompt and completion."""
        return self.prompt_length + self.drawn


class RowTensors:
    """The device's record of the rows, one entry each."""

    def __init__(self, capacity: int, completion_length: int, may_end_V: Tensor, keep_seen: bool) -> None:
        """Make room for completions of at most `completion_length` tokens.

        `may_end_V`: tokens that the host wants to hear of. `keep_seen`: remember which tokens each row holds.
        """
        device, integer = may_end_V.device, torch.long
        self.capacity = capacity
        self.completion_length = completion_length
        self.may_end_V = may_end_V.clone()
        self.last_R = torch.zeros(capacity, dtype=integer, device=device)
        """The token drawn last, which the model has not been fed yet."""
        self.positions_R = torch.zeros(capacity, dtype=integer, device=device)
        """The position of that token."""
        self.drawn_R = torch.zeros(capacity, dtype=integer, device=device)
        self.limit_R = torch.zeros(capacity, dtype=integer, device=device)
        """The number of tokens that a row may draw: 0 for one that is not in use or has ended."""
        self.flagged_R = torch.zeros(capacity, dtype=torch.bool, device=device)
        """The rows that have drawn a token of `may_end_V` since the last look."""
        self.tokens_RS = torch.zeros(capacity, completion_length + 1, dtype=integer, device=device)
        self.logprobs_RS = torch.zeros(capacity, completion_length + 1, device=device)
        self.uniforms_RS = torch.zeros(capacity, completion_length + 1, dtype=torch.float64, device=device)
        """The number that each token is drawn with. Column S, the last, is for rows that are frozen with S
        tokens.
        """
        self.seen_RV = (
            torch.zeros(capacity, may_end_V.shape[0], dtype=torch.bool, device=device) if keep_seen else None
        )

    def start(
        self, first: int, rows: Sequence[Row], keys: Sequence[int], prompts: Sequence[Sequence[int]]
    ) -> None:
        """Make `rows` the rows from `first` on, each about to draw, up to its limit.

        `prompts`: of each row, without its tokens.
        """
        device, taken = self.drawn_R.device, slice(first, first + len(rows))
        zero_R = torch.zeros(len(rows), dtype=torch.long, device=device)
        longest = max(row.limit for row in rows)
        self.uniforms_RS[taken, :longest] = uniforms(torch.tensor(keys, device=device), zero_R, longest)
        self.drawn_R[taken] = torch.tensor([row.drawn for row in rows], device=device)
        self.positions_R[taken] = torch.tensor([row.length - 1 for row in rows], device=device)
        self.limit_R[taken] = torch.tensor([row.limit for row in rows], device=device)
        self.flagged_R[taken] = False
        if self.seen_RV is not None:
            self.seen_RV[taken] = False
        for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True), start=first):
            if row.tokens:
                self.tokens_RS[index, : row.drawn] = torch.tensor(row.tokens, device=device)
                self.logprobs_RS[index, : row.drawn] = torch.tensor(row.logprobs, device=device)
            if self.seen_RV is not None:
                self.seen_RV[index, torch.tensor([*prompt, *row.tokens], device=device)] = True

    def draw(self, rows: slice, logits_RV: Tensor, sampling: Sampling, ops: LogitOps = TORCH_OPS) -> None:
        """Draw and record the next token of each of these rows. A frozen row draws, too, but stays where it
        is.

        Nothing here waits for the device or depends on values of the host. What needs memory comes before the
        first change, so a draw that ran out of memory can be repeated.
        """
        seen_RV = None if self.seen_RV is None else self.seen_RV[rows]
        drawn_R = self.drawn_R[rows]
        column_R1 = drawn_R[:, None]
        token_R, logprob_R = sample(
            logits_RV, sampling, self.uniforms_RS[rows].gather(1, column_R1)[:, 0], seen_RV, ops
        )
        live_R = drawn_R < self.limit_R[rows]
        may_end_R = self.may_end_V[token_R]
        token_R1 = token_R[:, None]
        self.tokens_RS[rows].scatter_(1, column_R1, token_R1)
        self.logprobs_RS[rows].scatter_(1, column_R1, logprob_R[:, None])
        self.flagged_R[rows].logical_or_(may_end_R)
        if seen_RV is not None:
            seen_RV.scatter_(1, token_R1, True)
        self.last_R[rows].copy_(token_R)
        self.positions_R[rows].add_(live_R)
        drawn_R.add_(live_R)

    def fetch(self, rows: Sequence[int], first: Sequence[int], count: int) -> list[list[int]]:
        """Return `count` tokens of each of these rows, from its column `first` on.

        Columns past the last repeat that one.
        """
        device = self.tokens_RS.device
        column_RK = torch.tensor(first, device=device)[:, None] + torch.arange(count, device=device)
        row_R1 = torch.tensor(rows, device=device)[:, None]
        return self.tokens_RS[row_R1, column_RK.clamp_(max=self.completion_length)].tolist()

    def fetch_all(self, rows: Sequence[int], count: int) -> tuple[list[list[int]], list[list[float]]]:
        """Return the first `count` tokens and log-probabilities of each of these rows."""
        index_R = torch.tensor(rows, device=self.tokens_RS.device)
        return self.tokens_RS[index_R, :count].tolist(), self.logprobs_RS[index_R, :count].tolist()

    def freeze(self, rows: Sequence[int]) -> None:
        """Stop these rows, which have ended."""
        self.limit_R[torch.tensor(rows, device=self.limit_R.device)] = 0

    def compact(self, sources: Sequence[int], destinations: Sequence[int], rows: int) -> None:
        """Keep the first `rows` rows after moving row `sources[i]` to `destinations[i]`; the others are out
        of use.
        """
        tensors = [
            self.last_R,
            self.positions_R,
            self.drawn_R,
            self.limit_R,
            self.tokens_RS,
            self.logprobs_RS,
            self.uniforms_RS,
        ]
        if sources:
            device = self.drawn_R.device
            source, destination = (
                torch.tensor(sources, device=device),
                torch.tensor(destinations, device=device),
            )
            for tensor in [*tensors, *([] if self.seen_RV is None else [self.seen_RV])]:
                tensor[destination] = tensor[source]
        for tensor in (self.last_R, self.positions_R, self.drawn_R, self.limit_R):
            tensor[rows:] = 0
