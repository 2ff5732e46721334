"""The settings of TRL's side of a bench if vLLM samples for it inside the trainer's process.

It needs a GPU, a folder to load from, and lengths. Through TRL, vLLM takes no logits processor, so a row ends
at its own limit of tokens, not with an EOS token as with transformers' generate. TRL trains whatever it gets
back: as many tokens either way.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.bench.recipe import BenchRecipe
from r1rl.bench.workload import Workload, compute_dtype
from r1rl.errors import UserError


def check_vllm(recipe: BenchRecipe) -> None:
    """Raise a `UserError` if vLLM can't do this recipe's work. No model is needed for this."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError("--against trl-vllm needs vLLM, which is not installed: pip install 'r1rl[vllm]'.")
    if not torch.cuda.is_available():
        raise UserError(
            "--against trl-vllm needs a GPU for vLLM, and torch finds none: write --against trl, which "
            "needs none."
        )
    if compute_dtype(recipe) is not torch.bfloat16:
        raise UserError(
            "dtype is float32, but vLLM computes in bfloat16 as TRL starts it: write dtype: bfloat16, or "
            "--against trl."
        )


def vllm_settings(
    recipe: BenchRecipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> dict[str, Any]:
    """Return the keywords of TRL's GRPOConfig, and save the model to `folder`, where vLLM finds it.

    TRL gives vLLM the model's path, and later its weights. All that is no key of the recipe is as TRL sets
    it: no sleep between rollouts, and one more forward pass of the update, which corrects for vLLM's
    log-probabilities.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = copy.deepcopy(model.config)
    config.dtype = compute_dtype(recipe)  # vLLM then computes in it
    config.save_pretrained(folder)
    model.name_or_path = str(folder)
    settings = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_max_model_length": recipe.prompt_length_max + recipe.completion_length_max,
    }
    if recipe.trl_vllm_gpu_memory_utilization is not None:
        settings["vllm_gpu_memory_utilization"] = recipe.trl_vllm_gpu_memory_utilization
    return settings


@contextmanager
def starting_vllm() -> Iterator[None]:
    """Wrap TRL's construction of its trainer, in which vLLM starts, so that too little memory, say, becomes a
    sentence.
    """
    try:
        yield
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--against trl-vllm: TRL's trainer does not start with vLLM: {type(error).__name__}: {error}"
        ) from error


def force_vllm_lengths(llm: Any, workload: Workload) -> None:
    """Make every `generate` of this `vllm.LLM` give row r as many tokens as the r-th length.

    If vLLM is colocated, TRL passes every row of its batch, a prompt as often as it has completions, with n =
    1 and the same parameters for all.
    """
    generate = llm.generate
    lengths = [length for group in workload.lengths for length in group]

    def forced(prompts: Sequence[Any], sampling_params: Any, **keywords: Any) -> Any:
        return generate(
            prompts, sampling_params=[of_length(sampling_params, length) for length in lengths], **keywords
        )

    llm.generate = forced


def of_length(sampling_params: Any, length: int) -> Any:
    """Return these `vllm.SamplingParams` for exactly `length` tokens."""
    own = copy.deepcopy(sampling_params)
    own.max_tokens = length
    own.ignore_eos = True
    return own
