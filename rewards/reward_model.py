"""The score of a reward model: a sequence-classification model with one output, from the hub or a folder."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from r1rl.errors import RewardError, UserError
from r1rl.text.scored_text import scored_answer, scored_token_ids


def reward_model(
    completions: list[str],
    problem: list[str],
    prefill: str = "",
    *,
    path: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    batch_tokens: int = 16384,
    max_length: int = 4096,
    answer_only: bool = True,
    sigmoid: bool = False,
) -> list[float | None]:
    """Return the model's score for each problem and answer.

    It is the helpfulness reward of DeepSeek-R1, arXiv 2501.12948, section 2.3.4. `path` (a run of `r1rl
    reward-model`, a folder or a hub name) and `revision` name the model, which is loaded at its first use.
    The conversation goes through its tokenizer's chat template, or is joined by an empty line if it has none.
    `answer_only` leaves out the text before the last `</think>`, as the paper does for helpfulness; an answer
    whose thoughts never close is not applicable (None).

    The model runs on its own `device` (default: the last GPU, else the CPU), without gradients. Its batches
    have at most `batch_tokens` tokens, padding included, of rows of similar length; longer texts keep their
    last `max_length` tokens. `sigmoid` maps scores to (0, 1).
    """
    if batch_tokens < max_length:
        raise RewardError(
            f"rewards: reward_model: batch_tokens ({batch_tokens}) must be at least max_length "
            f"({max_length})."
        )
    if not completions:
        return []
    tokenizer, model = _load(path, revision, device, dtype)
    answers = [scored_answer(text, prefill, answer_only) for text in completions]
    rows = {
        row: scored_token_ids(tokenizer, question, answer)[-max_length:]
        for row, (question, answer) in enumerate(zip(problem, answers, strict=True))
        if answer is not None
    }
    scores: list[float | None] = [None] * len(completions)
    for batch in _batches({row: ids for row, ids in rows.items() if ids}, batch_tokens):
        for row, score in zip(batch, _scores(model, [rows[row] for row in batch], sigmoid), strict=True):
            scores[row] = score
    return scores


def close() -> None:
    """Release the model's memory."""
    _load.cache_clear()


@functools.lru_cache(maxsize=4)
def _load(path: str, revision: str | None, device: str | None, dtype: str) -> tuple[Any, Any]:
    import torch

    from r1rl.models.loading import SCORER, load_model, load_tokenizer

    if device is None:
        device = f"cuda:{torch.cuda.device_count() - 1}" if torch.cuda.is_available() else "cpu"
    key, label = "rewards", f"reward_model: {path!r}"
    try:
        tokenizer = load_tokenizer(path, revision, key, label)
        model = load_model(path, dtype, revision=revision, kind=SCORER, key=key, label=label)
    except UserError as error:
        raise RewardError(str(error)) from error
    if model.config.num_labels != 1:
        raise RewardError(
            f"rewards: reward_model: {path!r} has {model.config.num_labels} outputs; a reward model has one "
            f"(num_labels: 1)."
        )
    return tokenizer, model.to(device).eval().requires_grad_(False)


def _batches(rows: dict[int, list[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Yield batches of rows by length, so that little is padded."""
    batch: list[int] = []
    for row in sorted(rows, key=lambda row: len(rows[row])):
        if batch and (len(batch) + 1) * len(rows[row]) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _scores(model: Any, token_ids: list[list[int]], sigmoid: bool) -> list[float]:
    """Return the scores of one forward pass.

    Rows are padded on the right with the id by which the model finds the last token.
    """
    import torch

    width = max(map(len, token_ids))
    padding = model.config.pad_token_id
    if padding is None and len(token_ids) > 1:
        return [score for ids in token_ids for score in _scores(model, [ids], sigmoid)]
    ids_BT = torch.tensor([ids + [padding] * (width - len(ids)) for ids in token_ids])
    mask_BT = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in token_ids])
    with torch.inference_mode():
        logits_B = (
            model(input_ids=ids_BT.to(model.device), attention_mask=mask_BT.to(model.device))
            .logits[:, 0]
            .float()
        )
    return list((logits_B.sigmoid() if sigmoid else logits_B).tolist())
