"""The cache r1rl.rollout.native.cache: written entries are read back, through growth, compaction and
refill.
"""

from __future__ import annotations

import torch

from r1rl.rollout.native.cache import COLUMN_BUCKET, PackedPrompts, RowCache, bucket_columns

LAYERS, HEADS, SIZE = 2, 3, 4


def packed(total: int, seed: int = 0) -> PackedPrompts:
    """Return two layers, whose values have another size than their keys, as in multi-head latent
    attention.
    """
    generator = torch.Generator().manual_seed(seed)
    prompts = PackedPrompts()
    for layer in range(LAYERS):
        keys = torch.randn(1, HEADS, total, SIZE, generator=generator)
        prompts.update(keys, torch.randn(1, HEADS, total, SIZE + 1, generator=generator), layer)
    return prompts


def write(
    cache: RowCache, positions: list[int], seed: int
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Write one decode step with random states, and return per layer what went in and what came out."""
    generator = torch.Generator().manual_seed(seed)
    cache.reserve(max(positions) + 1)
    cache.begin_step(torch.tensor(positions), max(positions) + 1)
    result = []
    for layer in range(LAYERS):
        key = torch.randn(len(positions), 1, HEADS, SIZE, generator=generator).transpose(1, 2)
        value = torch.randn(len(positions), 1, HEADS, SIZE + 1, generator=generator).transpose(1, 2)
        result.append((key, value, *cache.update(key, value, layer)))
    return result


def test_bucket_columns() -> None:
    assert bucket_columns(10, 0, 1000) == COLUMN_BUCKET
    assert bucket_columns(65, 64, 1000) == 2 * COLUMN_BUCKET  # 64 + 64 / 4 = 80, in buckets of 64: 128
    assert bucket_columns(513, 512, 10_000) == 640  # 512 + 512 / 4 = 640
    assert bucket_columns(90, 64, 100) == 100  # never more than can be needed


def test_rows_start_with_their_prompts_and_grow_at_their_own_positions() -> None:
    prompts = packed(7)  # a prompt of 3 tokens, then one of 4
    cache = RowCache(3, 100)
    cache.reserve(4)
    cache.append(prompts, torch.tensor([[3, 4, 5, 6], [0, 1, 2, 3], [3, 4, 5, 6]]))
    for layer, (key, value, keys, values) in enumerate(write(cache, [4, 3, 4], seed=1)):
        assert keys.shape == (3, HEADS, 5, SIZE)
        assert values.shape == (3, HEADS, 5, SIZE + 1)
        torch.testing.assert_close(keys[0, :, :4], prompts.keys[layer][:, 3:7])
        torch.testing.assert_close(keys[1, :, :3], prompts.keys[layer][:, 0:3])
        torch.testing.assert_close(values[2, :, :4], prompts.values[layer][:, 3:7])
        torch.testing.assert_close(keys[0, :, 4], key[0, :, 0])
        torch.testing.assert_close(keys[1, :, 3], key[1, :, 0])
        torch.testing.assert_close(values[2, :, 4], value[2, :, 0])


def test_growth_keeps_what_was_written_and_follows_use() -> None:
    cache = RowCache(2, 1000)
    cache.reserve(2)
    prompts = packed(2)
    cache.append(prompts, torch.tensor([[0, 1], [0, 1]]))
    assert cache.keys[0].shape == (2, HEADS, COLUMN_BUCKET, SIZE)
    history = [write(cache, [step, step], seed=step) for step in range(2, COLUMN_BUCKET + 5)]
    assert cache.keys[0].shape[2] == 2 * COLUMN_BUCKET
    for layer in range(LAYERS):
        torch.testing.assert_close(cache.keys[layer][0, :, :2], prompts.keys[layer])
        for step, written in enumerate(history, start=2):
            torch.testing.assert_close(cache.keys[layer][:, :, step], written[layer][0][:, :, 0])
            torch.testing.assert_close(cache.values[layer][:, :, step], written[layer][1][:, :, 0])


def test_compaction_moves_last_rows_into_gaps_and_refill_takes_their_place() -> None:
    cache = RowCache(4, 100)
    cache.reserve(2)
    cache.append(packed(8), torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]]))
    before = [buffer.clone() for buffer in cache.keys]
    cache.compact([3], [1], rows=3, width=2)  # row 1 has ended
    for layer in range(LAYERS):
        torch.testing.assert_close(cache.keys[layer][:3, :, :2], before[layer][[0, 3, 2], :, :2])
    refill = packed(2, seed=9)
    cache.append(refill, torch.tensor([[0, 1]]))
    for layer, (_, _, keys, _) in enumerate(write(cache, [2, 2, 2, 2], seed=3)):
        torch.testing.assert_close(keys[:3, :, :2], before[layer][[0, 3, 2], :, :2])
        torch.testing.assert_close(keys[3, :, :2], refill.keys[layer])


def test_rows_given_up_are_freed_at_the_next_growth() -> None:
    cache = RowCache(4, 1000)
    cache.reserve(2)
    cache.append(packed(2), torch.tensor([[0, 1]] * 4))
    cache.compact([], [], rows=1, width=2)
    cache.row_capacity = 1
    cache.reserve(COLUMN_BUCKET + 1)
    assert cache.keys[0].shape == (1, HEADS, 2 * COLUMN_BUCKET, SIZE)


def test_bytes_per_token() -> None:
    # 2 layers x 3 heads x (4 + 5) floats of 4 bytes.
    assert packed(5).bytes_per_token == 2 * 3 * 9 * 4
