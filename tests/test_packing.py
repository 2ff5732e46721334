"""The packed layout element by element, and how sequences are shared among passes and processes."""

from __future__ import annotations

import itertools
import random
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from update_helpers import COSTS, LAYOUTS, build, random_rollout

from r1rl.attention.rectangles import RowsPlan
from r1rl.config.schema import UpdateConfig
from r1rl.grpo import balance
from r1rl.grpo.balance import divide, share_out
from r1rl.objective.aggregation import sequences_needed, trained_sequences
from r1rl.objective.config import AlgorithmConfig
from r1rl.policy.batching import TrainBatch, build_train_batch, concatenate, select
from r1rl.policy.costs import PassCosts
from r1rl.policy.packing import Unit, fill_passes, filler, make_micro_batches, make_units, spread
from r1rl.types import Completion, FinishReason

EOS = 9


def batch_of(prompts: list[list[int]], completions: list[list[int]]) -> TrainBatch:
    return build_train_batch(
        prompts,
        [Completion(ids, [-0.1] * len(ids), "", FinishReason.EOS) for ids in completions],
        torch.arange(len(prompts)).double() - 1,
    )


def small_batch() -> TrainBatch:
    """Return two completions of 1 2, one of 3, and one more of 1 2 of a single token."""
    return batch_of([[1, 2], [1, 2], [3], [1, 2]], [[4, 5, EOS], [6, EOS], [7, EOS], [EOS]])


def test_shared_prompts_element_by_element():
    (micro_batch,) = make_micro_batches(small_batch(), range(4), LAYOUTS["shared"], UpdateConfig())
    # prompt 1 2, then 4 5 (EOS predicts nothing), then 6, then nothing of the third; prompt 3 with 7
    assert micro_batch.input_ids_RT.tolist() == [[1, 2, 4, 5, 6, 3, 7]]
    assert micro_batch.positions_RT.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    assert micro_batch.sequences == (0, 1, 3, 2)
    assert micro_batch.targets_N.tolist() == [4, 5, EOS, 6, EOS, EOS, 7, EOS]
    # the prompt's last token, at place 1, predicts the first token of all three completions
    assert micro_batch.predictors_N.tolist() == [1, 2, 3, 1, 4, 1, 5, 6]
    assert micro_batch.sequence_N.tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    assert micro_batch.lengths_R.tolist() == [3, 2, 1, 2]
    assert micro_batch.tokens_N.tolist() == [0, 1, 2, 3, 4, 7, 5, 6]
    plan = micro_batch.plan
    assert isinstance(plan, RowsPlan)
    # the longest first: 4 5 and prompt 1 2 and 3 7 have two tokens each, 6 has one
    assert [(shape.rows, shape.queries, shape.keys, shape.has_prefix) for shape in plan.rectangles] == [
        (4, 2, 4, True)
    ]
    assert plan.key_index_K.view(4, 4).tolist() == [[0, 1, 2, 3], [0, 1, 1, 1], [5, 6, 6, 6], [0, 1, 4, 4]]
    assert plan.prefix_R.tolist() == [2, 0, 0, 2]


def test_packed_sequences_element_by_element():
    (micro_batch,) = make_micro_batches(small_batch(), [0, 2], LAYOUTS["packed"], UpdateConfig())
    assert micro_batch.input_ids_RT.tolist() == [[1, 2, 4, 5, 3, 7]]
    assert micro_batch.positions_RT.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert micro_batch.predictors_N.tolist() == [1, 2, 3, 4, 5]
    assert [(shape.rows, shape.queries, shape.has_prefix) for shape in micro_batch.plan.rectangles] == [
        (2, 4, False)
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(4))
def test_each_completion_token_is_in_one_pass_with_its_own_predecessor(layout, seed):
    batch = random_rollout(seed)
    seen = []
    for micro_batch in make_micro_batches(
        batch, range(batch.num_sequences), LAYOUTS[layout], UpdateConfig(micro_batch_tokens=50)
    ):
        given = micro_batch.input_ids_RT.flatten()[micro_batch.predictors_N].tolist()
        for place, row in enumerate(micro_batch.sequence_N.tolist()):
            sequence, token = micro_batch.sequences[row], int(micro_batch.tokens_N[place])
            within = token - int(batch.starts_B[sequence])
            before = [
                *batch.prompt_ids[sequence],
                *batch.completion_ids_K[batch.starts_B[sequence] :].tolist(),
            ]
            assert given[place] == before[len(batch.prompt_ids[sequence]) + within - 1]
            assert int(micro_batch.targets_N[place]) == int(batch.completion_ids_K[token])
            seen.append(token)
    assert sorted(seen) == list(range(batch.completion_ids_K.numel()))


def test_limits_are_respected_and_what_is_longer_goes_alone():
    batch = batch_of([[1] * 4] * 6, [[2] * length for length in (30, 3, 3, 8, 8, 2)])
    shared = make_micro_batches(batch, range(6), LAYOUTS["shared"], UpdateConfig(micro_batch_tokens=24))
    # 4 + 29 is over the budget; 4 + 2 + 2 + 7 + 7 = 22 fits, and 4 + 1 with another computation of the prompt
    # does not join
    assert [(micro_batch.sequences, micro_batch.num_tokens) for micro_batch in shared] == [
        ((0,), 33),
        ((1, 2, 3, 4, 5), 23),
    ]
    few = make_micro_batches(batch, range(6), LAYOUTS["shared"], UpdateConfig(micro_batch_sequences=2))
    assert sorted(len(micro_batch.sequences) for micro_batch in few) == [2, 2, 2]


@pytest.mark.parametrize(
    ("prompt", "budget", "passes", "positions"),
    [
        # 3 groups of 4 completions. Whole: 2 + 4 * 99 = 398 each, two in a pass of 999 or fewer.
        (2, 1000, 2, 1194),
        # One in a pass of 700, in halves of 2 + 198 = 200 each three: 3 * 2 more positions are 0.5 %.
        (2, 700, 2, 1200),
        # One in a pass of 450, and three halves of 200 no better; of single ones of 2 + 99 = 101 four, as
        # before.
        (2, 450, 3, 1194),
        # Prompts of 20 that are computed once more are 5 %: whole.
        (20, 700, 3, 1248),
    ],
)
def test_groups_are_parted_where_that_saves_a_pass_and_hardly_costs(prompt, budget, passes, positions):
    batch = batch_of([[group] * prompt for group in range(3) for _ in range(4)], [[2] * 100] * 12)
    found = make_micro_batches(batch, range(12), LAYOUTS["shared"], UpdateConfig(micro_batch_tokens=budget))
    assert (len(found), sum(micro_batch.num_tokens for micro_batch in found)) == (passes, positions)
    assert max(micro_batch.num_tokens for micro_batch in found) <= budget
    assert sorted(sequence for micro_batch in found for sequence in micro_batch.sequences) == list(range(12))


def test_passes_are_as_few_as_the_budget_allows_and_equally_costly():
    generator = random.Random(0)
    units = [
        Unit((place,), tokens, float(tokens))
        for place, tokens in enumerate(generator.choices(range(20, 200), k=60))
    ]
    total = sum(unit.tokens for unit in units)
    passes = fill_passes(units, UpdateConfig(micro_batch_tokens=total // 4 + 60))
    costs = [sum(unit.cost for unit in chosen) for chosen in passes]
    assert len(passes) == 4
    assert costs == sorted(costs, reverse=True)
    assert costs[0] / costs[-1] < 1.02
    assert sorted(unit.sequences[0] for chosen in passes for unit in chosen) == list(range(60))
    assert len(fill_passes(units, UpdateConfig(), at_least=7)) == 7
    assert fill_passes([], UpdateConfig(), at_least=7) == []


@pytest.mark.parametrize("seed", range(20))
def test_spread_is_within_a_third_of_the_best(seed):
    generator = random.Random(seed)
    units = [Unit((place,), 1, float(generator.randint(1, 30))) for place in range(7)]
    found = max(sum(unit.cost for unit in chosen) for chosen in spread(units, 3, 99, 99))
    assignments = itertools.product(range(3), repeat=len(units))
    best = min(
        max(sum(u.cost for u, b in zip(units, bins, strict=True) if b == one) for one in range(3))
        for bins in assignments
    )
    assert found <= 4 / 3 * best


def test_spread_says_when_nothing_fits():
    assert spread([Unit((0,), 6, 1.0), Unit((1,), 6, 1.0)], 1, 10, 99) is None
    assert spread([Unit((0, 1), 1, 1.0), Unit((2, 3), 1, 1.0)], 1, 99, 3) is None


def test_same_sequences_give_the_same_passes():
    batch = random_rollout(7)
    one, other = (
        make_micro_batches(batch, range(12), LAYOUTS["shared"], UpdateConfig(micro_batch_tokens=60))
        for _ in range(2)
    )
    assert [micro_batch.sequences for micro_batch in one] == [micro_batch.sequences for micro_batch in other]
    assert len(one) > 1


def test_filler_is_the_shortest_sequence():
    micro_batch = filler(small_batch(), LAYOUTS["shared"])
    assert micro_batch.sequences == (2,)
    assert micro_batch.input_ids_RT.tolist() == [[3, 7]]


# ------------------------------------------------------------
# costs


def test_costs_count_each_position_completion_token_and_pair():
    model = build("qwen3")
    costs = PassCosts.of(model)
    decoder = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if "embed" not in name and "lm_head" not in name
    )
    assert costs.position == 6 * decoder
    assert costs.completion_token == 6 * 29 * 32  # vocabulary x hidden size
    assert costs.pair == 12 * 2 * 4 * 8  # layers, heads, head size
    # prompt of 3, completions of 4 and 1: 3 + 3 + 0 positions, 5 tokens, 1 + 2 + 3 pairs of the prompt, 4 + 5
    # + 6 of the completion
    assert PassCosts(1.0, 100.0, 10000.0).sequences(3, [4, 1]) == 6 + 500 + 210000
    # Tied embeddings are counted once, as the head.
    assert PassCosts.of(build("qwen2")).position < costs.position + 6 * 2 * 128


@pytest.mark.parametrize("generations", [2, 8])
def test_sharing_a_prompt_is_always_cheaper_by_count(generations):
    lengths = list(range(1, generations + 1))
    assert COSTS.sequences(5, lengths) < sum(COSTS.sequences(5, [length]) for length in lengths)


# ------------------------------------------------------------
# processes


def flat(batch: TrainBatch) -> list[tuple[object, ...]]:
    """Return all values of each sequence."""
    rows = []
    for row in range(batch.num_sequences):
        tokens = slice(int(batch.starts_B[row]), int(batch.starts_B[row] + batch.lengths_B[row]))
        old = None if batch.old_logprobs_K is None else tuple(batch.old_logprobs_K[tokens].tolist())
        rows.append(
            (
                batch.prompt_ids[row],
                tuple(batch.completion_ids_K[tokens].tolist()),
                float(batch.advantages_B[row]),
                old,
            )
        )
    return rows


def test_concatenated_and_selected_batches_keep_each_sequence():
    one, other = random_rollout(1), random_rollout(2)
    whole = concatenate([one, other])
    assert flat(whole) == flat(one) + flat(other)
    assert flat(select(whole, [20, 3, 3, 11])) == [flat(whole)[row] for row in (20, 3, 3, 11)]
    assert select(whole, []).num_sequences == 0


def test_concatenating_and_selecting_forget_no_field():
    batch = random_rollout(1)
    values = torch.arange(batch.completion_ids_K.numel(), dtype=torch.float32)
    batch = replace(
        batch, sampler_logprobs_K=values, old_logprobs_K=-values, reference_logprobs_K=2 * values, lagged=True
    )
    half = batch.num_sequences // 2
    parts = [select(batch, range(half)), select(batch, range(half, batch.num_sequences))]
    for again in (concatenate(parts), select(batch, range(batch.num_sequences))):
        for item in fields(batch):
            before, after = getattr(batch, item.name), getattr(again, item.name)
            assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after
            assert before is not None
    with pytest.raises(ValueError, match="some batches have logprobs that others lack"):
        concatenate([batch, replace(batch, old_logprobs_K=None)])


def test_groups_are_divided_by_cost():
    """One long group and three short ones: two processes halve the long one rather than wait for it."""
    prompts = [[1] * 4] * 4 + [[2] * 4] * 4 + [[3] * 4] * 4 + [[4] * 4] * 4
    batch = batch_of(prompts, [[5] * length for length in (100, 100, 100, 100, *[3] * 12)])
    shares = divide(batch, range(16), torch.ones(16, dtype=torch.bool), LAYOUTS["shared"], 2)
    assert sorted(row for share in shares for row in share) == list(range(16))
    assert [len([row for row in share if row < 4]) for share in shares] == [2, 2]
    # sequences that are not needed weigh nothing
    needed = torch.tensor([False] * 4 + [True] * 12)
    shares = divide(batch, range(16), needed, LAYOUTS["shared"], 2)
    assert abs(len([row for row in shares[0] if row >= 4]) - 6) <= 2


@pytest.mark.parametrize("num_minibatches", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_processes_share_out_each_minibatch(layout, num_minibatches, monkeypatch):
    batches = [random_rollout(seed, groups=6) for seed in (1, 2, 3)]
    monkeypatch.setattr(balance, "gather_object", lambda own: batches)
    algorithm = AlgorithmConfig(num_minibatches=num_minibatches)
    results = [
        share_out(
            SimpleNamespace(num_processes=3, process_index=rank), batches[rank], algorithm, LAYOUTS[layout]
        )
        for rank in range(3)
    ]
    for number in range(num_minibatches):
        found = [flat(batch)[row] for batch, rows_of in results for row in rows_of[number].tolist()]
        size = 24 // num_minibatches
        expected = [row for batch in batches for row in flat(batch)[number * size : (number + 1) * size]]
        assert sorted(found) == sorted(expected)
    costs = []
    for batch, _ in results:
        trained = trained_sequences(batch.lengths_B, batch.truncated_B, algorithm)
        needed = sequences_needed(batch.advantages_B, trained, algorithm).nonzero()[:, 0].tolist()
        costs.append(sum(unit.cost for unit in make_units(batch, needed, LAYOUTS[layout], UpdateConfig())))
    assert max(costs) < 1.25 * min(costs)


def test_one_process_keeps_its_batch():
    batch = random_rollout(1)
    same, rows_of = share_out(
        SimpleNamespace(num_processes=1), batch, AlgorithmConfig(num_minibatches=2), LAYOUTS["shared"]
    )
    assert same is batch
    assert [rows.tolist() for rows in rows_of] == [list(range(6)), list(range(6, 12))]


def test_inputs_are_not_changed():
    batch = random_rollout(1)
    before = flat(batch)
    for layout in LAYOUTS.values():
        for micro_batch in make_micro_batches(replace(batch), range(12), layout, UpdateConfig()):
            micro_batch.input_ids_RT.zero_()
            micro_batch.targets_N.zero_()
    assert flat(batch) == before
