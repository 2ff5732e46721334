"""Split linear layers compute what the layers computed, and follow new weights; the others stay as they
are.
"""

from __future__ import annotations

import copy

import pytest
import torch
from rollout_helpers import PROMPTS, SEEDS, configs, native, run, tiny_model, tokens
from torch import nn

from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.split import SplitLinear, is_narrow, split_linears

SAMPLING = Sampling(20, temperature=0.9)


@pytest.mark.parametrize(
    ("layer", "narrow"),
    [
        (nn.Linear(4864, 896, bias=False), True),
        (nn.Linear(896, 896, bias=False), True),
        (nn.Linear(896, 896), False),  # the bias would be added to the sum
        (nn.Linear(896, 4864, bias=False), False),  # tiles enough
        (nn.Linear(4096, 4096, bias=False), False),
        (nn.Linear(4872, 896, bias=False), False),  # not four parts of whole vectors
    ],
)
def test_which_layers_are_split(layer: nn.Linear, narrow: bool) -> None:
    assert is_narrow(layer) is narrow
    assert split_linears(nn.ModuleList([layer])) == narrow
    assert isinstance(layer, SplitLinear) is narrow


@pytest.mark.parametrize("shape", [(3, 1, 96), (1, 1, 96), (2, 5, 96), (4, 96)])
def test_the_product_is_that_of_the_layer(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(96, 64, bias=False)
    split = copy.deepcopy(layer)
    split_linears(nn.ModuleList([split]))
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(split(given), layer(given))
        split.weight.mul_(2.0)
        torch.testing.assert_close(split(given), 2.0 * layer(given))


@pytest.mark.parametrize("name", ["qwen2", "deepseek_v3"])
def test_completions_with_split_layers_are_the_same(name: str) -> None:
    model = tiny_model(configs()[name])
    expected = tokens(run(native(model), PROMPTS, 3, SAMPLING, SEEDS))
    assert split_linears(model) >= model.config.num_hidden_layers
    assert tokens(run(native(model), PROMPTS, 3, SAMPLING, SEEDS)) == expected
