"""GRPO in one file, on torch and transformers alone: a base model learns Countdown from a reward.

    python examples/grpo_flat.py          the model of r1rl: from 30 % to 87 % in six minutes of a CPU core
    python examples/grpo_flat.py MODEL    another causal language model: a folder or a hub name

A step samples G completions o_1 .. o_G for each of P prompts q and compares each one's reward with its group.
Theta are the weights, "old" those that sampled, and N counts the tokens of all completions, EOS included.

    o_i ~ pi_old(. | q)                                                          sample
    A_i = (r_i - mean(r_1 .. r_G)) / (std(r_1 .. r_G) + 1e-4)                    group_advantages
    rho_it = pi_theta(o_it | q, o_i<t) / pi_old(o_it | q, o_i<t)
    L = - 1/N sum_i sum_t min(rho_it A_i, clip(rho_it, 1 - 0.2, 1 + 0.2) A_i)    group_loss

This is GRPO (DeepSeekMath, 2402.03300, equation 3) without its KL term, and with DAPO's mean over all tokens
(2503.14476, equation 8). With one update per rollout rho is 1, and its gradient is that of log pi_theta.
`r1rl grpo recipes/zero_rl/tiny.yaml` has the same gradients (tests/test_grpo_flat.py). The trainer differs:
- with several updates it takes log pi_old from its own forward pass, since a fast sampler rounds differently;
- it is faster: packed sequences, prompts computed once, a compiled sampler, bfloat16, any number of GPUs;
- its recipe warms the learning rate up, samples up to 192 tokens, and pays for a format that is nearly right;
- it has many losses, advantages, rewards and tasks, resumes exactly, and measures with confidence intervals.

Legend: P prompts, G completions of a prompt, R rows that are still sampled, T tokens, V vocabulary.
"""

import ast
import random
import re
import sys
import zlib
from collections import namedtuple
from fractions import Fraction
from itertools import permutations, product
from operator import add, mul, neg, sub, truediv
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, set_seed

EMBEDDED = Path(__file__).parent.parent / "r1rl" / "models" / "tiny-base"
P, G, MAX_TOKENS, LEARNING_RATE, UPDATES, EPSILON = 32, 8, 128, 1.5e-4, 1, 0.2
ARITHMETIC = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv, ast.USub: neg}
Problem = namedtuple("Problem", "prompt numbers target")
Completion = namedtuple("Completion", "prompt_ids token_ids logprobs")  # log pi_old of each token


def draw_problem(held_out: bool) -> Problem:
    """Draw a problem with a solution. One in ten is held out: the embedded model has never seen those."""
    while True:
        numbers = random.choices(range(2, 21), k=3)
        signs = list(product([add, sub, mul], repeat=2))
        values = {g(f(a, b), c) for a, b, c in permutations(numbers) for f, g in signs}
        target = random.choice(sorted(values & set(range(1, 101))))
        if (zlib.crc32(f"countdown {sorted(numbers)} {target}".encode()) % 10 == 0) == held_out:
            prompt = f"User: Make {target} from {', '.join(map(str, numbers))}.\nAssistant: <think>"
            return Problem(prompt, numbers, target)


def value_of(node: ast.AST) -> Fraction:
    """Compute + - * / over whole numbers, exactly. Raise KeyError or AttributeError for anything else."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    operands = [value_of(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return ARITHMETIC[type(node.op)](*operands)


def is_right(completion: str, problem: Problem) -> bool:
    """Tell whether the answer after the thoughts uses each number once and makes the target."""
    found = re.search(r"</think>[^<>]*<answer>\s*([0-9 ()+*/-]{1,100})\s*</answer>", completion)
    answer = found[1] if found else ""
    used = sorted(int(number) for number in re.findall(r"\d+", answer))
    try:
        return used == sorted(problem.numbers) and value_of(ast.parse(answer).body[0].value) == problem.target
    except (SyntaxError, KeyError, AttributeError, ZeroDivisionError):
        return False


def reward_of(completion: str, problem: Problem) -> float:
    """Return 1 for a right answer, and 0.1 for thoughts and an answer in their tags and nothing else."""
    in_tags = re.fullmatch(r"[^<>]+</think>\s*<answer>[^<>]+</answer>\s*", completion)
    return is_right(completion, problem) + 0.1 * bool(in_tags)


@torch.no_grad()
def sample(model, tokenizer, prompts: list[str]) -> tuple[list[Completion], list[str]]:
    """Sample a completion of each prompt at temperature 1, and its text. Rows that end leave the batch."""
    completions = [Completion(prompt_ids, [], []) for prompt_ids in tokenizer(prompts).input_ids]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    ids_RT, mask_RT, rows, cache = batch.input_ids, batch.attention_mask, completions, DynamicCache()
    while rows and len(rows[0].token_ids) < MAX_TOKENS:
        places_RT = (mask_RT.cumsum(1) - 1).clamp(min=0)[:, -ids_RT.shape[1] :]
        logprobs_RV = model(ids_RT, mask_RT, places_RT, cache).logits[:, -1].float().log_softmax(-1)
        ids_RT = logprobs_RV.exp().multinomial(1)
        for row, token_id, logprobs_V in zip(rows, ids_RT[:, 0].tolist(), logprobs_RV, strict=True):
            row.token_ids.append(token_id)
            row.logprobs.append(logprobs_V[token_id].item())
        alive_R = (ids_RT[:, 0] != tokenizer.eos_token_id).nonzero()[:, 0]
        rows, ids_RT = [rows[r] for r in alive_R], ids_RT[alive_R]
        mask_RT = torch.cat([mask_RT[alive_R], torch.ones_like(ids_RT)], 1)
        cache.batch_select_indices(alive_R)
    return completions, tokenizer.decode([one.token_ids for one in completions], skip_special_tokens=True)


def group_advantages(rewards_PG: torch.Tensor) -> torch.Tensor:
    """Return A: how far each reward is above its group's mean, in standard deviations of the group."""
    return (rewards_PG - rewards_PG.mean(1, keepdim=True)) / (rewards_PG.std(1, keepdim=True) + 1e-4)


def group_loss(model, group: list[Completion], advantages_G1: torch.Tensor) -> torch.Tensor:
    """Return a group's part of N L, by one forward pass. Padding is on the right, where no token sees it."""
    start = len(group[0].prompt_ids)
    ids_GT = pad_sequence([torch.tensor(one.prompt_ids + one.token_ids) for one in group], batch_first=True)
    logprobs_GTV = model(ids_GT, use_cache=False).logits[:, start - 1 : -1].float().log_softmax(-1)
    logprobs_GT = logprobs_GTV.gather(2, ids_GT[:, start:, None])[..., 0]
    old_GT = pad_sequence([torch.tensor(one.logprobs) for one in group], batch_first=True)
    mask_GT = pad_sequence([torch.ones(len(one.token_ids)) for one in group], batch_first=True)
    ratio_GT = (logprobs_GT - old_GT).exp()
    clipped_GT = ratio_GT.clamp(1 - EPSILON, 1 + EPSILON)
    return -(mask_GT * torch.minimum(ratio_GT * advantages_G1, clipped_GT * advantages_G1)).sum()


def main(path: str | Path = EMBEDDED, steps: int = 40) -> None:
    """Train, and print an answer and the accuracy on 128 held-out problems before, between and after."""
    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # which is masked
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.0)
    held_out = [draw_problem(held_out=True) for _ in range(128)]
    for step in range(steps + 1):
        if step % 20 == 0 or step == steps:
            texts = sample(model, tokenizer, [problem.prompt for problem in held_out])[1]
            print(f"{held_out[0].prompt}{texts[0]}\n{sum(map(is_right, texts, held_out)) / 128:.1%} right")
        if step == steps:
            return
        problems = [problem for _ in range(P) for problem in [draw_problem(held_out=False)] * G]
        completions, texts = sample(model, tokenizer, [problem.prompt for problem in problems])
        rewards_PG = torch.tensor(list(map(reward_of, texts, problems))).view(P, G)
        num_tokens = sum(len(one.token_ids) for one in completions)
        for _ in range(UPDATES):
            for p, advantages_G1 in enumerate(group_advantages(rewards_PG)[..., None]):
                (group_loss(model, completions[p * G : (p + 1) * G], advantages_G1) / num_tokens).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        print(f"step {step + 1}: reward {rewards_PG.mean():.3f}, {num_tokens / P / G:.1f} tokens")


if __name__ == "__main__":
    main(*sys.argv[1:2])
