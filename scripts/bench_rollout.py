"""Tokens per second of the rollout engines beside transformers' own generate, on a small random decoder.

    python scripts/bench_rollout.py --rows 64 256 --threads 1 2

All contenders run in turn in one process, on the same prompts and weights; the table shows medians. "fixed" decodes every
completion to the limit; "varied" ends completions at random (mean about 46 tokens), which is where dropping finished rows pays.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from r1rl.config.pretrain import ArchitectureConfig
from r1rl.rollout import build_engine
from r1rl.sampling import Sampling

GENERATIONS = 8


def random_policy(shape: ArchitectureConfig, device: str) -> PreTrainedModel:
    """A decoder of the embedded model's shape with random weights."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Qwen3ForCausalLM(config).to(device).train()


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
    engine = build_engine("native", policy, tokenizer)

    def native(seed: int) -> int:
        groups = engine.generate(prompts, GENERATIONS, sampling, [seed * len(prompts) + index for index in range(len(prompts))])
        return sum(len(completion.token_ids) for group in groups for completion in group.completions)

    def stock(seed: int) -> int:
        torch.manual_seed(seed)
        return stock_generate(policy, prompts, sampling)

    return {"native": native, "generate": stock}


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
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    shape = ArchitectureConfig()
    policy = random_policy(shape, arguments.device)
    print(f"{'threads':>7} {'rows':>5} {'lengths':>7} {'native tok/s':>13} {'generate tok/s':>15} {'ratio':>6}")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for rows in arguments.rows:
            generator = torch.Generator().manual_seed(rows)
            lengths = torch.randint(40, 80, (rows // GENERATIONS,), generator=generator).tolist()
            prompts = [torch.randint(shape.vocab_size, (length,), generator=generator).tolist() for length in lengths]
            for label, eos in (("fixed", ()), ("varied", tuple(range(11)))):
                sampling = Sampling(arguments.tokens, eos_token_ids=eos)
                rates = measure(contenders(policy, prompts, sampling), arguments.repeats, arguments.device)
                ratio = rates["native"] / rates["generate"]
                print(f"{threads:>7} {rows:>5} {label:>7} {rates['native']:>13,.0f} {rates['generate']:>15,.0f} {ratio:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
