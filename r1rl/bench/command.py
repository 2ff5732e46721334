"""`r1rl bench`: times the phases of a GRPO step, beside TRL if asked, and writes what it found.

On a CPU the two take turns step by step in one process, so that whatever else the machine does hits both. On a GPU, where
each is to have the memory for itself, r1rl runs first and then TRL.
"""

from __future__ import annotations

import copy
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from r1rl.bench.machine import measured_bandwidth, measured_peak
from r1rl.bench.ours import OurStep
from r1rl.bench.peer import run_trl
from r1rl.bench.workload import Workload, make_model, make_tokenizer, make_workload, one_eos, vocabulary_of
from r1rl.config.bench import BenchRecipe
from r1rl.config.load import dump_recipe
from r1rl.environment import describe_environment
from r1rl.errors import UserError

PHASES = ("rollout", "reward", "update", "step")


def run(recipe: BenchRecipe, recipe_path: Path, against: str | None = None) -> None:
    """`r1rl bench`. `against`: "trl", or None."""
    if against not in (None, "trl"):
        raise UserError(f"--against {against}: the bench knows trl.")
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    model = make_model(recipe)
    workload = make_workload(recipe, vocabulary_of(model))
    one_eos(model, workload.eos)
    tokenizer = make_tokenizer(workload.eos + 1)
    other_model = copy.deepcopy(model) if against else None
    ours: list[dict[str, float]] = []
    reset_peak_memory()
    contender = OurStep(recipe, workload, model, tokenizer)
    interleaved = contender.accelerator.device.type == "cpu"

    def our_step(number: int) -> None:
        ours.append(contender.run(number))

    if other_model is None or not interleaved:
        for number in range(recipe.warmup + recipe.steps):
            our_step(number)
    result: dict[str, Any] = {"r1rl": figures(recipe, ours) if ours else {}}
    result["r1rl"]["peak_memory_bytes"] = peak_memory()
    if other_model is not None:
        if not interleaved:
            torch.nn.Module.to(model, "cpu")
            reset_peak_memory()
        theirs = run_trl(recipe, workload, other_model, tokenizer, our_step if interleaved else lambda number: None)
        result["trl"] = figures(recipe, theirs) | {"peak_memory_bytes": peak_memory()}
        if interleaved:
            result["r1rl"] |= figures(recipe, ours)
        result["ratio"] = {phase: result["trl"]["seconds"][phase] / result["r1rl"]["seconds"][phase] for phase in PHASES}
    result["r1rl"] |= efficiency(contender, workload, result["r1rl"]["seconds"])
    result |= {"completion_tokens": workload.num_tokens, "notes": contender.notes, "environment": describe_environment(recipe.seed)}
    folder = Path(recipe.output_dir) / recipe.run_name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    (folder / "bench.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result, recipe, Console())
    Console().print(f"Written to {folder / 'bench.json'}.")


def figures(recipe: BenchRecipe, steps: list[dict[str, float]]) -> dict[str, Any]:
    """Medians by phase over the timed steps, and every step's seconds."""
    timed = steps[recipe.warmup :]
    seconds = {phase: statistics.median(step[phase] for step in timed) for phase in PHASES}
    return {"seconds": seconds, "steps": timed}


def efficiency(contender: OurStep, workload: Workload, seconds: dict[str, float]) -> dict[str, float]:
    """Tokens a second, and the shares of what the machine can do.

    The update's useful operations (`r1rl.grpo.costs`, each prompt counted once) over those of a large matrix product in the same
    time; the bytes that decoding must read (the weights once per token of the longest completion, and each row's keys and values at
    each of its tokens) over those of a large copy.
    """
    model, device = contender.engine.weights.model, contender.accelerator.device
    costs = contender.layout.costs
    operations = sum(
        costs.sequences(len(prompt), lengths) for prompt, lengths in zip(workload.prompts, workload.lengths, strict=True)
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
        "update_flops_utilisation": operations / seconds["update"] / measured_peak(device, contender.engine.weights.dtype),
        "decode_bandwidth_share": read / seconds["rollout"] / measured_bandwidth(device),
    }


def reset_peak_memory() -> None:
    """Forgets the peak so far, and frees what is cached."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int | None:
    """Bytes that tensors took at most; None on a CPU, where the process's memory is everybody's."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def show(result: dict[str, Any], recipe: BenchRecipe, console: Console) -> None:
    """The figures as a table."""
    lengths = f"mean {recipe.completion_length_mean}, at most {recipe.completion_length_max} tokens"
    table = Table(title=f"{recipe.run_name}: {recipe.num_prompts} prompts x {recipe.num_generations}, {lengths}")
    table.add_column("seconds")
    names = [name for name in ("r1rl", "trl", "ratio") if name in result]
    for name in names:
        table.add_column(name, justify="right")
    for phase in PHASES:
        values = [result[name][phase] if name == "ratio" else result[name]["seconds"][phase] for name in names]
        table.add_row(phase, *(f"{value:.2f}x" if name == "ratio" else f"{value:.3f}" for name, value in zip(names, values, strict=True)))
    console.print(table)
    ours = result["r1rl"]
    console.print(
        f"{ours['tokens_per_second']:,.0f} completion tokens a second ({ours['rollout_tokens_per_second']:,.0f} in the rollout); "
        f"the update at {ours['update_flops_utilisation']:.0%} of a large matrix product's speed, "
        f"decoding at {ours['decode_bandwidth_share']:.0%} of a copy's."
    )
    for note in result["notes"]:
        console.print(note)
