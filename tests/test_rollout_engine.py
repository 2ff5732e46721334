"""The rollout engines: against transformers' generate, against exact distributions, and against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rollout_helpers import SHAPE, TEXTS, VOCABULARY, bloom_model, chi_square_p_value, configs, tiny_model, tokenizer
from transformers import GenerationConfig, LlamaConfig, PreTrainedModel

from r1rl.errors import UserError
from r1rl.rollout import build_engine
from r1rl.rollout.forward import UnsupportedModel
from r1rl.rollout.native import NativeEngine
from r1rl.rollout.sampler import penalize_repetition
from r1rl.rollout.weights import RolloutWeights
from r1rl.sampling import Sampling, process_logits
from r1rl.types import Completion, FinishReason

PROMPTS = [[5, 6, 7], [1] * 9 + [2, 3], [3], [8, 9, 10, 11, 12], [40, 41, 42]]
SEEDS = [11, 12, 13, 14, 15]


def run(engine: Any, prompts: list[list[int]], num_generations: int, sampling: Sampling, seeds: list[int]) -> list[list[Completion]]:
    """The completions of each prompt, in the order of the prompts."""
    groups = {group.index: group.completions for group in engine.generate(prompts, num_generations, sampling, seeds)}
    assert sorted(groups) == list(range(len(prompts)))
    return [groups[index] for index in range(len(prompts))]


def tokens(groups: list[list[Completion]]) -> list[list[list[int]]]:
    return [[completion.token_ids for completion in group] for group in groups]


def flat(groups: list[list[Completion]]) -> list[Completion]:
    return [completion for group in groups for completion in group]


def native(model: PreTrainedModel, **arguments: Any) -> NativeEngine:
    return NativeEngine(model, tokenizer(), **arguments)


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
    ours = run(build_engine("native", model, tokenizer()), PROMPTS, 3, sampling, SEEDS)
    theirs = run(build_engine("transformers", model, tokenizer()), PROMPTS, 3, sampling, SEEDS)
    for mine, reference in zip(flat(ours), flat(theirs), strict=True):
        assert (mine.token_ids, mine.finish_reason, mine.text) == (reference.token_ids, reference.finish_reason, reference.text)
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
    groups = run(build_engine(engine, model, tokenizer()), PROMPTS, 2, sampling, SEEDS)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            sequence = prompt + completion.token_ids
            with torch.no_grad():
                logits_TV = model.eval()(input_ids=torch.tensor([sequence])).logits[0, len(prompt) - 1 : -1]
            seen_TV = torch.zeros(logits_TV.shape, dtype=torch.bool)
            for step in range(len(completion.token_ids)):
                seen_TV[step, sequence[: len(prompt) + step]] = True
            logits_TV = process_logits(penalize_repetition(logits_TV, seen_TV, sampling.repetition_penalty), sampling)
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


@pytest.mark.parametrize("mode", sorted(MODES))
def test_samples_follow_the_exact_distribution(mode: str) -> None:
    """20,000 completions of two tokens from a vocabulary of 11, against the exact joint distribution of the plain forward."""
    small, samples, prompt = 11, 20_000, [3, 5]
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
        return process_logits(penalize_repetition(logits, seen, sampling.repetition_penalty), sampling).double().softmax(-1)[0]

    first = distribution(prompt)
    joint = torch.stack([first[token] * distribution([*prompt, token]) for token in range(small)]).flatten()
    assert chi_square_p_value(counts, joint) > 1e-4
    assert chi_square_p_value(counts, joint.roll(1)) < 1e-4  # the test can tell a wrong distribution


# Batching does not matter


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma2"])
@pytest.mark.parametrize("arguments", [{"max_rows": 1}, {"max_rows": 4}, {"max_rows": 7, "look_every": 3}, {"look_every": 1}])
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
    assert tokens(run(engine, [PROMPTS[i] for i in order], 4, sampling, [SEEDS[i] for i in order])) == [whole[i] for i in order]
    assert tokens(run(engine, [PROMPTS[2]], 2, sampling, [SEEDS[2]]))[0] == whole[2][:2]
    # Another seed gives other completions; the same prompt twice with two seeds, too.
    twice = tokens(run(engine, [PROMPTS[0], PROMPTS[0]], 4, sampling, [SEEDS[0], 99]))
    assert twice[0] == whole[0]
    assert twice[1] != whole[0]
    assert len({tuple(ids) for ids in whole[0]}) == 4


def test_cache_growth_changes_nothing() -> None:
    # 100 new tokens need two buckets of 64 columns.
    model = tiny_model()
    sampling = Sampling(100, temperature=0.8)
    ours = run(native(model), [[5, 6], [7]], 1, sampling, [1, 2])
    theirs = run(build_engine("transformers", model, tokenizer()), [[5, 6], [7]], 1, sampling, [1, 2])
    assert tokens(ours) == tokens(theirs)


# Ends


@pytest.mark.parametrize("engine", ["native", "transformers"])
def test_every_eos_token_ends_and_is_kept(engine: str) -> None:
    eos = (4, 50, 60)
    completions = flat(run(build_engine(engine, tiny_model(), tokenizer()), PROMPTS, 8, Sampling(40, eos_token_ids=eos), SEEDS))
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
    engine = build_engine(engine, tiny_model(), tokenizer())
    unstopped = flat(run(engine, PROMPTS, 2, Sampling(30), SEEDS))
    # Pairs of tokens from the middle of two completions.
    pairs = unstopped[0].token_ids[14:16], unstopped[3].token_ids[8:10]
    stop = tuple("".join(TEXTS[token] for token in pair) for pair in pairs)
    stopped = flat(run(engine, PROMPTS, 2, Sampling(30, stop=stop), SEEDS))
    reasons = []
    for free, cut in zip(unstopped, stopped, strict=True):
        count = next((n for n in range(1, 31) if any(s in "".join(TEXTS[t] for t in free.token_ids[:n]) for s in stop)), None)
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
    lengths = [max(len(completion.token_ids) for completion in group) for group in run(engine, PROMPTS, 2, sampling, SEEDS)]
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


# The caller's model stays as it was


def test_policy_that_will_be_sharded_is_sampled_from_a_whole_copy() -> None:
    model = tiny_model()
    engine = native(model, sharded=True)
    assert engine.weights.model is not model
    assert tokens(run(engine, [[5, 6]], 2, Sampling(6), [1])) == tokens(run(native(model), [[5, 6]], 2, Sampling(6), [1]))


@pytest.mark.parametrize("engine", ["native", "transformers"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_policy_is_untouched(engine: str, dtype: torch.dtype | None) -> None:
    model = tiny_model().train()
    model.model.layers[1].eval()
    model.model.embed_tokens.requires_grad_(False)
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    prompts = [list(prompt) for prompt in PROMPTS]

    def state() -> list[Any]:
        return [
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
            [parameter._version for parameter in model.parameters()],
            model.config._attn_implementation,
            model.generation_config.to_dict(),
            torch.is_grad_enabled(),
        ]

    before = state()
    values = [parameter.clone() for parameter in model.parameters()]
    gradients = [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
    for _ in build_engine(engine, model, tokenizer(), dtype=dtype).generate(prompts, 2, Sampling(8), SEEDS):
        assert state() == before  # between two groups, too
    assert state() == before
    assert prompts == PROMPTS
    for parameter, value, gradient in zip(model.parameters(), values, gradients, strict=True):
        assert torch.equal(parameter, value)
        assert (gradient is None and parameter.grad is None) or torch.equal(parameter.grad, gradient)
    model.zero_grad()
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()  # nothing is an inference tensor now
    assert model.lm_head.weight.grad is not None


@pytest.mark.parametrize("engine", ["native", "transformers"])
def test_buffers_made_while_sampling_can_be_trained_with(engine: str) -> None:
    """Dynamic rotary embeddings replace their frequencies when a sequence outgrows the model's length: here after 8 tokens."""
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    model = tiny_model(LlamaConfig(**{**SHAPE, "max_position_embeddings": 8}, rope_parameters=rope)).train()
    run(build_engine(engine, model, tokenizer()), [[5, 6, 7]], 2, Sampling(20), [1])
    assert not any(buffer.is_inference() for buffer in model.buffers())
    model(input_ids=torch.tensor([list(range(12))])).logits.sum().backward()
    for buffer in model.buffers():
        buffer.add_(0)


def test_engine_built_in_inference_mode_works_outside() -> None:
    model = tiny_model()
    with torch.inference_mode():
        engine = native(model, dtype=torch.bfloat16)
        inside = tokens(run(engine, [[5, 6]], 2, Sampling(6), [1]))
    assert tokens(run(engine, [[5, 6]], 2, Sampling(6), [1])) == inside


def test_model_is_given_back_when_it_fails() -> None:
    model = tiny_model().train()
    engine = native(model)
    handle = model.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(engine.generate([[1]], 1, Sampling(2), [0]))
    handle.remove()
    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == "sdpa"


def test_new_weights_are_used_at_once() -> None:
    model = tiny_model()
    shared, copied = native(model), native(model, dtype=torch.bfloat16)
    assert shared.weights.model is model
    assert copied.weights.model is not model
    sampling = Sampling(10)
    before = [tokens(run(engine, [[5, 6]], 2, sampling, [1])) for engine in (shared, copied)]
    with torch.no_grad():
        for parameter, other in zip(model.parameters(), tiny_model(seed=1).parameters(), strict=True):
            parameter.copy_(other)
    for engine, old, dtype in ((shared, before[0], None), (copied, before[1], torch.bfloat16)):
        new = tokens(run(engine, [[5, 6]], 2, sampling, [1]))
        assert new != old
        assert new == tokens(run(native(tiny_model(seed=1), dtype=dtype), [[5, 6]], 2, sampling, [1]))


def test_copy_has_its_own_precision_and_the_buffers_the_policys() -> None:
    model = tiny_model()
    model.tie_weights()
    original_forward = model.forward
    model.forward = lambda *args, **kwargs: original_forward(*args, **kwargs)  # as accelerate wraps a prepared model
    weights = RolloutWeights(model, torch.bfloat16)
    assert {parameter.dtype for parameter in weights.model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in weights.model.parameters())
    assert "forward" not in vars(weights.model)
    for name, buffer in weights.model.named_buffers():
        assert buffer.dtype == dict(model.named_buffers())[name].dtype
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with weights.borrowed() as borrowed:
        assert borrowed(input_ids=torch.tensor([[1, 2]])).logits.dtype is torch.bfloat16


# Choosing an engine


def test_auto_takes_native_and_says_why() -> None:
    engine = build_engine("auto", tiny_model(), tokenizer())
    assert engine.name == "native"
    assert engine.reason == "its logits agree with the model's own forward"


def test_auto_falls_back_to_transformers_and_says_why() -> None:
    engine = build_engine("auto", bloom_model(), tokenizer())
    assert engine.name == "transformers"
    assert "can't run BloomForCausalLM" in engine.reason
    [[completion]] = run(engine, [[1, 2]], 1, Sampling(3), [0])
    assert len(completion.token_ids) == 3


def test_native_by_name_refuses_what_it_cannot_run() -> None:
    with pytest.raises(UserError, match="native engine can't run BloomForCausalLM"):
        build_engine("native", bloom_model(), tokenizer())


def test_wrong_logits_are_found() -> None:
    """A model whose cached forward differs from its full one must not be taken for a supported one."""
    model = tiny_model()

    def halve_when_decoding(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]) -> Any:
        return tuple(part * 0.5 for part in output) if inputs[1].shape[1] == 1 else None

    handle = model.model.rotary_emb.register_forward_hook(halve_when_decoding)
    with pytest.raises(UnsupportedModel, match="standard deviations"):
        native(model)
    handle.remove()
    native(model)


def test_unknown_engine() -> None:
    with pytest.raises(UserError, match="choose auto, native or transformers"):
        build_engine("vlm", tiny_model(), tokenizer())


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
def test_bad_requests_fail_at_once(engine: str, prompts: list[list[int]], seeds: list[int], sampling: Sampling, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_engine(engine, tiny_model(), tokenizer()).generate(prompts, 1, sampling, seeds)
