"""Batches and micro-batches: every mask pinned element by element, and the gradient of a whole batch however
it is cut.
"""

from __future__ import annotations

import copy
import random
from dataclasses import fields, replace
from itertools import combinations, pairwise

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from r1rl.config.schema import UpdateConfig
from r1rl.objective.aggregation import count_trained, loss_weights, sequences_needed, trained_sequences
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.losses import policy_loss
from r1rl.objective.sampling import Sampling
from r1rl.policy.batching import (
    TrainBatch,
    build_train_batch,
    collect_token_values,
    loss_inputs,
    move_loss_inputs,
    move_micro_batch,
)
from r1rl.policy.costs import PassCosts
from r1rl.policy.logprobs import PolicyForward
from r1rl.policy.packing import PASS_OVERHEAD, Layout, cut_rows, filler, lay_out_padded, make_micro_batches
from r1rl.types import Completion, FinishReason

EOS = 9
PADDED = Layout(packed=False, shares_prompts=False, costs=PassCosts(1.0, 0.1, 0.001))


def completion(token_ids: list[int], reason: FinishReason = FinishReason.EOS) -> Completion:
    return Completion(token_ids, [-0.1 * (place + 1) for place in range(len(token_ids))], "", reason)


def small_batch() -> TrainBatch:
    completions = [completion([4, 5, EOS]), completion([6], FinishReason.LENGTH), completion([7, EOS])]
    return build_train_batch(
        [[1, 2], [3], [1, 2, 3]], completions, torch.tensor([1.0, -1.0, 0.5]), with_sampler_logprobs=True
    )


def test_train_batch_element_by_element():
    batch = small_batch()
    assert batch.completion_ids_K.tolist() == [4, 5, EOS, 6, 7, EOS]
    assert batch.lengths_B.tolist() == [3, 1, 2]
    assert batch.starts_B.tolist() == [0, 3, 4]
    assert batch.truncated_B.tolist() == [False, True, False]
    assert batch.advantages_B.tolist() == [1.0, -1.0, 0.5]
    assert batch.sampler_logprobs_K.tolist() == pytest.approx([-0.1, -0.2, -0.3, -0.1, -0.1, -0.2])
    assert batch.old_logprobs_K is None


def test_layout_element_by_element():
    micro_batch = lay_out_padded(small_batch(), [2, 0, 1])
    # prompt 1 2 3 | 7 EOS, prompt 1 2 | 4 5 EOS, prompt 3 | 6; the last token of each is predicted but
    # predicts nothing
    assert micro_batch.input_ids_RT.tolist() == [[1, 2, 3, 7], [1, 2, 4, 5], [3, 0, 0, 0]]
    assert micro_batch.targets_N.tolist() == [7, EOS, 4, 5, EOS, 6]
    # 7 is predicted by the 3 at place 2, its EOS by the 7; 4 by the 2 at 4 + 1, 5 by 4, EOS by 5; 6 by the 3
    # at 8
    assert micro_batch.predictors_N.tolist() == [2, 3, 5, 6, 7, 8]
    assert micro_batch.sequence_N.tolist() == [0, 0, 1, 1, 1, 2]
    assert micro_batch.lengths_R.tolist() == [2, 3, 1]
    assert micro_batch.tokens_N.tolist() == [4, 5, 0, 1, 2, 3]
    assert micro_batch.sequences == (2, 0, 1)
    assert micro_batch.num_tokens == 12


def test_the_trained_tokens_are_the_completions_with_eos_and_nothing_else():
    batch = small_batch()
    trained = []
    for micro_batch in make_micro_batches(batch, range(3), PADDED, UpdateConfig(micro_batch_tokens=8)):
        trained += zip(micro_batch.tokens_N.tolist(), micro_batch.targets_N.tolist(), strict=True)
        given = micro_batch.input_ids_RT.flatten()[micro_batch.predictors_N].tolist()
        for row, sequence in enumerate(micro_batch.sequences):
            places = (micro_batch.sequence_N == row).nonzero()[:, 0].tolist()
            length = int(batch.lengths_B[sequence])
            start = int(batch.starts_B[sequence])
            completion = batch.completion_ids_K[start : start + length - 1].tolist()
            assert [given[place] for place in places] == [batch.prompt_ids[sequence][-1], *completion]
    assert sorted(trained) == [(0, 4), (1, 5), (2, EOS), (3, 6), (4, 7), (5, EOS)]


def test_loss_inputs_follow_the_rows():
    batch = small_batch()
    batch = replace(batch, old_logprobs_K=torch.arange(6.0), reference_logprobs_K=torch.arange(6.0) + 10)
    inputs = loss_inputs(batch, lay_out_padded(batch, [2, 0]), torch.tensor([0.1, 0.2, 0.3]))
    assert inputs.advantages_R.tolist() == [0.5, 1.0]
    assert inputs.weights_R.tolist() == pytest.approx([0.3, 0.1])
    assert inputs.old_logprobs_N.tolist() == [4, 5, 0, 1, 2]
    assert inputs.reference_logprobs_N.tolist() == [14, 15, 10, 11, 12]
    assert inputs.sampler_logprobs_N.tolist() == pytest.approx([-0.1, -0.2, -0.1, -0.2, -0.3])


def test_token_values_return_to_their_places():
    batch = small_batch()
    micro_batches = make_micro_batches(batch, [2, 0], PADDED, UpdateConfig(micro_batch_tokens=4))
    assert len(micro_batches) == 2
    found = collect_token_values(
        batch, micro_batches, [micro_batch.targets_N for micro_batch in micro_batches]
    )
    assert found[[0, 1, 2, 4, 5]].tolist() == [4, 5, EOS, 7, EOS]
    assert found[3].isnan()  # sequence 1 was in no micro-batch


def test_inputs_are_not_changed():
    prompts, completions, advantages = (
        [[1, 2], [3]],
        [completion([4, EOS]), completion([5])],
        torch.tensor([1.0, -1.0]),
    )
    before = copy.deepcopy((prompts, completions, advantages))
    batch = build_train_batch(prompts, completions, advantages)
    snapshot = {item.name: copy.deepcopy(getattr(batch, item.name)) for item in fields(batch)}
    for micro_batch in make_micro_batches(batch, range(2), PADDED, UpdateConfig()):
        inputs = loss_inputs(batch, micro_batch, torch.ones(2))
        for record in (micro_batch, inputs):
            for item in fields(record):
                if isinstance(value := getattr(record, item.name), torch.Tensor):
                    value.zero_()
    assert (prompts, completions) == before[:2]
    assert torch.equal(advantages, before[2])
    for name, value in snapshot.items():
        found = getattr(batch, name)
        assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value


@pytest.mark.parametrize(
    ("prompts", "completions", "message"),
    [
        ([[1], []], [completion([4]), completion([5])], "no tokens"),
        ([[1]], [completion([4]), completion([5])], "1 prompts, 2 completions"),
        (
            [[1], [2]],
            [completion([4]), Completion([5, 6], [-0.1], "", FinishReason.EOS)],
            "1 logprobs for a completion of 2",
        ),
    ],
)
def test_input_that_does_not_match_is_refused(prompts, completions, message):
    with pytest.raises(ValueError, match=message):
        build_train_batch(prompts, completions, torch.zeros(2), with_sampler_logprobs=True)


def test_completions_without_tokens_are_in_no_micro_batch():
    batch = build_train_batch([[1], [2]], [completion([]), completion([5])], torch.zeros(2))
    assert [
        micro_batch.sequences for micro_batch in make_micro_batches(batch, range(2), PADDED, UpdateConfig())
    ] == [(1,)]
    assert filler(batch, PADDED).sequences == (1,)


# ------------------------------------------------------------
# cutting


def cost(lengths: list[int], groups: list[list[int]]) -> int:
    return sum(len(group) * max(lengths[place] for place in group) + PASS_OVERHEAD for group in groups)


def all_cuts(order: list[int]):
    for count in range(len(order)):
        for points in combinations(range(1, len(order)), count):
            bounds = [0, *points, len(order)]
            yield [order[start:end] for start, end in pairwise(bounds)]


@pytest.mark.parametrize("seed", range(20))
def test_cuts_are_the_cheapest_within_the_limits(seed):
    generator = random.Random(seed)
    lengths = [
        generator.choice([3, 50, 200, 700, 900]) + generator.randint(0, 20)
        for _ in range(generator.randint(1, 9))
    ]
    config = UpdateConfig(
        micro_batch_tokens=generator.choice([400, 1000, 2500]),
        micro_batch_sequences=generator.choice([None, 2, 4]),
    )

    def allowed(group: list[int]) -> bool:
        within = len(group) * max(lengths[place] for place in group) <= config.micro_batch_tokens
        return (within or len(group) == 1) and len(group) <= (config.micro_batch_sequences or 99)

    groups = cut_rows(lengths, config)
    assert all(allowed(group) for group in groups)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    assert cost(lengths, groups) == min(
        cost(lengths, cuts) for cuts in all_cuts(order) if all(map(allowed, cuts))
    )
    assert cut_rows(lengths, config) == groups


def test_token_budget_is_respected_and_long_sequences_go_alone():
    batch = build_train_batch(
        [[1] * 4] * 6, [completion([2] * length) for length in (30, 3, 3, 8, 8, 2)], torch.zeros(6)
    )
    micro_batches = make_micro_batches(batch, range(6), PADDED, UpdateConfig(micro_batch_tokens=24))
    assert micro_batches[0].sequences == (0,)
    assert micro_batches[0].num_tokens == 33  # longer than the budget
    assert all(micro_batch.num_tokens <= 24 for micro_batch in micro_batches[1:])
    assert sorted(row for micro_batch in micro_batches for row in micro_batch.sequences) == list(range(6))


# ---------------------------------------------------------------------------------------------------- the
# gradient of a whole step


def tiny_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = Qwen2Config(
        vocab_size=24, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.2, **shape
    )
    return Qwen2ForCausalLM(config).eval()


def random_batch(seed: int, count: int = 8) -> TrainBatch:
    generator = random.Random(seed)
    prompts = [[generator.randrange(24) for _ in range(generator.randint(1, 7))] for _ in range(count)]
    reasons = [generator.choice([FinishReason.EOS, FinishReason.LENGTH]) for _ in range(count)]
    completions = [
        completion([generator.randrange(24) for _ in range(generator.randint(1, 12))], reason)
        for reason in reasons
    ]
    advantages = torch.tensor(
        [generator.choice([-1.0, 0.0, 0.5, 1.5]) for _ in range(count)], dtype=torch.float64
    )
    batch = build_train_batch(prompts, completions, advantages)
    noise = torch.randn(batch.completion_ids_K.numel(), generator=torch.Generator().manual_seed(seed))
    return replace(batch, old_logprobs_K=-3.2 + 0.3 * noise, reference_logprobs_K=-3.2 - 0.3 * noise)


def step_gradient(
    batch: TrainBatch, config: AlgorithmConfig, update: UpdateConfig, leave_out: bool = False
) -> tuple[int, float, torch.Tensor]:
    """Return the number of micro-batches, the loss and the flat gradient of one optimizer step on the whole
    batch.
    """
    policy = PolicyForward(
        tiny_model(), Sampling(max_completion_length=12, temperature=0.8), update.logprob_chunk
    )
    trained = trained_sequences(batch.lengths_B, batch.truncated_B, config)
    counts = count_trained(batch.lengths_B, trained)
    weights = loss_weights(batch.lengths_B, trained, counts, counts, config, 12)
    needed = (
        sequences_needed(batch.advantages_B, trained, config)
        if leave_out
        else torch.ones(batch.num_sequences, dtype=torch.bool)
    )
    micro_batches = make_micro_batches(batch, needed.nonzero()[:, 0].tolist(), PADDED, update)
    total = 0.0
    for micro_batch in micro_batches:
        entropy = "gradient" if config.entropy_coefficient else "none"
        logprobs, entropies = policy(
            micro_batch.input_ids_RT, micro_batch.predictors_N, micro_batch.targets_N, entropy
        )
        loss, _ = policy_loss(logprobs, entropies, loss_inputs(batch, micro_batch, weights), config)
        loss.backward()
        total += loss.item()
    return (
        len(micro_batches),
        total,
        torch.cat([parameter.grad.flatten() for parameter in policy.parameters()]),
    )


@pytest.mark.parametrize("aggregation", ["grpo", "dr_grpo", "dapo", "bnpo"])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"importance_level": "sequence", "mask_truncated": True},
        {"beta": 0.1, "entropy_coefficient": 0.01},
    ],
    ids=str,
)
def test_the_gradient_does_not_depend_on_the_micro_batches(aggregation, choices):
    config = AlgorithmConfig(aggregation=aggregation, **choices)
    batch = random_batch(1)
    whole_count, whole_loss, whole = step_gradient(batch, config, UpdateConfig(micro_batch_sequences=8))
    assert whole_count == 1
    assert whole.abs().max() > 1e-3
    for rows, expected_count in ((4, 2), (2, 4), (1, 8)):
        update = UpdateConfig(micro_batch_sequences=rows, logprob_chunk=5)
        count, loss, gradient = step_gradient(batch, config, update)
        assert count == expected_count
        assert loss == pytest.approx(whole_loss, rel=1e-5, abs=1e-6)
        torch.testing.assert_close(gradient, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "choices", [{}, {"surrogate": "online_rft"}, {"beta": 0.1}, {"mask_truncated": True}], ids=str
)
def test_leaving_out_what_is_not_needed_does_not_change_the_gradient(choices):
    config = AlgorithmConfig(**choices)
    batch = random_batch(2)
    _, _, whole = step_gradient(batch, config, UpdateConfig())
    _, _, fewer = step_gradient(batch, config, UpdateConfig(), leave_out=True)
    torch.testing.assert_close(fewer, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_filler_reaches_every_parameter_and_adds_nothing(level):
    """A filler adds nothing even if its old and reference logprobs were never computed, because the sequence
    is not needed.
    """
    batch, policy = random_batch(3), PolicyForward(tiny_model(), Sampling(max_completion_length=12), 64)
    unknown = torch.full_like(batch.old_logprobs_K, torch.nan)
    batch = replace(batch, old_logprobs_K=unknown, reference_logprobs_K=unknown, sampler_logprobs_K=unknown)
    micro_batch = filler(batch, PADDED)
    shortest = min(
        len(prompt) + length
        for prompt, length in zip(batch.prompt_ids, batch.lengths_B.tolist(), strict=True)
    )
    assert micro_batch.num_tokens == shortest - 1
    logprobs, entropies = policy(
        micro_batch.input_ids_RT, micro_batch.predictors_N, micro_batch.targets_N, "gradient"
    )
    config = AlgorithmConfig(
        beta=0.1, kl_bias_correction=True, entropy_coefficient=0.1, importance_level=level
    )
    loss, metrics = policy_loss(logprobs, entropies, loss_inputs(batch, micro_batch, torch.zeros(8)), config)
    loss.backward()
    assert loss.item() == 0.0
    assert metrics.values() == {}
    for parameter in policy.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_padding_has_no_effect():
    batch, policy = random_batch(4), PolicyForward(tiny_model(), Sampling(max_completion_length=12), 64)
    micro_batch = lay_out_padded(batch, range(8))
    padding = torch.ones_like(micro_batch.input_ids_RT, dtype=torch.bool)
    for row, sequence in enumerate(micro_batch.sequences):
        padding[row, : len(batch.prompt_ids[sequence]) + int(batch.lengths_B[sequence]) - 1] = False
    other = torch.where(padding, 17, micro_batch.input_ids_RT)
    assert padding.any()
    arguments = (micro_batch.predictors_N, micro_batch.targets_N)
    assert torch.equal(policy(micro_batch.input_ids_RT, *arguments)[0], policy(other, *arguments)[0])


def test_move_keeps_the_values():
    batch = small_batch()
    micro_batch = lay_out_padded(batch, [0, 1])
    inputs = loss_inputs(batch, micro_batch, torch.ones(3))
    for record, move in ((micro_batch, move_micro_batch), (inputs, move_loss_inputs)):
        moved, elsewhere = move(record, torch.device("cpu")), move(record, torch.device("meta"))
        for item in fields(record):
            before, after = getattr(record, item.name), getattr(moved, item.name)
            assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after
            if isinstance(before, torch.Tensor):
                kind = "cpu" if item.name == "tokens_N" else "meta"
                assert getattr(elsewhere, item.name).device.type == kind, item.name
