"""The memory estimate against numbers that were worked out by hand, and against torch's real allocations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen3Config

from r1rl import models
from r1rl.config.schema import LoRAConfig
from r1rl.memory.estimate import adapters_of, read_config, shape_of
from r1rl.memory.plan import (
    KEPT_SHARE,
    ROLLOUT_LOGIT_BYTES,
    ROLLOUT_SHARE,
    MemoryPlan,
    activation_bytes,
    key_value_bytes,
    plan_memory,
)
from r1rl.memory.remedy import remedy
from r1rl.memory.work import CARD_BYTES, GB, Adapters, Launch, ModelShape, Work
from r1rl.models.lora import add_adapters
from r1rl.rollout.native import memory as rollout_memory
from r1rl.rollout.native.cache import PackedPrompts, RowCache
from r1rl.rollout.weights import RolloutWeights

CONFIGS = Path(__file__).parent / "data" / "configs"


def shape(name: str) -> ModelShape:
    return shape_of(read_config(name, None, str(CONFIGS / f"{name}.json")))


def part(plan: MemoryPlan, name: str) -> int:
    (found,) = [one.bytes for one in plan.parts if one.name == name]
    return found


# shapes. A layer of Qwen2 with hidden h, intermediate i, key width k: q and o 2 h h + h, k and v 2 h k + 2 k,
# MLP 3 h i, norms 2 h.


@pytest.mark.parametrize(
    ("name", "parameters", "layer", "outside"),
    [
        # h 896, i 4864, k 128, 24 layers: 1,605,632 + 896 + 229,376 + 256 + 13,074,432 + 1,792; embeddings
        # 151,936 x 896 (tied) + norm 896
        ("qwen2.5-0.5b", 494_032_768, 14_912_384, 136_135_552),
        # h 1536, i 8960, k 256, 28 layers: 4,718,592 + 1,536 + 786,432 + 512 + 41,287,680 + 3,072; 151,936 x
        # 1536 (tied) + 1,536
        ("qwen2.5-1.5b", 1_543_714_304, 46_797_824, 233_375_232),
        # h 3584, i 18944, k 512, 28 layers: 25,690,112 + 3,584 + 3,670,016 + 1,024 + 203,685,888 + 7,168; 2 x
        # 152,064 x 3584 + 3,584
        ("qwen2.5-7b", 7_615_616_512, 233_057_792, 1_089_998_336),
    ],
)
def test_parameters_are_counted_from_the_configuration_alone(
    name: str, parameters: int, layer: int, outside: int
) -> None:
    found = shape(name)
    assert (found.parameters, found.largest_layer, found.outside_layers) == (parameters, layer, outside)
    assert layer * found.layers + outside == parameters


def test_keys_and_values() -> None:
    # 0.5B: 24 layers x 2 x 2 heads x 64 x 2 bytes; 1.5B: 28 x 2 x 2 x 128 x 2; 7B: 28 x 2 x 4 x 128 x 2
    assert [key_value_bytes(shape(f"qwen2.5-{size}"), 2) for size in ("0.5b", "1.5b", "7b")] == [
        12_288,
        28_672,
        57_344,
    ]


def test_activations() -> None:
    # 1.5B, a layer: 20 x 1536 + 4 x 1536 + 4 x 256 + 8 x 8960 = 109,568 bytes a token; all 28: 3,067,904
    assert activation_bytes(shape("qwen2.5-1.5b"), checkpointed=False) == 3_067_904
    # checkpointed: 28 inputs of 4 x 1536 and one layer's 109,568
    assert activation_bytes(shape("qwen2.5-1.5b"), checkpointed=True) == 28 * 6_144 + 109_568


def test_norms_of_queries_and_keys() -> None:
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    plain, normed = shape_of(Qwen2Config(**sizes)), shape_of(Qwen3Config(**sizes))
    assert (plain.norms_heads, normed.norms_heads) == (False, True)
    # 3 layers x (64 + 32) entries x 6 bytes, or 4 where the layer is compiled
    assert (
        activation_bytes(normed, False) - activation_bytes(replace(normed, norms_heads=False), False)
        == 3 * 96 * 6
    )
    assert (
        activation_bytes(normed, False, compiled=True)
        - activation_bytes(replace(normed, norms_heads=False), False, True)
        == 3 * 96 * 4
    )


# plans


def test_seven_billion_sharded_over_eight_gpus() -> None:
    work = Work(rows=128, length=4024, update_tokens=16384, logit_tokens=4096, gradient_checkpointing=True)
    plan = plan_memory(shape("qwen2.5-7b"), Launch(8, sharded=True), work)
    assert part(plan, "master weights") == 3_807_808_256  # 4 x 7,615,616,512 / 8
    assert part(plan, "Adam's moments") == 7_615_616_512
    assert part(plan, "gradients") == 3_807_808_256
    assert part(plan, "rollout copy") == 15_231_233_024  # whole on every GPU
    assert part(plan, "gathered weights") == 2 * (1_089_998_336 + 2 * 233_057_792)
    assert part(plan, "keys and values") == 128 * 4024 * 57_344
    assert part(plan, "logits of a chunk") == 4096 * 16 * 152_064
    # a layer: 20 x 3584 + 4 x 3584 + 4 x 512 + 8 x 18944 = 239,616; inputs 28 x 4 x 3584 = 401,408
    assert part(plan, "activations") == 16384 * (239_616 + 401_408)
    always = 3_807_808_256 + 7_615_616_512 + 15_231_233_024 + 3 * GB
    rollout = 128 * 4024 * 57_344 + 128 * 32 * 152_064
    update = 3_807_808_256 + 3_112_227_840 + 16384 * 641_024 + 4096 * 16 * 152_064
    assert plan.total == always + max(rollout, update)
    assert plan.fits
    assert plan.rows_at_once == 128


def test_half_a_billion_on_one_gpu_and_on_two_with_whole_models() -> None:
    work = Work(rows=512, length=1024, update_tokens=8192, logit_tokens=2048, has_reference=True)
    one, two = (plan_memory(shape("qwen2.5-0.5b"), Launch(count), work) for count in (1, 2))
    assert part(one, "master weights") == 1_976_131_072
    assert part(one, "reference policy") == 988_065_536
    assert part(one, "weights in bfloat16") == 988_065_536
    assert {found.name for found in two.parts} - {found.name for found in one.parts} == {"gradient buckets"}
    assert two.total - one.total == 1_976_131_072


def test_adapters_of_seven_billion_on_one_gpu() -> None:
    # in + out of a layer: q and o 2 x 7,168, k and v 2 x 4,096, gate, up and down 3 x 22,528, together
    # 90,112; 28 layers, rank 32
    # in x out: q and o 2 x 12,845,056, k and v 2 x 1,835,008, gate, up and down 3 x 67,895,296, together
    # 233,046,016; 28 layers
    config = read_config("qwen2.5-7b", None, str(CONFIGS / "qwen2.5-7b.json"))
    adapters = adapters_of(config, LoRAConfig(rank=32))
    assert adapters == Adapters(80_740_352, 6_525_288_448)
    # q and v alone: 28 x (7,168 + 4,096) x 8
    assert (
        adapters_of(config, LoRAConfig(rank=8, target_modules=["q_proj", "v_proj"])).parameters == 2_523_136
    )
    work = Work(
        rows=128, length=4096, update_tokens=16384, logit_tokens=4096, has_reference=True, adapters=adapters
    )
    one, two = (plan_memory(shape("qwen2.5-7b"), Launch(count), work) for count in (1, 2))
    assert part(one, "frozen weights") == 15_231_233_024
    assert part(one, "adapters") == part(one, "gradients") == 322_961_408
    assert part(one, "Adam's moments") == 645_922_816
    assert part(one, "rollout copy") == 13_050_576_896
    assert part(one, "weights in bfloat16") == 161_480_704
    # No reference.
    assert one.of("always") == 15_231_233_024 + 322_961_408 + 645_922_816 + 13_050_576_896 + 3 * GB
    assert two.total - one.total == 322_961_408  # gradient buckets


def test_adapters_are_not_advised_to_be_sharded() -> None:
    work = Work(
        rows=8,
        length=1024,
        update_tokens=65536,
        logit_tokens=1024,
        adapters=Adapters(80_740_352, 6_525_288_448),
    )
    assert not plan_memory(shape("qwen2.5-7b"), Launch(), work).fits
    assert remedy(shape("qwen2.5-7b"), Launch(), work, {}) == ""
    assert remedy(shape("qwen2.5-7b"), Launch(), replace(work, adapters=None), {}).startswith(
        "recipes/accelerate/fsdp2.yaml"
    )


def test_rollout_beside_the_update_takes_its_memory_at_the_same_time() -> None:
    """A rollout on a CPU, which otherwise reads the policy's own weights, then also has a copy: 4 x N."""
    work, launch = Work(rows=8, length=1024, update_tokens=8192, logit_tokens=1024), Launch(on_gpu=False)
    apart, beside = (
        plan_memory(shape("qwen2.5-0.5b"), launch, replace(work, overlaps=overlaps))
        for overlaps in (False, True)
    )
    assert part(beside, "rollout copy") == 4 * 494_032_768
    assert beside.total - apart.total == 4 * 494_032_768 + min(apart.of("rollout"), apart.of("update"))


def test_rows_that_do_not_fit_decode_in_turns() -> None:
    work = Work(rows=4096, length=8192, update_tokens=8192, logit_tokens=1024)
    plan = plan_memory(shape("qwen2.5-1.5b"), Launch(), work)
    always = 14 * 1_543_714_304 + 3 * GB  # 4 + 8 + 2 bytes a parameter
    row = 8192 * 28_672 + 32 * 151_936
    assert plan.rows_at_once == int((CARD_BYTES - always) * 0.9) // row == 207
    assert plan_memory(shape("qwen2.5-1.5b"), Launch(), replace(work, max_rows=100)).rows_at_once == 100


def test_a_larger_card_takes_more_rows_and_keeps_their_cache() -> None:
    # 128 rows of 4,096 tokens x 28,672 bytes are 15.0 GB: more than a tenth of 80 GB, and less than one of
    # 160
    work = Work(rows=128, length=4096, update_tokens=8192, logit_tokens=1024)
    small, large = (
        plan_memory(shape("qwen2.5-1.5b"), Launch(card_bytes=size * GB), work) for size in (80, 160)
    )
    assert part(large, "kept keys and values") == part(large, "keys and values") == 128 * 4096 * 28_672
    assert "kept keys and values" not in {found.name for found in small.parts}
    tight = plan_memory(shape("qwen2.5-1.5b"), Launch(card_bytes=40 * GB), work)
    always = 14 * 1_543_714_304 + 3 * GB
    assert tight.rows_at_once == int((40 * GB - always) * 0.9) // (4096 * 28_672 + 32 * 151_936) == 113
    assert large.fits
    assert not tight.fits


def test_a_model_that_only_writes_has_its_weights_once() -> None:
    plan = plan_memory(shape("qwen2.5-7b"), Launch(), Work(trains=False, rows=256, length=4096))
    assert {found.name for found in plan.parts} == {
        "weights",
        "reserve",
        "keys and values",
        "logits of a token",
    }
    assert part(plan, "weights") == 15_231_233_024


@pytest.mark.parametrize(
    ("size", "launch", "work", "advice"),
    [
        # 1.5B needs 21.6 + 3 GB always, 9.3 GB for gradients and weights, 9.96 GB of logits, and 3.07 MB a
        # token: 12,288 are 37.7 GB
        (
            "1.5b",
            Launch(),
            Work(rows=8, length=1024, update_tokens=12288, logit_tokens=4096),
            "update.logprob_chunk: 1024",
        ),
        (
            "1.5b",
            Launch(),
            Work(rows=8, length=1024, update_tokens=32768, logit_tokens=1024),
            "update.micro_batch_tokens: 8192",
        ),
        (
            "7b",
            Launch(),
            Work(rows=8, length=1024, update_tokens=1024, logit_tokens=1024),
            "recipes/accelerate/fsdp2.yaml on 8 GPUs",
        ),
        (
            "7b",
            Launch(2, sharded=True),
            Work(rows=8, length=1024, update_tokens=1024, logit_tokens=1024),
            "4 GPUs",
        ),
    ],
)
def test_the_remedy_is_the_cheapest_change_that_fits(
    size: str, launch: Launch, work: Work, advice: str
) -> None:
    keys = {
        "update_tokens": "update.micro_batch_tokens",
        "logit_tokens": "update.logprob_chunk",
        "gradient_checkpointing": "model.gradient_checkpointing",
    }
    found = shape(f"qwen2.5-{size}")
    assert not plan_memory(found, launch, work).fits
    sentence = remedy(found, launch, work, keys)
    assert sentence.startswith(f"{advice} would make it ")
    assert "still too much" not in sentence


# against what torch allocates


def test_parameters_and_moments_of_the_embedded_model_are_what_torch_holds() -> None:
    model = AutoModelForCausalLM.from_pretrained(models.resolve("embedded"), dtype=torch.float32)
    plan = plan_memory(
        shape_of(AutoConfig.from_pretrained(models.resolve("embedded"))), Launch(on_gpu=False), Work()
    )
    parameters = {parameter.data_ptr(): parameter for parameter in model.parameters()}
    assert part(plan, "master weights") == sum(one.untyped_storage().nbytes() for one in parameters.values())
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.zeros(1, 4, dtype=torch.long), use_cache=False).logits.sum().backward()
    optimizer.step()
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert part(plan, "Adam's moments") == sum(one.untyped_storage().nbytes() for one in moments)
    gradients = [parameter.grad for parameter in parameters.values()]
    assert part(plan, "gradients") == sum(
        one.untyped_storage().nbytes() for one in gradients if one is not None
    )


def test_adapters_of_the_embedded_model_are_what_torch_holds() -> None:
    model = AutoModelForCausalLM.from_pretrained(models.resolve("embedded"), dtype=torch.float32)
    lora = LoRAConfig(rank=4)
    work = Work(rows=4, length=64, adapters=adapters_of(model.config, lora))
    plan = plan_memory(shape_of(model.config), Launch(on_gpu=False), work)
    add_adapters(model, lora, "embedded", None, seed=0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert part(plan, "adapters") == sum(one.untyped_storage().nbytes() for one in trained)
    frozen = {
        parameter.data_ptr(): parameter for parameter in model.parameters() if not parameter.requires_grad
    }
    assert part(plan, "frozen weights") == sum(one.untyped_storage().nbytes() for one in frozen.values())
    copied = {parameter.data_ptr(): parameter for parameter in RolloutWeights(model).model.parameters()}
    assert part(plan, "rollout copy") == sum(
        one.untyped_storage().nbytes() for place, one in copied.items() if place not in frozen
    )


def test_keys_and_values_of_the_embedded_model_are_what_the_engine_s_cache_holds() -> None:
    model = AutoModelForCausalLM.from_pretrained(models.resolve("embedded"), dtype=torch.float32)
    found = shape_of(model.config)
    prompts = PackedPrompts()
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        model(
            input_ids=torch.zeros(1, 64, dtype=torch.long),
            past_key_values=prompts,
            attention_mask={"full_attention": None},
        )
    assert prompts.bytes_per_token == key_value_bytes(found, element=4)
    cache = RowCache(row_capacity=3, column_limit=128)
    cache.reserve(128)
    cache.append(prompts, torch.arange(64).expand(3, 64))
    held = sum(
        buffer.untyped_storage().nbytes() for buffers in (cache.keys, cache.values) for buffer in buffers
    )
    assert held == 3 * 128 * key_value_bytes(found, element=4)


def test_the_engine_s_own_constants_are_those_of_the_plan() -> None:
    assert rollout_memory.LOGITS_BYTES == ROLLOUT_LOGIT_BYTES
    assert rollout_memory.SHARE == ROLLOUT_SHARE
    assert rollout_memory.KEEP_SHARE == KEPT_SHARE
