"""Seconds of an update with padded sequences, packed ones, and packed ones that share their prompts.

    python scripts/bench_update.py recipes/bench/tiny.yaml --threads 1 2
    python scripts/bench_update.py recipes/bench/qwen2.5-0.5b.yaml update.micro_batch_tokens=16384 --profile

The layouts take turns in one process. The recipe is one of `r1rl bench`. The table shows medians, and for a
CPU those of processor seconds, which other work on the machine disturbs less. On a GPU layers are compiled as
the recipe says, those of padded sequences too, which a run leaves alone. `--profile` shows where the host's
and the device's time goes in an update of the last layout.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from r1rl.bench.recipe import BenchRecipe
from r1rl.bench.workload import Workload, compute_dtype, make_model, make_workload, vocabulary_of
from r1rl.compute.trials import trial_report
from r1rl.config.load import load_recipe
from r1rl.models.lora import add_adapters
from r1rl.objective.sampling import Sampling
from r1rl.policy.batching import TrainBatch, build_train_batch, move_micro_batch
from r1rl.policy.compilation import compile_policy, fuse_logprobs, wants_compiling
from r1rl.policy.layout import choose_layout, packed_attention_in
from r1rl.policy.logprobs import PolicyForward
from r1rl.policy.packing import Layout, make_micro_batches
from r1rl.types import Completion, FinishReason


def batch_of(workload: Workload) -> TrainBatch:
    """Return completions of the workload's lengths; their content does not matter."""
    generator = torch.Generator().manual_seed(0)
    prompts = [
        prompt for prompt, lengths in zip(workload.prompts, workload.lengths, strict=True) for _ in lengths
    ]
    lengths = [length for group in workload.lengths for length in group]
    texts = [torch.randint(2, workload.eos, (length,), generator=generator).tolist() for length in lengths]
    return build_train_batch(
        prompts, [Completion(ids, [], "", FinishReason.EOS) for ids in texts], torch.ones(len(texts))
    )


def update(policy: PolicyForward, batch: TrainBatch, layout: Layout, recipe: BenchRecipe) -> tuple[int, int]:
    """Run forward and backward of all sequences, and return the number of micro-batches and positions."""
    device = policy.model.device
    policy.zero_grad()
    bfloat16 = compute_dtype(recipe) is torch.bfloat16
    with packed_attention_in(policy.model) if layout.packed else nullcontext():
        micro_batches = make_micro_batches(batch, range(batch.num_sequences), layout, recipe.update)
        for micro_batch in micro_batches:
            it = move_micro_batch(micro_batch, device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
                logprobs_N, _ = policy(
                    it.input_ids_RT, it.predictors_N, it.targets_N, "value", it.positions_RT, it.plan
                )
            logprobs_N.sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return len(micro_batches), sum(micro_batch.num_tokens for micro_batch in micro_batches)


def profile(policy: PolicyForward, batch: TrainBatch, layout: Layout, recipe: BenchRecipe) -> None:
    """Print the costliest functions of an update on the host, then the costliest kernels of another on the
    device.
    """
    host = cProfile.Profile()
    host.runcall(update, policy, batch, layout, recipe)
    pstats.Stats(host).sort_stats("tottime").print_stats(30)
    activities = [ProfilerActivity.CUDA] if torch.cuda.is_available() else [ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as device:
        update(policy, batch, layout, recipe)
    print(
        device.key_averages().table(
            sort_by=f"self_{activities[0].name.lower()}_time_total", row_limit=30, max_name_column_width=80
        )
    )


def main() -> None:
    """Print one line per number of threads, and the profile if it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value, as for r1rl bench")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="then show where the time of an update goes")
    options = parser.parse_args()
    recipe: BenchRecipe = load_recipe("bench", options.recipe, options.overrides)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = compute_dtype(recipe)
    model = make_model(recipe, device)
    if recipe.lora is not None:
        add_adapters(model, recipe.lora, recipe.run_name, None, recipe.seed)
        torch.nn.Module.to(model, device)
    batch = batch_of(make_workload(recipe, vocabulary_of(model)))
    packed = choose_layout(model, recipe.update, dtype)
    layouts = {
        "padded": replace(packed, packed=False, shares_prompts=False),
        "packed": replace(packed, shares_prompts=False),
        "packed, prompts shared": packed,
    }
    policy = PolicyForward(
        model, Sampling(max_completion_length=recipe.completion_length_max), recipe.update.logprob_chunk
    )
    fuse_logprobs(policy, dtype)
    if wants_compiling(recipe.update.compile, device, dtype, checkpointed=False):
        started = time.perf_counter()
        if compile_policy(policy, packed, dtype).accepted:
            print(f"The policy's layers were compiled in {time.perf_counter() - started:.1f} s.")
    print("\n".join(trial_report([*packed.trials, *policy.trials])))
    print("| threads | layout | micro-batches | positions | seconds | processor seconds |")
    print("|---|---|---|---|---|---|")
    for threads in options.threads:
        torch.set_num_threads(threads)
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in layouts}
        sizes = {}
        for _ in range(options.repeats + 1):
            for name, layout in layouts.items():
                clocks = time.perf_counter(), time.process_time()
                sizes[name] = update(policy, batch, layout, recipe)
                seconds[name].append((time.perf_counter() - clocks[0], time.process_time() - clocks[1]))
        for name, (num_micro_batches, positions) in sizes.items():
            wall, processor = (statistics.median(values) for values in zip(*seconds[name][1:], strict=True))
            print(
                f"| {threads} | {name} | {num_micro_batches} | {positions:,} | {wall:.2f} | {processor:.2f} |"
            )
    if options.profile:
        profile(policy, batch, packed, recipe)


if __name__ == "__main__":
    main()
