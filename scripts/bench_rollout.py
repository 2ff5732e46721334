"""Tokens per second of the rollout engines beside transformers' own generate, on a decoder with random
weights.

    python scripts/bench_rollout.py recipes/bench/tiny.yaml --rows 64 256 --threads 1 2
    python scripts/bench_rollout.py recipes/bench/qwen2.5-0.5b.yaml --rows 128 512 --tokens 512

The recipe is one of `r1rl bench`, for the shape. All contenders run in turn in one process, on the same
prompts and weights; the table shows medians. "fixed" decodes every completion to the limit. "varied" ends
completions at random (after a third of the limit on average), where dropping finished rows pays. On a GPU the
native engine runs in three ways: plain steps, captured steps, captured steps with compiled layers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel

from r1rl.bench.recipe import BenchRecipe
from r1rl.bench.workload import compute_dtype, make_model, make_tokenizer
from r1rl.compute.trials import trial_report
from r1rl.config.load import load_recipe
from r1rl.objective.sampling import Sampling
from r1rl.rollout.native.engine import NativeEngine
from r1rl.rollout.native.method import StepMethod

GENERATIONS = 8
PROMPT_LENGTHS = 40, 79


def stock_generate(policy: PreTrainedModel, prompts: list[list[int]], sampling: Sampling) -> int:
    """Sample with transformers' generate as a trainer would call it: every prompt repeated, sampling on, left
    padding.
    """
    width = max(map(len, prompts))
    rows = [prompt for prompt in prompts for _ in range(GENERATIONS)]
    device = policy.device
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    eos = list(sampling.eos_token_ids) or None
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=sampling.max_completion_length,
        pad_token_id=0,
        eos_token_id=eos,
    )
    policy.eval()
    with torch.no_grad():
        completions = policy.generate(ids, attention_mask=mask, generation_config=config)[:, width:]
    policy.train()
    if eos is None:
        return completions.numel()
    ended = torch.isin(completions, torch.tensor(eos, device=device)).int().cumsum(1)
    return int(((ended == 0).sum(1) + (ended[:, -1] > 0).int()).sum())


def contenders(
    policy: PreTrainedModel, prompts: list[list[int]], sampling: Sampling
) -> dict[str, Callable[[int], int]]:
    """Return by name functions of a seed that sample once and return how many tokens were kept."""
    tokenizer = make_tokenizer(policy.config.vocab_size)

    def native(engine: NativeEngine, seed: int) -> int:
        groups = engine.generate(
            prompts, GENERATIONS, sampling, [seed * len(prompts) + index for index in range(len(prompts))]
        )
        return sum(len(completion.token_ids) for group in groups for completion in group.completions)

    if policy.device.type == "cpu":
        engines = {"native": NativeEngine(policy, tokenizer)}
    else:
        plain = NativeEngine(policy, tokenizer)
        plain.allocator.method = StepMethod()
        engines = {
            "plain": plain,
            "captured": NativeEngine(policy, tokenizer),
            "compiled": NativeEngine(policy, tokenizer, compiler="inductor"),
        }
    for name, engine in engines.items():
        print("\n".join([f"# {name}{engine.reason}", *trial_report(engine.trials)]), flush=True)

    def stock(seed: int) -> int:
        torch.manual_seed(seed)
        return stock_generate(policy, prompts, sampling)

    return {name: partial(native, engine) for name, engine in engines.items()} | {"generate": stock}


def measure(runs: dict[str, Callable[[int], int]], repeats: int, device: str) -> dict[str, float]:
    """Return the median tokens per second of each contender, which take turns; the first turn warms up."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            tokens = run(turn)
            if device != "cpu":
                torch.cuda.synchronize()
            rates[name].append(tokens / (time.perf_counter() - start))
    return {name: statistics.median(values[1:]) for name, values in rates.items()}


def main() -> None:
    """Print one line per workload."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[64, 256],
        help="completions that are sampled at once; multiples of 8",
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="torch threads")
    parser.add_argument("--tokens", type=int, default=128, help="longest completion")
    parser.add_argument("--repeats", type=int, default=3, help="measured turns of each contender")
    arguments = parser.parse_args()
    room = [f"completion_length_{kind}={arguments.tokens}" for kind in ("mean", "max")]
    recipe: BenchRecipe = load_recipe(
        "bench", arguments.recipe, [*room, "prompt_length_min=1", f"prompt_length_max={PROMPT_LENGTHS[1]}"]
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = make_model(recipe, torch.device(device)).train()
    for (
        parameter
    ) in policy.parameters():  # not the buffers: rounded rotary frequencies would move the positions
        parameter.data = parameter.data.to(compute_dtype(recipe))
    vocabulary = policy.config.vocab_size
    for threads in arguments.threads if device == "cpu" else [1]:
        torch.set_num_threads(threads)
        for rows in arguments.rows:
            generator = torch.Generator().manual_seed(rows)
            lengths = torch.randint(
                PROMPT_LENGTHS[0], PROMPT_LENGTHS[1] + 1, (rows // GENERATIONS,), generator=generator
            ).tolist()
            prompts = [
                torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths
            ]
            for label, eos in (
                ("fixed", ()),
                ("varied", tuple(range(11 * vocabulary // (4 * arguments.tokens)))),
            ):
                sampling = Sampling(arguments.tokens, eos_token_ids=eos)
                rates = measure(contenders(policy, prompts, sampling), arguments.repeats, device)
                shown = "  ".join(
                    f"{name} {rate:,.0f} tok/s ({rate / rates['generate']:.2f})"
                    for name, rate in rates.items()
                )
                print(f"threads {threads}  rows {rows}  {label}: {shown}", flush=True)


if __name__ == "__main__":
    main()
