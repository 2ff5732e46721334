"""`r1rl bench`: the times of the phases of a GRPO step, beside TRL's if asked.

On a CPU the two take turns step by step in one process, so that other work of the machine affects both. On a
GPU, where each needs the memory for itself, r1rl runs first and then TRL.
"""

from __future__ import annotations

import gc
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from r1rl.bench.machine import measured_bandwidth, measured_peak
from r1rl.bench.ours import OurStep
from r1rl.bench.peer import PEERS, TRL_VLLM, run_trl, trl_steps
from r1rl.bench.peer_vllm import check_vllm
from r1rl.bench.recipe import BenchRecipe
from r1rl.bench.workload import (
    Workload,
    compute_dtype,
    make_model,
    make_tokenizer,
    make_workload,
    one_eos,
    vocabulary_of,
)
from r1rl.compute.accelerator import use_growing_segments
from r1rl.compute.environment import describe_environment
from r1rl.config.load import dump_recipe
from r1rl.config.schema import ModelConfig, RolloutConfig
from r1rl.errors import UserError
from r1rl.memory.estimate import adapters_of, fuses_logits, is_compiled, shape_of
from r1rl.memory.plan import RESERVE_BYTES, plan_memory
from r1rl.memory.work import GB, Launch, Work
from r1rl.policy.batching import build_train_batch
from r1rl.policy.packing import Layout, make_micro_batches
from r1rl.rollout.native.memory import total_bytes
from r1rl.types import Completion, FinishReason

PHASES = ("rollout", "reward", "update", "step")


def run(recipe: BenchRecipe, recipe_path: Path, against: str | None = None) -> None:
    """Run `r1rl bench`. `against` is one of PEERS, or None."""
    if against not in (None, *PEERS):
        raise UserError(f"--against {against}: the bench knows {' and '.join(PEERS)}.")
    if against and recipe.lora is not None:
        raise UserError("lora: the bench trains adapters with r1rl alone: leave out --against.")
    if against == TRL_VLLM:
        check_vllm(recipe)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if against != TRL_VLLM:
        use_growing_segments()
    accelerator = Accelerator(mixed_precision="bf16" if compute_dtype(recipe) is torch.bfloat16 else "no")
    device = accelerator.device
    model = make_model(recipe, device)
    workload = make_workload(recipe, vocabulary_of(model))
    one_eos(model, workload.eos)
    tokenizer = make_tokenizer(workload.eos + 1)
    contender = OurStep(recipe, workload, model, tokenizer, accelerator)
    plan = None
    if device.type == "cuda":
        plan = planned_memory(recipe, workload, model, contender.layout)
        Console().print(f"Planned: at most {plan / GB:.1f} GB of tensors at a time.")
    interleaved = device.type == "cpu"
    ours: list[dict[str, float]] = []
    peaks: list[int] = []

    def our_step(number: int) -> None:
        ours.append(contender.run(number))
        peaks.append(peak_memory())

    if interleaved and against:
        theirs = run_trl(
            against, recipe, workload, fresh_model(recipe, workload, device), tokenizer, our_step
        )
    for number in range(len(ours), recipe.warmup + recipe.steps):
        our_step(number)
    result: dict[str, Any] = {}
    result["r1rl"] = figures(ours[recipe.warmup :]) | {
        "peak_memory_bytes": max(peaks) or None,
        "planned_memory_bytes": plan,
    }
    result["r1rl"] |= efficiency(contender, workload, result["r1rl"]["seconds"])
    result |= {
        "completion_tokens": workload.num_tokens,
        "notes": contender.notes,
        "environment": describe_environment(recipe.seed),
    }
    if against:
        if not interleaved:
            show(result, recipe, Console())
            del model, contender  # each contender needs the memory for itself
            accelerator.free_memory()
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            theirs = run_trl(
                against,
                recipe,
                workload,
                fresh_model(recipe, workload, device),
                tokenizer,
                lambda number: None,
            )
        result[against] = figures(theirs[trl_steps(recipe)[0] :]) | {
            "peak_memory_bytes": peak_memory() or None
        }
        result["ratio"] = {
            phase: result[against]["seconds"][phase] / result["r1rl"]["seconds"][phase] for phase in PHASES
        }
    folder = Path(recipe.output_dir) / recipe.run_name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    (folder / "bench.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result, recipe, Console())
    Console().print(f"Written to {folder / 'bench.json'}.")


def fresh_model(recipe: BenchRecipe, workload: Workload, device: torch.device) -> PreTrainedModel:
    """Return the same model once more, untouched."""
    model = make_model(recipe, device)
    one_eos(model, workload.eos)
    return model


def planned_memory(recipe: BenchRecipe, workload: Workload, model: PreTrainedModel, layout: Layout) -> int:
    """Return the most bytes of tensors, by the estimate that `r1rl check` prints (`r1rl.memory.plan`).

    The estimate is for the micro-batches of this step's lengths.
    """
    prompts = [
        prompt for prompt, lengths in zip(workload.prompts, workload.lengths, strict=True) for _ in lengths
    ]
    completions = [
        Completion([0] * length, [], "", FinishReason.LENGTH)
        for lengths in workload.lengths
        for length in lengths
    ]
    batch = build_train_batch(prompts, completions, torch.zeros(len(prompts)))
    micro_batches = make_micro_batches(batch, range(len(prompts)), layout, recipe.update)
    launch, arithmetic = (
        Launch(card_bytes=total_bytes(model.device)),
        ModelConfig(path="", dtype=recipe.dtype),
    )
    work = Work(
        rows=len(prompts),
        length=max(map(len, workload.prompts)) + recipe.completion_length_max,
        update_tokens=max(one.input_ids_RT.numel() for one in micro_batches),
        logit_tokens=min(recipe.update.logprob_chunk, max(one.targets_N.numel() for one in micro_batches)),
        compiled=is_compiled(recipe.update, launch, arithmetic),
        fused_logits=fuses_logits(RolloutConfig(), launch, arithmetic),
        adapters=None if recipe.lora is None else adapters_of(model.config, recipe.lora),
    )
    return plan_memory(shape_of(model.config), launch, work).total - RESERVE_BYTES


def figures(timed: list[dict[str, float]]) -> dict[str, Any]:
    """Return the medians by phase over the timed steps, and every step's seconds."""
    seconds = {phase: statistics.median(step[phase] for step in timed) for phase in PHASES}
    return {"seconds": seconds, "steps": timed}


def efficiency(contender: OurStep, workload: Workload, seconds: dict[str, float]) -> dict[str, float]:
    """Return the tokens a second, and the shares of the machine's speed that are used.

    The share of the update is its useful operations (`r1rl.policy.costs`, each prompt counted once) over
    those of a large matrix product in the same time. The share of decoding is the bytes that it must read
    over those of a large copy in the same time. These bytes are the weights once per token of the longest
    completion, and each row's keys and values at each of its tokens.
    """
    model, device = contender.engine.weights.model, contender.accelerator.device
    costs = contender.layout.costs
    operations = sum(
        costs.sequences(len(prompt), lengths)
        for prompt, lengths in zip(workload.prompts, workload.lengths, strict=True)
    )
    config = model.config.get_text_config()
    size = torch.finfo(contender.engine.weights.dtype).bits // 8
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * size
    cached = sum(
        length * len(prompt) + length * (length + 1) // 2
        for prompt, lengths in zip(workload.prompts, workload.lengths, strict=True)
        for length in lengths
    )
    weights = (costs.position + costs.completion_token) / 6.0  # parameters of decoder and head
    read = max(max(lengths) for lengths in workload.lengths) * weights * size + cached * per_token
    return {
        "tokens_per_second": workload.num_tokens / seconds["step"],
        "rollout_tokens_per_second": workload.num_tokens / seconds["rollout"],
        "update_flops_utilisation": operations
        / seconds["update"]
        / measured_peak(device, contender.engine.weights.dtype),
        "decode_bandwidth_share": read / seconds["rollout"] / measured_bandwidth(device),
    }


def peak_memory() -> int:
    """Return the most bytes that tensors took since the device's statistics were last reset.

    The result is 0 on a CPU, where the process's memory belongs to everything in it.
    """
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def show(result: dict[str, Any], recipe: BenchRecipe, console: Console) -> None:
    """Print the figures as a table."""
    lengths = f"mean {recipe.completion_length_mean}, at most {recipe.completion_length_max} tokens"
    table = Table(
        title=f"{recipe.run_name}: {recipe.num_prompts} prompts x {recipe.num_generations}, {lengths}"
    )
    table.add_column("seconds")
    names = [name for name in ("r1rl", *PEERS, "ratio") if name in result]
    for name in names:
        table.add_column(name, justify="right")
    for phase in PHASES:
        values = [
            result[name][phase] if name == "ratio" else result[name]["seconds"][phase] for name in names
        ]
        table.add_row(
            phase,
            *(
                f"{value:.2f}x" if name == "ratio" else f"{value:.3f}"
                for name, value in zip(names, values, strict=True)
            ),
        )
    console.print(table)
    ours = result["r1rl"]
    console.print(
        f"{ours['tokens_per_second']:,.0f} completion tokens a second "
        f"({ours['rollout_tokens_per_second']:,.0f} in the rollout); "
        f"the update at {ours['update_flops_utilisation']:.0%} of a large matrix product's speed, "
        f"decoding at {ours['decode_bandwidth_share']:.0%} of a copy's."
    )
    if ours["peak_memory_bytes"]:
        planned, peak = ours["planned_memory_bytes"], ours["peak_memory_bytes"]
        theirs = "".join(
            f"; {peer} at most {result[peer]['peak_memory_bytes'] / GB:.1f} GB"
            for peer in PEERS
            if peer in result
        )
        console.print(
            f"Tensors took {peak / GB:.1f} GB at most, {peak / planned - 1:+.1%} of the plan{theirs}."
        )
    for note in result["notes"]:
        console.print(note)
