"""The recipe of `r1rl bench`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from r1rl.config.fields import option, required, section
from r1rl.config.intervals import COUNT, COUNT_OR_OFF, NOT_NEGATIVE, Interval
from r1rl.config.issues import Contradiction
from r1rl.config.schema import LoRAConfig, UpdateConfig


@dataclass(kw_only=True, slots=True)
class ShapeConfig:
    """The shape of a decoder with random weights."""

    architecture: Literal["qwen2", "qwen3", "llama"] = option("qwen2", "the architecture in transformers")
    hidden_size: int = option(896, "width", within=COUNT)
    num_layers: int = option(24, "depth", within=COUNT)
    num_heads: int = option(14, "attention heads", within=COUNT)
    num_key_value_heads: int = option(2, "key/value heads (grouped-query attention)", within=COUNT)
    head_dim: int = option(64, "width of a head", within=COUNT)
    intermediate_size: int = option(4864, "width of the gated MLP", within=COUNT)
    vocab_size: int = option(151936, "entries of the vocabulary", within=COUNT)
    tied: bool = option(True, "the head's weights are the embedding's")


@dataclass(kw_only=True, slots=True)
class BenchRecipe:
    """`r1rl bench`: the time that the phases of a GRPO step take."""

    run_name: str = required("names the folder of the results")
    output_dir: str = option("runs", "result folders are made in here")
    seed: int = option(0, "seed of weights, prompts, lengths and samples", within=NOT_NEGATIVE)
    path: str | None = option(
        None, "a model's folder or hub name; null: random weights of this shape", path="any"
    )
    shape: ShapeConfig = section(ShapeConfig, "the decoder with random weights")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "auto: bfloat16 on a GPU, float32 on a CPU. Master weights are float32"
    )
    num_prompts: int = option(16, "P: prompts of a step", within=COUNT)
    num_generations: int = option(8, "G: completions per prompt", within=COUNT)
    prompt_length_min: int = option(128, "tokens of the shortest prompt", within=COUNT)
    prompt_length_max: int = option(256, "tokens of the longest prompt", within=COUNT)
    completion_length_mean: int = option(
        280, "tokens of a completion on average; the maximum makes all equally long", within=COUNT
    )
    completion_length_max: int = option(512, "tokens of the longest completion", within=COUNT)
    steps: int = option(5, "steps that are timed; the table shows their medians", within=COUNT)
    warmup: int = option(2, "steps before those", within=COUNT)
    trl_steps: int | None = option(
        None, "steps of TRL that are timed; null: as many as of r1rl", within=COUNT
    )
    trl_warmup: int | None = option(
        None, "steps of TRL before those; null: as many as of r1rl", within=COUNT_OR_OFF
    )
    threads: int = option(0, "threads of a CPU; 0: torch's own choice", within=COUNT_OR_OFF)
    trl_micro_batch: int = option(
        32, "completions per forward pass of TRL, which pads all of them to the longest", within=COUNT
    )
    trl_vllm_gpu_memory_utilization: float | None = option(
        None,
        "share of the GPU's memory for vLLM with --against trl-vllm; null: TRL's own choice",
        within=Interval(above=0, below=1),
    )
    compile_layers: bool | None = option(
        None, "compile the layers of r1rl's rollout, as rollout.compile_layers of `r1rl grpo`"
    )
    update: UpdateConfig = section(UpdateConfig, "micro-batches of r1rl")
    lora: LoRAConfig | None = option(
        None, "train adapters of a model in dtype, as model.lora of `r1rl grpo`; not with --against"
    )


def contradictions(recipe: BenchRecipe) -> Iterator[Contradiction]:
    """Yield lengths that can't be met, and a batch that TRL can't divide."""
    for low, high in (
        ("prompt_length_min", "prompt_length_max"),
        ("completion_length_mean", "completion_length_max"),
    ):
        if getattr(recipe, low) > getattr(recipe, high):
            yield (low, high), f"{low} is {getattr(recipe, low)}, above {high} ({getattr(recipe, high)})"
    batch = recipe.num_prompts * recipe.num_generations
    if batch % recipe.trl_micro_batch:
        yield (
            ("trl_micro_batch", "num_prompts", "num_generations"),
            f"trl_micro_batch is {recipe.trl_micro_batch}, which does not divide the batch of "
            f"{recipe.num_prompts} x "
            f"{recipe.num_generations} completions",
        )
