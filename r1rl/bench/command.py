"""The record of `r1rl bench`."""

from __future__ import annotations

from r1rl.bench.recipe import BenchRecipe, contradictions
from r1rl.config.commands import Command, Flag

COMMAND = Command(
    name="bench",
    position=90,
    summary="how long rollout, reward and update of a GRPO step take, also beside TRL",
    explanation=(
        "Times steps of a model shape with random weights (or of a model) on random prompts, with "
        "completions of given lengths, and says which share of the machine's measured speed they reach. "
        "Leaves bench.json; keeps no weights."
    ),
    examples=(
        "r1rl bench recipes/bench/tiny.yaml --against trl",
        "r1rl bench recipes/bench/tiny.yaml completion_length_mean=192 threads=1",
        "r1rl bench recipes/bench/qwen2.5-0.5b.yaml num_prompts=64 update.compile=true",
        "r1rl bench recipes/bench/qwen2.5-0.5b.yaml --against trl-vllm",
    ),
    run="r1rl.bench.run:run",
    recipe=BenchRecipe,
    flags=(
        Flag(
            "against",
            "trl",
            ("time TRL's trainer too, on the same work: trl with transformers' generate, trl-vllm with vLLM"),
        ),
    ),
    contradictions=contradictions,
)
