"""The work that every contender gets: the same model, prompts, completion lengths and reward.

Completions have forced lengths, because random weights would end them at random, each trainer's at other
places. The lengths are drawn once, from an exponential cut off at the maximum, scaled so that their mean is
the recipe's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from r1rl.bench.recipe import BenchRecipe, ShapeConfig
from r1rl.models.loading import default_device, load_model, resolve_dtype

ARCHITECTURES: dict[str, type[PreTrainedConfig]] = {
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "llama": LlamaConfig,
}


@dataclass(frozen=True, slots=True)
class Workload:
    """One step's work; every step of a bench has the same."""

    prompts: list[list[int]]
    lengths: list[list[int]]
    """The tokens of each completion, the EOS token included, by prompt and generation."""
    eos: int

    @property
    def num_tokens(self) -> int:
        """The completion tokens of a step."""
        return sum(map(sum, self.lengths))


def make_workload(recipe: BenchRecipe, vocabulary: int) -> Workload:
    """Return prompts of random tokens and lengths, from the recipe's seed."""
    generator = random.Random(recipe.seed)
    eos = vocabulary - 1
    prompts = [
        [
            generator.randrange(2, eos)
            for _ in range(generator.randint(recipe.prompt_length_min, recipe.prompt_length_max))
        ]
        for _ in range(recipe.num_prompts)
    ]
    count = recipe.num_prompts * recipe.num_generations
    flat = forced_lengths(count, recipe.completion_length_mean, recipe.completion_length_max, recipe.seed)
    size = recipe.num_generations
    return Workload(prompts, [flat[start : start + size] for start in range(0, count, size)], eos)


def forced_lengths(count: int, mean: int, longest: int, seed: int) -> list[int]:
    """Return `count` lengths from 1 to `longest` whose mean is `mean` up to rounding.

    They have a long tail, and the longest is among them.
    """
    if mean >= longest:
        return [longest] * count
    generator = random.Random(f"lengths {seed}")
    draws = [generator.expovariate(1.0) for _ in range(count)]

    def lengths(scale: float) -> list[int]:
        return [max(1, min(longest, round(scale * draw))) for draw in draws]

    low, high = 0.0, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(lengths(middle)) < mean * count else (low, middle)
    found = lengths(high)
    found[max(range(count), key=draws.__getitem__)] = longest
    return found


def compute_dtype(recipe: BenchRecipe) -> torch.dtype:
    """Return the precision in which forward passes compute."""
    return resolve_dtype(recipe.dtype, default_device())


def make_model(recipe: BenchRecipe, device: torch.device) -> PreTrainedModel:
    """Return the model in float32; a model with adapters is frozen and in the precision that it computes in.

    It is the model of the recipe's path, or one with random weights of its shape, which are the same each
    time.
    """
    torch.manual_seed(recipe.seed)
    dtype = torch.float32 if recipe.lora is None else compute_dtype(recipe)
    if recipe.path is not None:
        return load_model(recipe.path, dtype, key="path")
    with device:
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            shape_config(recipe.shape, recipe), dtype=dtype
        )
    return made


def shape_config(shape: ShapeConfig, recipe: BenchRecipe) -> PreTrainedConfig:
    """Return transformers' configuration of this shape, with room for the longest sequence."""
    make: Any = ARCHITECTURES[shape.architecture]  # each takes keywords of its own
    config: PreTrainedConfig = make(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        max_position_embeddings=recipe.prompt_length_max + recipe.completion_length_max + 1,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=shape.vocab_size - 1,
        pad_token_id=0,
    )
    return config


def vocabulary_of(model: PreTrainedModel) -> int:
    """Return the width of the logits."""
    head: Any = model.get_output_embeddings()
    return int(head.weight.shape[0])


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one word per id, so that text and tokens say the same.

    Special tokens are cut out of a text first, wherever they are in it, so no word contains one.
    """
    special = {"<pad>": 0, "<unk>": 1, "<eos>": vocabulary - 1}
    words = {f"t{token}": token for token in range(2, vocabulary - 1)}
    tokenizer = Tokenizer(WordLevel(special | words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def prompt_text(prompt: Sequence[int]) -> str:
    """Return the text that `make_tokenizer`'s tokenizer splits into these tokens."""
    return " ".join(f"t{token}" for token in prompt)


def one_eos(model: PreTrainedModel, eos: int) -> None:
    """Make the model end completions with this token alone."""
    model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=0)


def reward(completions: Sequence[str], **columns: Any) -> list[float | None]:
    """Return a number per completion that differs within groups, so that every group has a signal."""
    return [float(len(completion) % 7) for completion in completions]
