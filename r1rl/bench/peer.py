"""The side of TRL in a bench: its stock GRPOTrainer on the same model, prompts, lengths, batch and precision.

Its completions come from transformers' generate (the peer `trl`) or from vLLM inside its process
(`trl-vllm`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)

from r1rl.attention.steady import steady_attention
from r1rl.bench.peer_vllm import force_vllm_lengths, starting_vllm, vllm_settings
from r1rl.bench.recipe import BenchRecipe
from r1rl.bench.workload import Workload, compute_dtype, prompt_text, reward
from r1rl.errors import UserError

TRL, TRL_VLLM = PEERS = ("trl", "trl-vllm")
"""The values of `--against`."""

PHASES = {"_generate_single_turn": "rollout", "_calculate_rewards": "reward"}
"""The methods of TRL's trainer that are a phase of the step; the rest of the step is its update."""


class ForceLengths(LogitsProcessor):
    """A logits processor that forbids the EOS token until a row has its length, then allows nothing else."""

    def __init__(self, lengths: list[int], eos: int, prompt_width: int) -> None:
        self.lengths = lengths
        self.eos = eos
        self.prompt_width = prompt_width
        self.due: torch.Tensor | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.due is None:
            self.due = torch.tensor(self.lengths, device=scores.device) - 1
        done = input_ids.shape[1] - self.prompt_width
        scores = scores.clone()
        scores[:, self.eos] = -torch.inf
        ends = (self.due == done)[:, None]
        only = torch.full_like(scores, -torch.inf)
        only[:, self.eos] = 0.0
        return torch.where(ends, only, scores)


def trl_steps(recipe: BenchRecipe) -> tuple[int, int]:
    """Return the number of steps that warm up, and of those that are timed."""
    warmup = recipe.warmup if recipe.trl_warmup is None else recipe.trl_warmup
    return warmup, recipe.steps if recipe.trl_steps is None else recipe.trl_steps


def run_trl(
    peer: str,
    recipe: BenchRecipe,
    workload: Workload,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    after_step: Callable[[int], None],
) -> list[dict[str, float]]:
    """Return the seconds of each phase, step by step, warm-up included, for one of PEERS.

    `after_step(number)` is called between steps, outside the clock.
    """
    try:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        raise UserError(f"--against {peer} needs TRL and datasets: {error}") from error

    laps: dict[str, float] = {}
    results: list[dict[str, float]] = []

    class Timed(GRPOTrainer):
        """The stock trainer; calls of two of its methods are timed."""

    for method, phase in PHASES.items():
        setattr(Timed, method, timed(getattr(GRPOTrainer, method), phase, laps))

    class Stopwatch(TrainerCallback):
        """A timer of steps; the time between them is not TRL's."""

        started = 0.0

        def on_step_begin(self, *arguments: Any, **keywords: Any) -> None:
            laps.clear()
            self.started = now()

        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            step = now() - self.started
            results.append({**laps, "update": step - sum(laps.values()), "step": step})
            after_step(len(results) - 1)

    with tempfile.TemporaryDirectory() as folder:
        settings = trl_settings(recipe, folder)
        if peer == TRL_VLLM:
            settings |= vllm_settings(recipe, model, tokenizer, Path(folder, "model"))
        texts = [prompt_text(prompt) for prompt in workload.prompts] * sum(trl_steps(recipe))
        dataset = Dataset.from_dict({"prompt": texts})
        with starting_vllm() if peer == TRL_VLLM else nullcontext():
            trainer = Timed(
                model=model,
                reward_funcs=reward,
                args=GRPOConfig(**settings),
                train_dataset=dataset,
                processing_class=tokenizer,
                callbacks=[Stopwatch()],
            )
        trainer.remove_callback(PrinterCallback)
        if peer == TRL_VLLM:
            force_vllm_lengths(trainer.vllm_generation.llm, workload)
        else:
            force_lengths(model, workload)
        with steady_attention():  # else cuDNN's plans for every length take up its first steps
            trainer.train()
    check_mean_lengths(trainer.state.log_history, workload)
    return results


def trl_settings(recipe: BenchRecipe, folder: str) -> dict[str, Any]:
    """Return the keywords of TRL's GRPOConfig that every peer has."""
    batch = recipe.num_prompts * recipe.num_generations
    return {
        "output_dir": folder,
        "per_device_train_batch_size": recipe.trl_micro_batch,
        "gradient_accumulation_steps": batch // recipe.trl_micro_batch,
        "num_generations": recipe.num_generations,
        "max_completion_length": recipe.completion_length_max,
        "max_steps": sum(trl_steps(recipe)),
        "bf16": compute_dtype(recipe) is torch.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "temperature": 1.0,
        "beta": 0.0,
        "learning_rate": 1e-6,
        "disable_tqdm": True,
        "shuffle_dataset": False,
        "seed": recipe.seed,
    }


def check_mean_lengths(log_history: list[dict[str, Any]], workload: Workload) -> None:
    """Raise `AssertionError` if TRL's own log says that it did other work."""
    asked = workload.num_tokens / sum(map(len, workload.lengths))
    lengths = [
        record["completions/mean_length"] for record in log_history if "completions/mean_length" in record
    ]
    if not lengths or any(abs(length - asked) > 0.01 for length in lengths):
        raise AssertionError(
            f"TRL's completions have mean lengths {lengths}, not the ones that were asked for"
        )


def force_lengths(model: PreTrainedModel, workload: Workload) -> None:
    """Make every `generate` of this model end row r at the r-th length."""
    stock: Any = model
    generate = stock.generate
    lengths = [length for group in workload.lengths for length in group]

    def forced(input_ids: torch.Tensor, **keywords: Any) -> Any:
        processor = ForceLengths(lengths, workload.eos, input_ids.shape[1])
        return generate(input_ids=input_ids, logits_processor=LogitsProcessorList([processor]), **keywords)

    stock.generate = forced


def timed(method: Callable[..., Any], phase: str, laps: dict[str, float]) -> Callable[..., Any]:
    """Return the method, whose seconds are then added to the phase's."""

    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        started = now()
        result = method(*arguments, **keywords)
        laps[phase] = laps.get(phase, 0.0) + now() - started
        return result

    return wrapper


def now() -> float:
    """Return the time when all work of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
