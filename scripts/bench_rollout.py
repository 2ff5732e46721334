"""Tokens per second of the rollout engines beside transformers' own generate, on a random decoder.

    python scripts/bench_rollout.py --rows 64 256 --threads 1 2
    python scripts/bench_rollout.py --device cuda --shape 0.5b --rows 128 512 --tokens 512

All contenders run in turn in one process, on the same prompts and weights; the table shows medians. "fixed" decodes every
completion to the limit; "varied" ends completions at random (after a third of the limit on average), which is where dropping
finished rows pays. On a GPU the native engine runs in three ways: plain steps, captured steps, captured steps with compiled layers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from r1rl.config.pretrain import ArchitectureConfig
from r1rl.rollout.method import StepMethod
from r1rl.rollout.native import NativeEngine
from r1rl.sampling import Sampling

GENERATIONS = 8
QWEN = {"0.5b": (896, 4864, 24, 14, 2), "1.5b": (1536, 8960, 28, 12, 2), "7b": (3584, 18944, 28, 28, 4)}
"""Qwen2.5's hidden and intermediate size, layers, query heads and key/value heads (its config.json)."""


def random_policy(shape: str, device: str) -> PreTrainedModel:
    """A decoder with random weights: of the embedded model's shape ("tiny"), or of Qwen2.5's."""
    torch.manual_seed(0)
    if shape == "tiny":
        own = ArchitectureConfig()
        config: Qwen2Config | Qwen3Config = Qwen3Config(
            vocab_size=own.vocab_size,
            hidden_size=own.hidden_size,
            intermediate_size=own.intermediate_size,
            num_hidden_layers=own.num_layers,
            num_attention_heads=own.num_heads,
            num_key_value_heads=own.num_key_value_heads,
            head_dim=own.head_dim,
            max_position_embeddings=own.max_position_embeddings,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
    else:
        hidden, intermediate, layers, heads, key_value_heads = QWEN[shape]
        config = Qwen2Config(
            vocab_size=151936,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            tie_word_embeddings=shape != "7b",
            bos_token_id=None,
            eos_token_id=None,
        )
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if device == "cuda" else torch.float32).train()


def plain_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one word per id: decoding must work, its text does not matter."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({str(i): i for i in range(vocabulary)}, unk_token="0")))


def stock_generate(policy: PreTrainedModel, prompts: list[list[int]], sampling: Sampling) -> int:
    """transformers' generate as a trainer would call it: every prompt repeated, sampling on, left padding."""
    width = max(map(len, prompts))
    rows = [prompt for prompt in prompts for _ in range(GENERATIONS)]
    device = policy.device
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    eos = list(sampling.eos_token_ids) or None
    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=sampling.max_completion_length, pad_token_id=0, eos_token_id=eos)
    policy.eval()
    with torch.no_grad():
        completions = policy.generate(ids, attention_mask=mask, generation_config=config)[:, width:]
    policy.train()
    if eos is None:
        return completions.numel()
    ended = torch.isin(completions, torch.tensor(eos, device=device)).int().cumsum(1)
    return int(((ended == 0).sum(1) + (ended[:, -1] > 0).int()).sum())


def contenders(policy: PreTrainedModel, prompts: list[list[int]], sampling: Sampling) -> dict[str, Callable[[int], int]]:
    """Name -> function of a seed that samples once and returns how many tokens were kept."""
    tokenizer = plain_tokenizer(policy.config.vocab_size)

    def native(engine: NativeEngine, seed: int) -> int:
        groups = engine.generate(prompts, GENERATIONS, sampling, [seed * len(prompts) + index for index in range(len(prompts))])
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
        print(f"# {name}{engine.reason}", flush=True)

    def stock(seed: int) -> int:
        torch.manual_seed(seed)
        return stock_generate(policy, prompts, sampling)

    return {name: partial(native, engine) for name, engine in engines.items()} | {"generate": stock}


def measure(runs: dict[str, Callable[[int], int]], repeats: int, device: str) -> dict[str, float]:
    """Median tokens per second of each contender, which take turns; the first turn warms up."""
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
    """Prints one line per workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256], help="completions that are sampled at once; multiples of 8")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="torch threads")
    parser.add_argument("--tokens", type=int, default=128, help="longest completion")
    parser.add_argument("--repeats", type=int, default=3, help="measured turns of each contender")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shape", default="tiny", choices=["tiny", *QWEN])
    arguments = parser.parse_args()
    policy = random_policy(arguments.shape, arguments.device)
    vocabulary = policy.config.vocab_size
    for threads in arguments.threads if arguments.device == "cpu" else [1]:
        torch.set_num_threads(threads)
        for rows in arguments.rows:
            generator = torch.Generator().manual_seed(rows)
            lengths = torch.randint(40, 80, (rows // GENERATIONS,), generator=generator).tolist()
            prompts = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths]
            for label, eos in (("fixed", ()), ("varied", tuple(range(11 * vocabulary // (4 * arguments.tokens))))):
                sampling = Sampling(arguments.tokens, eos_token_ids=eos)
                rates = measure(contenders(policy, prompts, sampling), arguments.repeats, arguments.device)
                shown = "  ".join(f"{name} {rate:,.0f} tok/s ({rate / rates['generate']:.2f})" for name, rate in rates.items())
                print(f"threads {threads}  rows {rows}  {label}: {shown}", flush=True)


if __name__ == "__main__":
    main()
