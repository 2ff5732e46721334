"""The choice between packed and padded sequences: what packs, and what a run is told where it can't."""

from __future__ import annotations

import pytest
import torch
from rollout_helpers import tiny_model, tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, BloomConfig, LlamaForCausalLM, MambaConfig, Qwen2ForCausalLM
from update_helpers import CONFIGS, build

from r1rl.attention import rectangles
from r1rl.compute.trials import trial_report
from r1rl.config.schema import UpdateConfig
from r1rl.errors import UserError
from r1rl.policy import layout as module
from r1rl.policy import probe
from r1rl.policy.layout import available_kernels, choose_layout, packed_attention_in, varlen_kernel


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_known_architectures_are_packed(name, dtype):
    model = build(name).train()
    implementation = model.config._attn_implementation
    layout = choose_layout(model, UpdateConfig(), dtype)
    assert layout.packed, layout.reason
    assert layout.shares_prompts
    assert layout.reason == ""
    assert model.training
    assert model.config._attn_implementation == implementation
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not choose_layout(model, UpdateConfig(share_prompts=False), dtype).shares_prompts


SMALL = {"vocab_size": 29, "hidden_size": 32}
UNPACKABLE = {
    "bloom": (BloomConfig(n_layer=2, n_head=4, **SMALL), "doesn't let its attention be replaced"),
    "mamba": (
        MambaConfig(num_hidden_layers=2, state_size=4, **SMALL),
        "doesn't let its attention be replaced",
    ),
}


@pytest.mark.parametrize("name", UNPACKABLE)
def test_other_architectures_are_padded_with_a_reason(name):
    config, reason = UNPACKABLE[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    layout = choose_layout(model, UpdateConfig(), torch.float32)
    assert not layout.packed
    assert not layout.shares_prompts
    assert layout.reason.startswith(
        f"Sequences are padded, because {type(model).__name__} can't compute them packed (with scaled_dot"
    )
    assert reason in layout.reason
    with pytest.raises(UserError, match=r"update.layout: packed is asked for.*Use layout: auto"):
        choose_layout(model, UpdateConfig(layout="packed"), torch.float32)


class IgnoresPositions(LlamaForCausalLM):
    """Numbers the positions of a packed row from one end to the other."""

    def __init__(self, config):
        super().__init__(config)
        inner = self.model.forward
        self.model.forward = lambda position_ids=None, **keywords: inner(**keywords)


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        (torch.float32, "hidden states of random tokens differ from the plain way's by"),
        (torch.bfloat16, "times as far from float32 as the plain way's"),
    ],
    ids=str,
)
def test_other_results_are_noticed(dtype, said):
    torch.manual_seed(0)
    model = IgnoresPositions(CONFIGS["llama"])
    layout = choose_layout(model, UpdateConfig(), dtype)
    assert not layout.packed
    assert said in layout.reason
    (line,) = trial_report(layout.trials)
    assert line.startswith("Sequences are padded: hidden states of random tokens")
    assert line.endswith("; an update takes about 1.7 times as long.")


def test_wrong_gradients_are_noticed(monkeypatch):
    """A kernel whose backward pass is wrong, as one without support for grouped heads might be."""

    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, states):
            return states.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient / 2

    original = probe.hidden_states

    def spoiled(model, ids, positions=None, plan=None):
        hidden = original(model, ids, positions, plan)
        return hidden if plan is None else Halved.apply(hidden)

    monkeypatch.setattr(probe, "hidden_states", spoiled)
    layout = choose_layout(build("qwen3"), UpdateConfig(), torch.float32)
    assert not layout.packed
    assert (
        "gradients of random tokens differ from the plain way's by 0.5 of their root mean square"
        in layout.reason
    )


def shift(positions_RT):
    """Return positions of which those from the fifth on are one too far."""
    return positions_RT + (positions_RT >= 4)


def hide_a_key(bias):
    """Return a mask that hides the first column from all but the first query."""
    bias = bias.clone()
    bias[..., 1:, 0] = -torch.inf
    return bias


def show_a_key(bias):
    """Return a mask that shows each query the key after its own."""
    return torch.cat([bias[..., 1:, :], bias[..., -1:, :]], -2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("planted", ["position", hide_a_key, show_a_key])
def test_planted_errors_are_found(monkeypatch, planted, name, dtype):
    model = build(name)
    if planted == "position":
        original = probe.hidden_states
        monkeypatch.setattr(
            probe,
            "hidden_states",
            lambda model, ids, positions=None, plan=None: original(
                model, ids, positions if plan is None else shift(positions), plan
            ),
        )
    else:
        original = rectangles.causal_bias
        monkeypatch.setattr(rectangles, "causal_bias", lambda *arguments: planted(original(*arguments)))
    layout = choose_layout(model, UpdateConfig(), dtype)
    assert not layout.packed
    assert len(trial_report(layout.trials)) == 1


def test_a_bias_that_is_left_out_is_found_in_both_precisions():
    """A model whose packed forward forgets the biases of its projections."""

    class Forgets(Qwen2ForCausalLM):
        def __init__(self, config):
            super().__init__(config)
            inner = self.model.forward

            def forward(packed_plan=None, **keywords):
                if packed_plan is None:
                    return inner(**keywords)
                kept = {}
                for name, one in self.named_modules():
                    if name.endswith("q_proj"):
                        kept[one], one.bias = one.bias, None
                try:
                    return inner(packed_plan=packed_plan, **keywords)
                finally:
                    for one, bias in kept.items():
                        one.bias = bias

            self.model.forward = forward

    torch.manual_seed(0)
    model = Forgets(CONFIGS["qwen2"])
    for one in model.modules():
        if getattr(one, "bias", None) is not None:
            nn.init.normal_(one.bias)
    for dtype in (torch.float32, torch.bfloat16):
        assert not choose_layout(model, UpdateConfig(), dtype).packed


def test_packing_is_tried_on_text_where_there_is_a_tokenizer():
    model = tiny_model()
    quantities = [
        comparison.quantity
        for comparison in choose_layout(model, UpdateConfig(), torch.float32, tokenizer())
        .trials[0]
        .comparisons
    ]
    assert quantities == [
        f"{values} of {tokens}"
        for tokens in ("random tokens", "text")
        for values in ("hidden states", "gradients")
    ]


def test_the_trial_is_the_same_at_every_start():
    first, again = (choose_layout(build("qwen3"), UpdateConfig(), torch.bfloat16) for _ in range(2))
    assert first.trials == again.trials
    assert first.trials[0].comparisons[0].plain > 1e-4, "bfloat16 is compared with float32"


def test_a_kernel_that_fails_makes_way_for_the_next(monkeypatch):
    def raises(*arguments, causal=False):
        raise RuntimeError("no kernel image is available")

    kernels = [varlen_kernel("a kernel", raises), None]
    monkeypatch.setattr(module, "available_kernels", lambda device, dtype: kernels)
    layout = choose_layout(build("qwen3"), UpdateConfig(), torch.float32)
    assert layout.packed
    assert layout.kernel is None
    assert [(trial.part, trial.accepted) for trial in layout.trials] == [
        ("packed attention by a kernel", False),
        ("packed sequences", True),
    ]
    assert trial_report(layout.trials) == [
        "Packed attention is not computed by a kernel: RuntimeError: no kernel image is available."
    ]
    monkeypatch.setattr(module, "available_kernels", lambda device, dtype: kernels[:1])
    layout = choose_layout(build("qwen3"), UpdateConfig(), torch.float32)
    assert "with a kernel, RuntimeError: no kernel image is available" in layout.reason


def test_padding_on_request_has_no_reason_to_give():
    layout = choose_layout(build("qwen3"), UpdateConfig(layout="padded"), torch.float32)
    assert (layout.packed, layout.reason) == (False, "")


def test_kernels_need_a_gpu_and_half_precision():
    assert available_kernels(torch.device("cpu"), torch.bfloat16) == [None]
    assert available_kernels(torch.device("cuda"), torch.float32) == [None]
    names = [
        kernel.name if kernel else "" for kernel in available_kernels(torch.device("cuda"), torch.bfloat16)
    ]
    assert "torch's varlen_attn" in names
    assert names[-1] == ""


def test_attention_is_given_back_after_an_error():
    model = build("qwen3")
    before = model.config._attn_implementation
    with pytest.raises(ZeroDivisionError), packed_attention_in(model):
        assert model.config._attn_implementation == "r1rl_packed"
        raise ZeroDivisionError
    assert model.config._attn_implementation == before


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama", "mistral"])
def test_on_a_gpu_torch_packs_in_bfloat16(name):
    model: nn.Module = build(name).cuda()
    layout = choose_layout(model, UpdateConfig(), torch.bfloat16)
    assert layout.kernel is not None, layout.reason
