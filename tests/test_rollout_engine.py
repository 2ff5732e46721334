"""The rollout engines against transformers' generate, against exact distributions, and against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rollout_helpers import (
    PROMPTS,
    SEEDS,
    TEXTS,
    VOCABULARY,
    bloom_model,
    chi_square_p_value,
    configs,
    flat,
    native,
    run,
    tiny_model,
    tokenizer,
    tokens,
)
from transformers import GenerationConfig, LlamaConfig

from r1rl.compute.trials import trial_report
from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling, process_logits
from r1rl.rollout import EngineSetup, make_engine
from r1rl.rollout.native.trial import UnsupportedModel
from r1rl.rollout.sampler import penalize_repetition
from r1rl.types import FinishReason

# Against transformers


@pytest.mark.parametrize("name", sorted(configs()))
def test_greedy_equals_generate(name: str) -> None:
    model = tiny_model(configs()[name]).eval()
    eos = 17
    found = run(native(model), PROMPTS, 1, Sampling(24, temperature=0.0, eos_token_ids=(eos,)), SEEDS)
    config = GenerationConfig(do_sample=False, max_new_tokens=24, eos_token_id=eos, pad_token_id=0)
    for prompt, [completion] in zip(PROMPTS, found, strict=True):
        expected = model.generate(torch.tensor([prompt]), generation_config=config)[0, len(prompt) :].tolist()
        assert completion.token_ids == expected
        assert completion.finish_reason is (FinishReason.EOS if expected[-1] == eos else FinishReason.LENGTH)


@pytest.mark.parametrize("name", sorted(configs()))
def test_native_and_reference_draw_the_same_completions(name: str) -> None:
    model = tiny_model(configs()[name])
    sampling = Sampling(20, temperature=0.9, top_k=30, eos_token_ids=(4, 50))
    ours = run(make_engine("native", EngineSetup(model, tokenizer())), PROMPTS, 3, sampling, SEEDS)
    theirs = run(make_engine("transformers", EngineSetup(model, tokenizer())), PROMPTS, 3, sampling, SEEDS)
    for mine, reference in zip(flat(ours), flat(theirs), strict=True):
        assert (mine.token_ids, mine.finish_reason, mine.text) == (
            reference.token_ids,
            reference.finish_reason,
            reference.text,
        )
        assert mine.logprobs == pytest.approx(reference.logprobs, abs=1e-5)


@pytest.mark.parametrize("engine", ["native", "transformers"])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(12),
        Sampling(12, temperature=0.7, top_p=0.9),
        Sampling(12, temperature=1.3, top_k=10, min_p=0.05),
        Sampling(12, repetition_penalty=1.4),
        Sampling(12, temperature=0.0),
    ],
)
def test_logprobs_are_those_of_the_plain_forward(engine: str, sampling: Sampling) -> None:
    model = tiny_model()
    groups = run(make_engine(engine, EngineSetup(model, tokenizer())), PROMPTS, 2, sampling, SEEDS)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            sequence = prompt + completion.token_ids
            with torch.no_grad():
                logits_TV = model.eval()(input_ids=torch.tensor([sequence])).logits[0, len(prompt) - 1 : -1]
            seen_TV = torch.zeros(logits_TV.shape, dtype=torch.bool)
            for step in range(len(completion.token_ids)):
                seen_TV[step, sequence[: len(prompt) + step]] = True
            logits_TV = process_logits(
                penalize_repetition(logits_TV, seen_TV, sampling.repetition_penalty), sampling
            )
            expected = logits_TV.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0)


# The distribution

MODES = {
    "plain": Sampling(2),
    "temperature": Sampling(2, temperature=0.6),
    "top_k": Sampling(2, top_k=4),
    "top_p": Sampling(2, top_p=0.8),
    "min_p": Sampling(2, min_p=0.15),
    "repetition": Sampling(2, repetition_penalty=1.5),
    "all": Sampling(2, temperature=1.4, top_k=8, top_p=0.95, min_p=0.02, repetition_penalty=1.2),
}


@pytest.mark.parametrize("samples", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", sorted(MODES))
def test_samples_follow_the_exact_distribution(mode: str, samples: int) -> None:
    """Completions of two tokens from a vocabulary of 11, against the exact joint distribution of the plain
    forward.
    """
    small, prompt = 11, [3, 5]
    model = tiny_model(
        LlamaConfig(
            vocab_size=small,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).eval()
    sampling = MODES[mode]
    pairs = torch.tensor([c.token_ids for c in run(native(model), [prompt], samples, sampling, [77])[0]])
    counts = torch.bincount(pairs[:, 0] * small + pairs[:, 1], minlength=small**2)

    def distribution(sequence: list[int]) -> torch.Tensor:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([sequence])).logits[:, -1]
        seen = torch.zeros(1, small, dtype=torch.bool)
        seen[0, sequence] = True
        return (
            process_logits(penalize_repetition(logits, seen, sampling.repetition_penalty), sampling)
            .double()
            .softmax(-1)[0]
        )

    first = distribution(prompt)
    joint = torch.stack([first[token] * distribution([*prompt, token]) for token in range(small)]).flatten()
    assert chi_square_p_value(counts, joint) > 1e-4
    assert chi_square_p_value(counts, joint.roll(1)) < 1e-4  # the test can tell a wrong distribution


# Batching does not matter


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma2"])
@pytest.mark.parametrize(
    "arguments", [{"max_rows": 1}, {"max_rows": 4}, {"max_rows": 7, "look_every": 3}, {"look_every": 1}]
)
def test_compaction_and_refill_change_nothing(name: str, arguments: dict[str, int]) -> None:
    model = tiny_model(configs()[name])
    sampling = Sampling(30, eos_token_ids=(4, 50, 60, 70, 80))
    prompts, seeds = [*PROMPTS, [9] * 20, [33, 34]], [*SEEDS, 16, 17]
    whole = run(native(model, look_every=50), prompts, 3, sampling, seeds)
    lengths = {len(completion.token_ids) for group in whole for completion in group}
    assert len(lengths) > 5, "the test needs completions that end at different times"
    assert tokens(run(native(model, **arguments), prompts, 3, sampling, seeds)) == tokens(whole)


def test_completion_does_not_depend_on_its_batch() -> None:
    engine = native(tiny_model())
    sampling = Sampling(20, eos_token_ids=(4, 50))
    whole = tokens(run(engine, PROMPTS, 4, sampling, SEEDS))
    order = [3, 0, 4]
    assert tokens(run(engine, [PROMPTS[i] for i in order], 4, sampling, [SEEDS[i] for i in order])) == [
        whole[i] for i in order
    ]
    assert tokens(run(engine, [PROMPTS[2]], 2, sampling, [SEEDS[2]]))[0] == whole[2][:2]
    # Another seed gives other completions; the same prompt twice with two seeds, too.
    twice = tokens(run(engine, [PROMPTS[0], PROMPTS[0]], 4, sampling, [SEEDS[0], 99]))
    assert twice[0] == whole[0]
    assert twice[1] != whole[0]
    assert len({tuple(ids) for ids in whole[0]}) == 4


@pytest.mark.parametrize("max_rows", [0, 2])
def test_a_prompt_asked_several_times_in_a_row_is_prefilled_once(
    max_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As evaluations ask, each completion with its own seed; every one is what it is when asked alone."""
    model, sampling = tiny_model(), Sampling(20, eos_token_ids=(4, 50))
    prompts = [PROMPTS[0]] * 4 + [PROMPTS[1]] + [PROMPTS[0]] * 2 + [PROMPTS[3]] * 3
    seeds = list(range(20, 30))
    alone = [
        run(native(model), [prompt], 1, sampling, [seed])[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    prefilled: list[list[int]] = []
    engine = native(model, max_rows=max_rows)
    prefill = engine.allocator.prefill

    def counted(model: Any, sequences: Any, chunk_tokens: int) -> Any:
        prefilled.extend(sequences)
        return prefill(model, sequences, chunk_tokens)

    monkeypatch.setattr(engine.allocator, "prefill", counted)
    assert tokens(run(engine, prompts, 1, sampling, seeds)) == tokens(alone)
    assert sorted(prefilled) == sorted([PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[3]])
    assert len({tuple(group[0].token_ids) for group in alone[:4]}) == 4


def test_cache_growth_changes_nothing() -> None:
    # 100 new tokens need two buckets of 64 columns.
    model = tiny_model()
    sampling = Sampling(100, temperature=0.8)
    ours = run(native(model), [[5, 6], [7]], 1, sampling, [1, 2])
    theirs = run(
        make_engine("transformers", EngineSetup(model, tokenizer())), [[5, 6], [7]], 1, sampling, [1, 2]
    )
    assert tokens(ours) == tokens(theirs)


# Ends


@pytest.mark.parametrize("engine", ["native", "transformers"])
def test_every_eos_token_ends_and_is_kept(engine: str) -> None:
    eos = (4, 50, 60)
    completions = flat(
        run(
            make_engine(engine, EngineSetup(tiny_model(), tokenizer())),
            PROMPTS,
            8,
            Sampling(40, eos_token_ids=eos),
            SEEDS,
        )
    )
    ended = [completion for completion in completions if completion.finish_reason is FinishReason.EOS]
    assert {completion.token_ids[-1] for completion in ended} == set(eos)
    for completion in completions:
        assert not set(completion.token_ids[:-1]) & set(eos)
        assert len(completion.logprobs) == len(completion.token_ids)
        assert completion.text == "".join(TEXTS[token] for token in completion.token_ids)
        assert completion.is_truncated == (completion.finish_reason is FinishReason.LENGTH)
        if completion.finish_reason is FinishReason.LENGTH:
            assert len(completion.token_ids) == 40
            assert completion.token_ids[-1] not in eos


@pytest.mark.parametrize("engine", ["native", "transformers"])
def test_stop_string_cuts_the_same_completion_short(engine: str) -> None:
    engine = make_engine(engine, EngineSetup(tiny_model(), tokenizer()))
    unstopped = flat(run(engine, PROMPTS, 2, Sampling(30), SEEDS))
    # Pairs of tokens from the middle of two completions.
    pairs = unstopped[0].token_ids[14:16], unstopped[3].token_ids[8:10]
    stop = tuple("".join(TEXTS[token] for token in pair) for pair in pairs)
    stopped = flat(run(engine, PROMPTS, 2, Sampling(30, stop=stop), SEEDS))
    reasons = []
    for free, cut in zip(unstopped, stopped, strict=True):
        count = next(
            (
                n
                for n in range(1, 31)
                if any(s in "".join(TEXTS[t] for t in free.token_ids[:n]) for s in stop)
            ),
            None,
        )
        assert cut.token_ids == free.token_ids[:count]
        assert cut.logprobs == pytest.approx(free.logprobs[:count], abs=1e-5)
        assert cut.finish_reason is (FinishReason.LENGTH if count is None else FinishReason.STOP)
        assert count is None or any(s in cut.text for s in stop)
        reasons.append(cut.finish_reason)
    assert reasons.count(FinishReason.STOP) >= 2


def test_one_token_one_generation_one_prompt() -> None:
    [[completion]] = run(native(tiny_model()), [[3]], 1, Sampling(1), [0])
    assert len(completion.token_ids) == 1
    assert completion.finish_reason is FinishReason.LENGTH


def test_no_prompts_no_groups() -> None:
    assert list(native(tiny_model()).generate([], 2, Sampling(4), [])) == []


def test_eos_as_the_last_allowed_token_is_no_truncation() -> None:
    model = tiny_model()
    [[free]] = run(native(model), [[3]], 1, Sampling(6), [0])
    [[ended]] = run(native(model), [[3]], 1, Sampling(6, eos_token_ids=(free.token_ids[-1],)), [0])
    first = free.token_ids.index(free.token_ids[-1])
    assert ended.token_ids == free.token_ids[: first + 1]
    assert ended.finish_reason is FinishReason.EOS


# Streaming


def test_groups_are_streamed_as_they_finish() -> None:
    engine = native(tiny_model(), look_every=1)
    sampling = Sampling(40, eos_token_ids=(4, 50, 60, 70))
    lengths = [
        max(len(completion.token_ids) for completion in group)
        for group in run(engine, PROMPTS, 2, sampling, SEEDS)
    ]
    order = [group.index for group in engine.generate(PROMPTS, 2, sampling, SEEDS)]
    assert [lengths[index] for index in order] == sorted(lengths)
    assert len(set(lengths)) > 2


def test_first_group_comes_before_the_last_is_decoded() -> None:
    model = tiny_model()
    calls = []
    model.get_input_embeddings().register_forward_hook(lambda *_: calls.append(1))
    engine = native(model, max_rows=2)
    calls.clear()
    stream = engine.generate(PROMPTS, 2, Sampling(10), SEEDS)
    assert not calls
    next(stream)
    first = len(calls)
    list(stream)
    assert len(calls) >= 4 * first  # 5 groups, one after the other


# Choosing an engine


def test_auto_takes_native_and_says_why() -> None:
    engine = make_engine("auto", EngineSetup(tiny_model(), tokenizer()))
    assert engine.name == "native"
    assert engine.reason == "its logits agree with the model's own forward"


def test_auto_falls_back_to_transformers_and_says_why() -> None:
    engine = make_engine("auto", EngineSetup(bloom_model(), tokenizer()))
    assert engine.name == "transformers"
    assert "can't run BloomForCausalLM" in engine.reason
    assert trial_report(engine.trials) == [
        "The native engine is not used: transformers doesn't let its attention be replaced; "
        "a rollout takes several times as long."
    ]
    [[completion]] = run(engine, [[1, 2]], 1, Sampling(3), [0])
    assert len(completion.token_ids) == 3


def test_native_by_name_refuses_what_it_cannot_run() -> None:
    with pytest.raises(UserError, match="native engine can't run BloomForCausalLM"):
        make_engine("native", EngineSetup(bloom_model(), tokenizer()))


def test_wrong_logits_are_found() -> None:
    """A model whose cached forward differs from its full one must not be taken for a supported one."""
    model = tiny_model()

    def halve_when_decoding(
        module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]
    ) -> Any:
        return tuple(part * 0.5 for part in output) if inputs[1].shape[1] == 1 else None

    handle = model.model.rotary_emb.register_forward_hook(halve_when_decoding)
    with pytest.raises(
        UnsupportedModel, match=r"logits of random tokens in 6 rows differ from the plain way's by"
    ):
        native(model)
    handle.remove()
    native(model)


def test_unknown_engine() -> None:
    with pytest.raises(UserError, match="choose auto, native, transformers, vllm or"):
        make_engine("vlm", EngineSetup(tiny_model(), tokenizer()))


# What can't be sampled


@pytest.mark.parametrize("engine", ["native", "transformers"])
@pytest.mark.parametrize(
    ("prompts", "seeds", "sampling", "message"),
    [
        ([[1], []], [0, 1], Sampling(2), "prompt 1 has no tokens"),
        ([[1, VOCABULARY]], [0], Sampling(2), "token id outside"),
        ([[1]], [0, 1], Sampling(2), "1 prompts came with 2 seeds"),
        ([[1]], [0], Sampling(0), "at least 1"),
        ([[1]], [0], Sampling(2, stop=("",)), "empty stop string"),
    ],
)
def test_bad_requests_fail_at_once(
    engine: str, prompts: list[list[int]], seeds: list[int], sampling: Sampling, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_engine(engine, EngineSetup(tiny_model(), tokenizer())).generate(prompts, 1, sampling, seeds)


def test_each_completion_may_have_its_own_limit() -> None:
    """The tokens drawn up to the limit do not depend on it."""
    model = tiny_model()
    sampling = Sampling(20)
    whole = run(native(model), PROMPTS, 3, sampling, SEEDS)
    limits = [
        [1 + (7 * prompt + 5 * generation) % 20 for generation in range(3)] for prompt in range(len(PROMPTS))
    ]
    for arguments in ({}, {"max_rows": 4, "look_every": 3}):
        groups = sorted(
            native(model, **arguments).generate(PROMPTS, 3, sampling, SEEDS, limits),
            key=lambda group: group.index,
        )
        for group, full, own in zip(groups, whole, limits, strict=True):
            for completion, long, limit in zip(group.completions, full, own, strict=True):
                assert completion.token_ids == long.token_ids[:limit]
                assert completion.finish_reason is FinishReason.LENGTH
    for wrong in ([[1] * 3], [[1, 2]] * len(PROMPTS), [[21] * 3] * len(PROMPTS), [[0] * 3] * len(PROMPTS)):
        with pytest.raises(UserError, match="limit"):
            next(native(model).generate(PROMPTS, 3, sampling, SEEDS, wrong))
